"""Prepare data for training and evaluation: `prepare_data.py COMMAND -h` shows the flags."""
from __future__ import annotations

import argparse

from options import OneLineParser
from utils import run


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


COMMANDS = (add_kitti,)


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
