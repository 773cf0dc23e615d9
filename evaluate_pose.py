"""Evaluate odometry: predict each frame's motion to the next, print the 5-frame error."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from metrics import compute_ate, dump_xyz, trajectory_errors
from options import POSE, MonodepthOptions
from utils import DataError, check_data_path, run, save_array

__all__ = ["compute_ate", "dump_xyz", "evaluate"]


def read_sequence(eval_split: str) -> tuple[list[str], int, int]:
    """Return the lines of an odometry test list, its sequence and its first frame.

    Args:
        eval_split: "odom_9", "odom_10", or a path to a list of `sequence frame side`.

    Raises:
        DataError: there is no such list, or it is not one run of frames of one sequence.
    """
    from datasets.splits import parse_line, read_split, split_path
    if eval_split.startswith("odom_"):
        number = eval_split.removeprefix("odom_")
        path = split_path("odom", f"test_files_{number:0>2}.txt")
    else:
        path = Path(eval_split)
        if not path.is_file():
            raise DataError(f"--eval_split {eval_split} does not exist; give odom_9, odom_10, or "
                            "a path to a list of frames, such as `9 l: 0-1589`")
    lines = read_split(path)
    sequences, frames, _ = zip(*map(parse_line, lines), strict=True)
    if len(set(sequences)) > 1 or list(frames) != list(range(frames[0], frames[0] + len(frames))):
        raise DataError(f"{path} must list consecutive frames of one sequence, as "
                        "`9 l: 0-1589` does")
    if not sequences[0].isdigit():
        raise DataError(f"{path} names {sequences[0]!r}; expected the number of a sequence")
    return lines, int(sequences[0]), frames[0]


def evaluate(gt_poses: np.ndarray, motions: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the 5-frame error, in metres.

    Args:
        gt_poses: (N + 1, 4, 4) camera to world, metres.
        motions: (N, 4, 4) from the camera of frame i to that of frame i + 1.
    """
    errors = trajectory_errors(gt_poses, motions.astype(np.float64))
    return float(errors.mean()), float(errors.std())


def main() -> None:
    """Evaluate as the command line says."""
    opts = MonodepthOptions(POSE).parse()
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from datasets.kitti_utils import read_poses
    from distributed import join_world, leave_world
    from prediction import predict_motions
    world = join_world(opts.no_cuda)
    check_data_path(opts.data_path)
    lines, sequence, first = read_sequence(opts.eval_split)
    poses_path = Path(opts.data_path, "poses", f"{sequence:02d}.txt")
    gt_poses = read_poses(poses_path)[first:first + len(lines) + 1]
    if len(gt_poses) != len(lines) + 1:
        raise DataError(f"{poses_path} has {len(gt_poses)} poses from frame {first} on; the list "
                        f"asks for {len(lines) + 1}")
    motions = predict_motions(opts, lines, world)
    leave_world()
    if not world.is_main:
        return
    mean, std = evaluate(gt_poses, motions)
    print(f"\n   Trajectory error: {mean:0.3f}, std: {std:0.3f}\n")
    path = Path(opts.eval_out_dir or opts.load_weights_folder, "poses.npy")
    save_array(path, motions)
    print(f"saved {len(motions)} motions, frame to next frame, to {path}")


if __name__ == "__main__":
    run(main)
