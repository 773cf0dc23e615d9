"""Evaluate odometry: predict each frame's motion to the next, print the 5-frame error and others.

Convention: KITTI's poses are of camera 0, the left grey one, and take its coordinates (x right, y
down, z forward) to those of its first frame. The frames read are of camera 2, the left colour one,
6 cm beside it and looking the same way, which, as in the published evaluation, counts as the same.
A motion leads from the camera of frame i to that of frame i + 1; a row of a trajectory is a pose,
camera to world.
"""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.trajectory_files import (
    RATE,
    SCORES_NAME,
    check_poses,
    kitti_text,
    read_times,
    read_trajectory,
    scores_json,
    tum_text,
)
from metrics.trajectory import Scores, chain, compare, compute_ate, dump_xyz, trajectory_errors
from options import POSE, MonodepthOptions
from runtime.errors import DataError, run
from runtime.files import check_data_path, save_array, write_atomically

__all__ = ["compute_ate", "dump_xyz", "evaluate"]

LAST_WITH_POSES = 10  # sequence whose true poses are published; they begin with 0


class Sequence(NamedTuple):
    """What is evaluated of a sequence of KITTI odometry.

    Attributes:
        number: its own.
        first: frame.
        lines: split lines of the frames whose motion to the next is predicted.
        poses: (len(lines) + 1, 4, 4) true ones, camera to world, metres.
    """

    number: int
    first: int
    lines: list[str]
    poses: np.ndarray


def find_sequences(opts: Namespace) -> list[Sequence]:
    """Return what the command line asks for.

    Raises:
        DataError: a list or its poses are missing or wrong.
    """
    if opts.sequences:
        return [whole_sequence(opts.data_path, number) for number in dict.fromkeys(opts.sequences)]
    from datasets.splits import SPLITS
    name = opts.eval_split.removeprefix("odom_")
    if opts.eval_split.startswith("odom_"):
        if not (name.isdecimal() and name.isascii() and len(name) < 3):
            raise DataError(f"--eval_split {opts.eval_split} is no sequence of KITTI odometry; "
                            "give odom_00 to odom_10")
        if not (SPLITS / "odom" / f"test_files_{name:0>2}.txt").is_file():
            return [whole_sequence(opts.data_path, int(name))]
    lines, number, first = read_sequence(opts.eval_split)
    poses = read_true_poses(opts.data_path, number)[first:first + len(lines) + 1]
    if len(poses) != len(lines) + 1:
        raise DataError(f"{poses_path(opts.data_path, number)} has {len(poses)} poses from frame "
                        f"{first} on; the list asks for {len(lines) + 1}")
    return [Sequence(number, first, lines, poses)]


def whole_sequence(data_path: str, number: int) -> Sequence:
    """Return all of a sequence, left camera: as many frames as it has poses."""
    poses = read_true_poses(data_path, number)
    return Sequence(number, 0, [f"{number} {i} l" for i in range(len(poses) - 1)], poses)


def poses_path(data_path: str, number: int) -> Path:
    """Return the path of a sequence's true poses."""
    return Path(data_path, "poses", f"{number:02d}.txt")


def read_true_poses(data_path: str, number: int) -> np.ndarray:
    """Return the (N, 4, 4) true poses of a sequence, camera to world, metres.

    Raises:
        DataError: they are missing or broken, or fewer than two.
    """
    from kitti_utils import read_poses
    path = poses_path(data_path, number)
    if not path.is_file():
        cure = "extract data_odometry_poses.zip" if number <= LAST_WITH_POSES else (
            "KITTI keeps those to itself: choose sequences up to 10")
        raise DataError(f"{path} is missing; {cure}")
    poses = read_poses(path)
    check_poses(poses, path)
    if len(poses) < 2:
        raise DataError(f"{path} has one pose; a motion needs two")
    return poses


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
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"--eval_split {eval_split} {what}; give odom_9, odom_10, or a path to "
                            "a list of frames, such as `9 l: 0-1589`")
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


def print_five_frame_error(mean: float, std: float) -> None:
    """Print the paper's figures, as `evaluate` returns them."""
    print(f"\n   Trajectory error: {mean:0.3f}, std: {std:0.3f}\n")


def print_scores(scores: Scores, sequence: Sequence) -> None:
    """Print the errors of a whole trajectory."""
    frames = f"{len(scores.truth)} of {len(sequence.poses)} frames"
    print(f"   sequence {sequence.number:02d}, {frames}, "
          f"alignment: {scores.alignment} (scale {scores.scale:g})")
    for name, value, unit in (("t_err", scores.t_err, "%"), ("r_err", scores.r_err, "deg/100 m"),
                              ("ATE", scores.ate, "m"), ("RPE", scores.rpe_m, "m"),
                              ("RPE", scores.rpe_deg, "deg")):
        why = "" if np.isfinite(value) else (
            "  (no segment of 100 m)" if name != "RPE" else "  (no frame and its next)")
        print(f"   {name:5}  {value:10.6f} {unit}{why}")
    print()


def evaluate_external(opts: Namespace, sequence: Sequence) -> None:
    """Evaluate the trajectory of --ext_poses_to_eval; its errors and picture go to --eval_out_dir.

    Raises:
        DataError: the file is broken, or has frames that there is no truth for.
    """
    path = opts.ext_poses_to_eval
    frames, poses = read_trajectory(path, sequence.first)
    frames = frames - sequence.first
    last = len(sequence.poses) - 1
    if frames[0] < 0 or frames[-1] > last:
        wrong = frames[0] if frames[0] < 0 else frames[-1]
        raise DataError(f"{path} has frame {wrong + sequence.first}; of sequence "
                        f"{sequence.number:02d} the frames {sequence.first} to "
                        f"{sequence.first + last} are evaluated")
    scores = compare(sequence.poses, frames, poses, opts.alignment)
    five_frames = None
    if (np.diff(frames) == 1).all():
        motions = np.linalg.inv(poses[1:]) @ poses[:-1]
        five_frames = evaluate(sequence.poses[frames], motions)
        print_five_frame_error(*five_frames)
    else:
        print("\n   Trajectory error: none, for frames are missing within the trajectory\n")
    print_scores(scores, sequence)
    if opts.eval_out_dir is None:
        print("nothing is written without --eval_out_dir")
    else:
        save_scores(Path(opts.eval_out_dir), sequence, five_frames, scores, Path(path).name)


def save_scores(folder: Path, sequence: Sequence, five_frames: tuple[float, float] | None,
                scores: Scores, name: str) -> None:
    """Write the errors and the picture of a trajectory, and say where they are."""
    from evaluation.trajectory_figure import trajectory_png
    number = f"{sequence.number:02d}"
    path = folder / SCORES_NAME.format(number)
    write_atomically(path, scores_json(five_frames, scores).encode())
    picture = trajectory_png(scores, f"{name}, sequence {number}")
    write_atomically(path.with_suffix(".png"), picture)
    print(f"wrote {path} and {path.stem}.png")


def report(opts: Namespace, sequence: Sequence, motions: np.ndarray, metres: float | None) -> None:
    """Print the errors of predicted motions, and write them, their trajectory and its picture.

    Args:
        opts: of the evaluation.
        sequence: that they are of.
        motions: (N, 4, 4) frame to next frame, in the network's unit of length.
        metres: in that unit, None where it is unknown.
    """
    five_frames = evaluate(sequence.poses, motions)
    print_five_frame_error(*five_frames)
    folder = Path(opts.eval_out_dir or opts.load_weights_folder)
    path = folder / (f"poses_{sequence.number:02d}.npy" if opts.sequences else "poses.npy")
    save_array(path, motions)
    print(f"saved {len(motions)} motions, frame to next frame, to {path}")
    poses = chain(motions, metres or 1.0)
    times, source = find_times(opts.data_path, sequence)
    unit = "metres" if metres else "the network's unit of length"
    for kind, text in (("kitti", kitti_text(poses)), ("tum", tum_text(times, poses))):
        path = folder / f"trajectory_{sequence.number:02d}_{kind}.txt"
        write_atomically(path, text.encode())
        print(f"wrote {path}: poses as predicted, not aligned, in {unit}"
              f"{f'; times: {source}' if kind == 'tum' else ''}")
    scores = compare(sequence.poses, np.arange(len(poses)), poses, opts.alignment)
    print()
    print_scores(scores, sequence)
    save_scores(folder, sequence, five_frames, scores, str(opts.load_weights_folder))


def find_times(data_path: str, sequence: Sequence) -> tuple[np.ndarray, str]:
    """Return the seconds of a sequence's frames, and where they are from.

    Raises:
        DataError: its times.txt is broken.
    """
    path = Path(data_path, "sequences", f"{sequence.number:02d}", "times.txt")
    end = sequence.first + len(sequence.poses)
    if not path.is_file():
        return np.arange(sequence.first, end) / RATE, f"frame / {RATE:g} s, for want of {path}"
    times = read_times(path)
    if len(times) < end:
        raise DataError(f"{path} has {len(times)} times; frame {end - 1} has none; extract it "
                        "again (data_odometry_calib.zip), or delete it")
    return times[sequence.first:end], str(path)


def main() -> None:
    """Evaluate as the command line says."""
    opts = MonodepthOptions(POSE).parse()
    check_data_path(opts.data_path)
    sequences = find_sequences(opts)
    if opts.ext_poses_to_eval:
        evaluate_external(opts, sequences[0])
        return
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from evaluation.motions import metres_of, predict_motions
    from runtime.distributed import init_distributed, shut_down_distributed
    world = init_distributed(opts.no_cuda)
    motions = [predict_motions(opts, sequence.lines, world) for sequence in sequences]
    shut_down_distributed()
    if not world.is_main:
        return
    metres = metres_of(opts.load_weights_folder)
    for sequence, own in zip(sequences, motions, strict=True):
        report(opts, sequence, own, metres)


if __name__ == "__main__":
    run(main)
