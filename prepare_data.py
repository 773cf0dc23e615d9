"""Prepare data: read footage (video) or a data set (import), check a split, get KITTI."""
from __future__ import annotations

import sys

from preparation.command_line import parse_args
from runtime.errors import run


def main() -> None:
    """Run the command of the command line."""
    opts = parse_args()
    if opts.command == "video":
        from preparation.video import prepare_video
        prepare_video(opts)
    elif opts.command == "import" and opts.layout == "cityscapes":
        from preparation.cityscapes import import_cityscapes
        import_cityscapes(opts.source, opts.out, opts.crop_bonnet)
    elif opts.command == "import":
        from preparation.tum import import_tum
        import_tum(opts.source, opts.out, opts.test)
    elif opts.command == "check":
        from preparation.check import check_split
        if not check_split(opts):
            sys.exit(1)
    else:
        from preparation.kitti import prepare_kitti
        prepare_kitti(opts.data_path, opts.download, opts.convert, opts.odometry, opts.split)


if __name__ == "__main__":
    run(main)
