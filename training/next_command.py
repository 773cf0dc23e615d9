"""Write the command lines that continue or evaluate a training run."""
from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from options import MAX_DEPTH, MIN_DEPTH

# The test split of a training split. Eigen's test images are in benchmark's training list.
TEST_SPLITS = {"eigen_zhou": "eigen", "eigen_full": "eigen", "benchmark": "benchmark"}


def resume_command() -> str:
    """Return the command line that resumes the run of this process."""
    words = [word for word in sys.argv if word != "--overwrite"]
    if "--resume" not in words:
        words.append("--resume")
    if "LOCAL_WORLD_SIZE" not in os.environ:  # torchrun sets it
        return shlex.join(["python", *words])
    processes, world = os.environ["LOCAL_WORLD_SIZE"], os.environ["WORLD_SIZE"]
    launcher = ["torchrun"]
    if (nodes := int(world) // int(processes)) > 1:
        launcher += ["--nnodes", str(nodes)]
    return shlex.join([*launcher, "--nproc_per_node", processes, *words])


def evaluation_command(opts: Namespace, weights: Path, has_pose: bool) -> str:
    """Return the command line that evaluates a weights folder of a run.

    Args:
        opts: flags of the run.
        weights: weights folder.
        has_pose: whether the run trains a pose network.
    """
    words = ["--data_path", opts.data_path]
    if opts.png:
        words.append("--png")
    if opts.split == "odom" and has_pose:
        words = ["evaluate_pose.py", *words, "--eval_split", "odom_9"]
    elif opts.split in TEST_SPLITS or Path(opts.split, "test_files.txt").is_file():
        words = ["evaluate_depth.py", *words,
                 "--eval_stereo" if opts.use_stereo else "--eval_mono"]
        if opts.velocity_weight:
            words.append("--disable_median_scaling")
        if opts.mask_dir:
            words += ["--mask_dir", opts.mask_dir]
        eval_split = TEST_SPLITS.get(opts.split, opts.split)
        if eval_split != "eigen":
            words += ["--eval_split", eval_split]
        if opts.dataset != "kitti":
            words += ["--dataset", opts.dataset]
    else:  # a split without test frames
        words = ["test_simple.py", "--image_path", "IMAGE"]
    if (opts.min_depth, opts.max_depth) != (MIN_DEPTH, MAX_DEPTH):
        words += ["--min_depth", opts.min_depth, "--max_depth", opts.max_depth]
    return shlex.join(map(str, ["python", *words, "--load_weights_folder", weights]))
