"""Say whether the frames of a training list are test images."""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from checkpoints.frames_seen import TRAIN_LIST, find_leak, frames_of_training
from datasets.splits import parse_line, read_split, split_path
from evaluation.test_set import layout_of_images, read_test_lines


def check_leak(opts: Namespace) -> str:
    """Return how many images of --eval_split the training list --check_leak reads.

    Args:
        opts: flags of evaluate_depth.py; --dataset and --frame_ids are those of training.

    Raises:
        DataError: a list is missing or malformed.
    """
    path = Path(opts.check_leak)
    lines = read_split(path if path.is_file() else split_path(opts.check_leak, TRAIN_LIST))
    seen = frames_of_training(_layout(lines, opts.dataset), opts.check_leak, lines, opts.frame_ids)
    tested = read_test_lines(opts)
    return find_leak(seen, _layout(tested, layout_of_images(opts)), tested).describe()


def _layout(lines: list[str], dataset: str) -> str:
    """Return the layout of a list's images: of KITTI's, bare numbers are odometry sequences."""
    is_odometry = dataset == "kitti" and all(parse_line(line)[0].isdecimal() for line in lines)
    return "kitti_odom" if is_odometry else dataset
