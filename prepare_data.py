"""Prepare data for training and evaluation: `prepare_data.py COMMAND -h` shows the flags."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from options import (
    MIN_SIZE,
    SIZE_STEP,
    OneLineParser,
    nearest_input_size,
    non_negative_int,
    positive,
)
from runtime.errors import run


def image_size(text: str) -> tuple[int, int]:
    """Return the (width, height) of a WxH that networks take: an argparse type."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected WxH, as in 640x192")
    sizes = int(width), int(height)
    if sizes != (near := tuple(map(nearest_input_size, sizes))):
        raise argparse.ArgumentTypeError(f"{text} is not of multiples of {SIZE_STEP}, from "
                                         f"{MIN_SIZE} on; for example {near[0]}x{near[1]}")
    return sizes


def add_video(commands: argparse._SubParsersAction) -> None:
    """Add the command `video`."""
    about = "turn videos, or folders of images, into a dataset for --dataset folder"
    parser = commands.add_parser("video", help=about, description=about)
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE",
        help="video files or folders of images; each becomes a sequence")
    add("--left", help="of a rectified stereo pair: a video or a folder")
    add("--right", help="the other camera's, frame by frame of the same time")
    add("--baseline", type=positive(float), metavar="METRES", help="between the two cameras")
    add("--out", type=Path, required=True, help="folder to make; must be new or empty")
    add("--fps", type=positive(float), default=10.0,
        help="frames a second to keep of a video; folders keep all (%(default)s)")
    add("--size", type=image_size, metavar="WxH",
        help="of the images written, multiples of 32 (default: as they are)")
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--intrinsics", nargs=4, type=float, metavar=("FX", "FY", "CX", "CY"),
                        help="in pixels of the footage (default: its folder's intrinsics.json)")
    camera.add_argument("--fov", type=positive(float), metavar="DEG",
                        help="horizontal field of view; square pixels, centre in the middle")
    add("--min_flow", type=float, metavar="PIXELS",
        help="leave out frames that move less, on average, at 416 pixels' width; 0 keeps all (1)")
    add("--ext", help="extension of a folder's images (default: all that are known)")
    parser.set_defaults(call=call_video, parser=parser)


def call_video(opts: argparse.Namespace) -> None:
    """Prepare footage as the command line says, or end where its flags contradict each other."""
    error = opts.parser.error
    is_stereo = opts.left is not None or opts.right is not None
    if is_stereo and None in (opts.left, opts.right, opts.baseline):
        error("a stereo pair needs --left, --right and --baseline METRES")
    if is_stereo == bool(opts.sources):
        error("give videos or folders, or --left DIR --right DIR --baseline METRES")
    if not is_stereo and opts.baseline is not None:
        error("--baseline is of a stereo pair; give --left and --right too")
    if opts.fov is not None and opts.fov >= 180:
        error(f"--fov is {opts.fov:g}; a pinhole camera sees less than 180 degrees")
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from preparation.video import prepare_video
    prepare_video(opts)


def add_check(commands: argparse._SubParsersAction) -> None:
    """Add the command `check`, whose flags are train.py's."""
    about = "read all that a split needs, and show whether it is right"
    parser = commands.add_parser("check", help=about, description=about)
    add = parser.add_argument
    add("--data_path", required=True, help="as for train.py")
    add("--split", required=True, help="as for train.py")
    add("--list", default="train", choices=["train", "val", "test"],
        help="which of its lists (%(default)s)")
    add("--dataset", default="kitti", help="as for train.py (%(default)s)")
    add("--png", action="store_true", help="read .png")
    add("--height", type=positive(int), default=192, help="(%(default)s)")
    add("--width", type=positive(int), default=640, help="(%(default)s)")
    add("--frame_ids", nargs="+", type=int, default=[0, -1, 1], help="(0 -1 1)")
    add("--use_stereo", action="store_true", help="read the other view too")
    add("--load_weights_folder", help="show what these weights make of the samples, too")
    add("--num_workers", type=non_negative_int, default=os.cpu_count(),
        help="processes that read (one a core)")
    add("--no_cuda", action="store_true", help="use the CPU")
    add("--out", default="check.png", help="the picture (%(default)s)")
    parser.set_defaults(call=call_check, parser=parser)


def call_check(opts: argparse.Namespace) -> None:
    """Read a split's files and show what they are like; end with 1 if one cannot be read."""
    if opts.frame_ids[0] != 0 or len(opts.frame_ids) + opts.use_stereo < 2:
        opts.parser.error(f"--frame_ids is {' '.join(map(str, opts.frame_ids))}; it must start "
                          "with 0, and name a source frame unless there is --use_stereo")
    for name in ("height", "width"):
        size = getattr(opts, name)
        if size != nearest_input_size(size):
            opts.parser.error(f"--{name} is {size}; it must be a multiple of {SIZE_STEP}, for "
                              f"example --{name} {nearest_input_size(size)}")
    from preparation.check import check
    if not check(opts):
        sys.exit(1)


def add_kitti(commands: argparse._SubParsersAction) -> None:
    """Add the command `kitti`."""
    about = "fetch and unpack KITTI, convert its PNGs, say what is missing for which split"
    parser = commands.add_parser("kitti", help=about, description=about)
    parser.add_argument("--data_path", required=True, help="KITTI's folder")
    parser.add_argument("--download", action="store_true",
                        help="fetch the archives that are missing (175 GB in all) and unpack them")
    parser.add_argument("--convert", action="store_true",
                        help="make JPEGs of the PNG images, which are deleted then; on all cores")
    parser.add_argument("--odometry", action="store_true",
                        help="odometry: its archives (65 GB) and splits, not those of raw drives")
    parser.add_argument("--split",
                        help="what this one needs, not what all do: eigen_zhou, eigen_full, eigen, "
                             "eigen_benchmark, benchmark, odom, odom_9 or odom_10")
    parser.set_defaults(call=call_kitti, parser=parser)


def call_kitti(opts: argparse.Namespace) -> None:
    """Prepare KITTI as the command line says."""
    is_odometry = (opts.split or "").startswith("odom")
    if opts.odometry and opts.split and not is_odometry:
        opts.parser.error(f"--odometry has nothing of --split {opts.split}; leave one of them out")
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from preparation.kitti import prepare_kitti
    prepare_kitti(opts.data_path, opts.download, opts.convert, opts.odometry or is_odometry,
                  opts.split)


COMMANDS = (add_video, add_check, add_kitti)


def main() -> None:
    """Prepare what the command line says."""
    parser = OneLineParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    opts = parser.parse_args()
    opts.call(opts)


if __name__ == "__main__":
    run(main)
