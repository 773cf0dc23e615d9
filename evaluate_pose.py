"""Evaluate odometry: predict each frame's motion to the next, print the 5-frame error."""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoints import load_model
from datasets import KITTIOdomDataset, as_float
from datasets.kitti_utils import read_poses
from datasets.splits import parse_line, read_split, split_path
from metrics import compute_ate, dump_xyz, trajectory_errors
from options import POSE, MonodepthOptions
from utils import DataError, check_data_path, get_device, run, save_array

__all__ = ["compute_ate", "dump_xyz", "evaluate"]


def read_sequence(eval_split: str) -> tuple[list[str], int, int]:
    """Return the lines of an odometry test list, its sequence and its first frame.

    Args:
        eval_split: "odom_9", "odom_10", or a path to a list of `sequence frame side`.

    Raises:
        DataError: there is no such list, or it is not one run of frames of one sequence.
    """
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


@torch.no_grad()
def predict(opts: Namespace, lines: list[str]) -> np.ndarray:
    """Return (N, 4, 4): for each line's frame, the motion from its camera to the next frame's."""
    device = get_device(opts.no_cuda)
    model, (height, width, _) = load_model(opts.load_weights_folder, with_pose=True, device=device)
    if model.pose_model_input == "all":
        raise DataError(f"the pose network in {opts.load_weights_folder} takes "
                        f"{len(model.frame_ids)} frames at once; the 5-frame error needs one that "
                        "was trained with --pose_model_input pairs")
    dataset = KITTIOdomDataset(opts.data_path, lines, height, width, [0, 1], 1,
                               img_ext=".png" if opts.png else ".jpg")
    loader = DataLoader(dataset, opts.batch_size, num_workers=opts.num_workers)
    motions = []
    for batch in tqdm(loader, desc=f"predicting at {width}x{height}", dynamic_ncols=True):
        now, later = (as_float(batch["color", f, 0].to(device)) for f in (0, 1))
        motions.append(model.motion(now, later).cpu().numpy())
    return np.concatenate(motions)


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
    check_data_path(opts.data_path)
    lines, sequence, first = read_sequence(opts.eval_split)
    poses_path = Path(opts.data_path, "poses", f"{sequence:02d}.txt")
    gt_poses = read_poses(poses_path)[first:first + len(lines) + 1]
    if len(gt_poses) != len(lines) + 1:
        raise DataError(f"{poses_path} has {len(gt_poses)} poses from frame {first} on; the list "
                        f"asks for {len(lines) + 1}")
    motions = predict(opts, lines)
    mean, std = evaluate(gt_poses, motions)
    print(f"\n   Trajectory error: {mean:0.3f}, std: {std:0.3f}\n")
    path = Path(opts.eval_out_dir or opts.load_weights_folder, "poses.npy")
    save_array(path, motions)
    print(f"saved {len(motions)} motions, frame to next frame, to {path}")


if __name__ == "__main__":
    run(main)
