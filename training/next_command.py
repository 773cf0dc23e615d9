"""The command lines with which a user goes on after a run."""
from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from options import MAX_DEPTH, MIN_DEPTH

KITTI_SPLITS = ("eigen_zhou", "eigen_full", "benchmark")  # trained on these, eigen is the test


def resume_command() -> str:
    """Return the command line that goes on with the run of this process."""
    words = [word for word in sys.argv if word != "--overwrite"]
    launcher = ["python"]
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's
        local, world = os.environ["LOCAL_WORLD_SIZE"], os.environ["WORLD_SIZE"]
        nodes = int(world) // int(local)
        launcher = ["torchrun", *["--nnodes", str(nodes)] * (nodes > 1), "--nproc_per_node", local]
    return shlex.join([*launcher, *words] + ["--resume"] * ("--resume" not in words))


def evaluation_command(opts: Namespace, weights: Path, has_pose: bool) -> str:
    """Return the command line that evaluates the `weights` folder of a run, whose flags are `opts`.

    Args:
        opts: of the run.
        weights: its last folder.
        has_pose: whether there is a pose network among them.
    """
    words = ["--data_path", opts.data_path] + ["--png"] * opts.png
    if opts.split == "odom" and has_pose:
        words = ["evaluate_pose.py", *words, "--eval_split", "odom_9"]
    elif opts.split in KITTI_SPLITS or Path(opts.split, "test_files.txt").is_file():
        words = ["evaluate_depth.py", *words,
                 "--eval_stereo" if opts.use_stereo else "--eval_mono"]
        if opts.split not in KITTI_SPLITS:
            words += ["--eval_split", opts.split]
        if opts.dataset != "kitti":
            words += ["--dataset", opts.dataset]
    else:  # a list of one's own, without test frames
        words = ["test_simple.py", "--image_path", "IMAGE"]
    if (opts.min_depth, opts.max_depth) != (MIN_DEPTH, MAX_DEPTH):
        words += ["--min_depth", opts.min_depth, "--max_depth", opts.max_depth]
    return shlex.join(map(str, ["python", *words, "--load_weights_folder", weights]))
