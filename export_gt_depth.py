"""Export ground truth depth of a test split to gt_depths.npz, which evaluate_depth.py reads."""
from __future__ import annotations

import os
from argparse import Namespace

from runtime.arguments import OneLineParser, path
from runtime.errors import run


def parse(argv: list[str] | None = None) -> Namespace:
    """Parse and check the command line."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--data_path", type=path, required=True, help="KITTI's raw folder")
    parser.add_argument("--split", type=path, required=True,
                        help="eigen (velodyne scans), eigen_benchmark (annotated PNGs), or a path "
                             "to a folder with test_files.txt (velodyne scans)")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(),
                        help="processes that make maps (%(default)s: one per core)")
    opts = parser.parse_args(argv)
    if opts.num_workers < 0:
        parser.error(f"--num_workers is {opts.num_workers}; it must be 0 or more")
    return opts


def export_gt_depths_kitti(argv: list[str] | None = None) -> None:
    """Parse the command line and export the ground truth of its split."""
    opts = parse(argv)
    from datasets.ground_truth import export_gt_depths
    print(f"wrote {export_gt_depths(opts.data_path, opts.split, opts.num_workers)}")


main = export_gt_depths_kitti

if __name__ == "__main__":
    run(main)
