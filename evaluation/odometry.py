"""Evaluate odometry: predict the motions of a sequence, measure the errors, write trajectories.

Convention: KITTI's poses belong to camera 0, the left grey camera, and map its coordinates (x
right, y down, z forward) to the coordinates of its first frame. The images belong to camera 2, the
left colour camera, 6 cm beside camera 0 and with the same orientation; as in the published
evaluation, this difference is ignored. A motion maps the coordinates of frame i's camera to the
coordinates of frame i + 1's camera; a pose of a trajectory maps camera to world coordinates.
"""
from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.frames_seen import find_leak, read_frames_seen
from datasets.splits import SPLITS, parse_line, read_split, split_path
from evaluation.motions import load_motion_inputs, predict_motions
from evaluation.trajectory_figure import trajectory_png
from evaluation.trajectory_files import (
    RATE,
    check_poses,
    kitti_text,
    read_times,
    read_trajectory,
    scores_json,
    scores_name,
)
from kitti_utils import read_poses
from metrics.trajectory import (
    USUAL_ALIGNMENT,
    Scores,
    chain_motions,
    five_frame_errors,
    score_trajectory,
    tum_text,
)
from prediction.predictor import Predictor
from runtime.distributed import init_distributed, shut_down_distributed
from runtime.errors import DataError, counted
from runtime.files import check_data_path, check_out_dir, save_array, write_atomically

LAST_WITH_POSES = 10  # the true poses of sequences 00 to 10 are published


class OdometrySequence(NamedTuple):
    """Hold the frames and the true poses of an evaluated sequence of KITTI odometry.

    Attributes:
        number: of the sequence.
        first: index of the first frame.
        lines: N split lines of the frames whose motion to the next frame is predicted.
        poses: (N + 1, 4, 4) true poses, camera to world, metres.
    """

    number: int
    first: int
    lines: list[str]
    poses: np.ndarray


def evaluate_odometry(opts: Namespace) -> None:
    """Evaluate the pose network of a weights folder, or the trajectory of a file.

    Args:
        opts: flags of evaluate_pose.py.

    Raises:
        DataError: a file is missing or broken, or cannot be written.
    """
    check_data_path(opts.data_path)
    sequences = read_sequences(opts)
    if opts.ext_poses_to_eval:
        evaluate_trajectory_file(opts, sequences[0])
        return
    world = init_distributed(opts.no_cuda)
    if opts.eval_out_dir and world.is_main:  # before an hour of prediction
        check_out_dir(opts.eval_out_dir)
    # workers are forked before the networks are loaded; further sequences start in their turn
    first = load_motion_inputs(opts, sequences[0].lines, world)
    predictor = Predictor(opts.load_weights_folder, world.device, with_pose=True)
    motions = [predict_motions(predictor, first, world)]
    for sequence in sequences[1:]:
        inputs = load_motion_inputs(opts, sequence.lines, world)
        motions.append(predict_motions(predictor, inputs, world))
    shut_down_distributed()
    if world.is_main:
        seen = read_frames_seen(opts.load_weights_folder)
        for sequence, predicted in zip(sequences, motions, strict=True):
            print(find_leak(seen, "kitti_odom", sequence.lines, opts.data_path).describe())
            measure_and_write(opts, sequence, predicted, predictor.training_camera.metres)


def read_sequences(opts: Namespace) -> list[OdometrySequence]:
    """Read the sequences that the flags name.

    Raises:
        DataError: a list or its true poses are missing or wrong.
    """
    if opts.sequences:
        return [read_whole_sequence(opts.data_path, number)
                for number in dict.fromkeys(opts.sequences)]
    if opts.eval_split.startswith("odom_"):
        name = opts.eval_split.removeprefix("odom_")
        if not (name.isdecimal() and name.isascii() and len(name) < 3):
            raise DataError(f"--eval_split {opts.eval_split} is not a sequence of KITTI odometry; "
                            "give odom_00 to odom_10")
        if not (SPLITS / "odom" / f"test_files_{name:0>2}.txt").is_file():
            return [read_whole_sequence(opts.data_path, int(name))]
    return [read_listed_sequence(opts.data_path, opts.eval_split)]


def read_whole_sequence(data_path: str, number: int) -> OdometrySequence:
    """Return all frames of a sequence that have a true pose, left camera."""
    poses = read_true_poses(data_path, number)
    return OdometrySequence(number, 0, [f"{number} {i} l" for i in range(len(poses) - 1)], poses)


def read_listed_sequence(data_path: str, eval_split: str) -> OdometrySequence:
    """Return the frames of an odometry test list.

    Args:
        data_path: KITTI odometry's folder.
        eval_split: "odom_9", "odom_10", or a path to a list of `sequence frame side`.

    Raises:
        DataError: the list or the poses are missing, or the list is no run of consecutive frames.
    """
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
    numbers, frames, _ = zip(*map(parse_line, lines), strict=True)
    first, end = frames[0], frames[0] + len(frames)
    if len(set(numbers)) > 1 or list(frames) != list(range(first, end)):
        raise DataError(f"{path} must list consecutive frames of one sequence, as "
                        "`9 l: 0-1589` does")
    if not numbers[0].isdigit():
        raise DataError(f"{path} names {numbers[0]!r}; expected the number of a sequence")
    number = int(numbers[0])
    poses = read_true_poses(data_path, number)[first:end + 1]
    if len(poses) != len(lines) + 1:
        raise DataError(f"{poses_path(data_path, number)} has {counted(len(poses), 'pose')} from "
                        f"frame {first} on; the list asks for {len(lines) + 1} ({path}); give "
                        f"a list of fewer frames, or --sequences {number}: all that have poses")
    return OdometrySequence(number, first, lines, poses)


def poses_path(data_path: str, number: int) -> Path:
    """Return the path of a sequence's true poses."""
    return Path(data_path, "poses", f"{number:02d}.txt")


def read_true_poses(data_path: str, number: int) -> np.ndarray:
    """Read the (N, 4, 4) true poses of a sequence, camera to world, metres.

    Raises:
        DataError: the file is missing or broken, or has fewer than two poses.
    """
    path = poses_path(data_path, number)
    if not path.is_file():
        words = ["python", "prepare_data.py", "kitti", "--odometry", "--download", "--data_path"]
        cure = ("extract data_odometry_poses.zip, which this fetches, with the images that are "
                f"missing: {shlex.join([*words, str(data_path)])}")
        if number > LAST_WITH_POSES:
            cure = f"KITTI publishes the poses of sequences 00 to {LAST_WITH_POSES} only"
        raise DataError(f"{path} is missing; {cure}")
    poses = read_poses(path)
    check_poses(poses, path)
    if len(poses) < 2:
        raise DataError(f"{path} has one pose; a motion needs two")
    return poses


def evaluate_trajectory_file(opts: Namespace, sequence: OdometrySequence) -> None:
    """Measure the trajectory of --ext_poses_to_eval; write only if --eval_out_dir is given.

    Raises:
        DataError: the file is broken, or has frames without a true pose.
    """
    path = Path(opts.ext_poses_to_eval)
    frames, poses = read_trajectory(path, sequence.first,
                                    lambda: find_times(opts.data_path, sequence))
    frames = frames - sequence.first
    last = len(sequence.poses) - 1
    if frames[0] < 0 or frames[-1] > last:
        wrong = frames[0] if frames[0] < 0 else frames[-1]
        raise DataError(f"{path} has frame {wrong + sequence.first}; of sequence "
                        f"{sequence.number:02d} the frames {sequence.first} to "
                        f"{sequence.first + last} are evaluated")
    scores = score_trajectory(sequence.poses, frames, poses,
                              opts.alignment or USUAL_ALIGNMENT)
    five_frames = None
    if (np.diff(frames) == 1).all():
        motions = np.linalg.inv(poses[1:]) @ poses[:-1]
        five_frames = five_frame_error(sequence.poses[frames], motions)
        print_five_frame_error(*five_frames)
    else:
        print("\n   Trajectory error: undefined, because the trajectory misses frames\n")
    print_scores(scores, sequence)
    if opts.eval_out_dir is None:
        print("--eval_out_dir FOLDER writes these errors and a picture")
    else:
        write_scores(Path(opts.eval_out_dir), sequence, five_frames, scores, path.name)


def measure_and_write(opts: Namespace, sequence: OdometrySequence, motions: np.ndarray,
                      metres: float | None) -> None:
    """Measure predicted motions; write the motions, their trajectory, its errors and its picture.

    Args:
        opts: flags of the evaluation.
        sequence: true poses of the same frames.
        motions: (N, 4, 4) frame to next frame, in the network's unit of length.
        metres: per unit of length; None if the scale is unknown.
    """
    five_frames = five_frame_error(sequence.poses, motions)
    print_five_frame_error(*five_frames)
    folder = Path(opts.eval_out_dir or opts.load_weights_folder)
    path = folder / (f"poses_{sequence.number:02d}.npy" if opts.sequences else "poses.npy")
    save_array(path, motions)
    print(f"saved {counted(len(motions), 'motion')}, frame to next frame, to {path}")
    poses = chain_motions(motions, metres or 1.0)
    unit = "metres" if metres else "the network's unit of length"
    write_trajectories(folder, opts.data_path, sequence, poses, unit)
    scores = score_trajectory(sequence.poses, np.arange(len(poses)), poses,
                              opts.alignment or USUAL_ALIGNMENT)
    print()
    print_scores(scores, sequence)
    write_scores(folder, sequence, five_frames, scores, str(opts.load_weights_folder))


def five_frame_error(gt_poses: np.ndarray, motions: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the 5-frame error, metres.

    Args:
        gt_poses: (N + 1, 4, 4) true poses, camera to world, metres.
        motions: (N, 4, 4) from the camera of frame i to the camera of frame i + 1.
    """
    errors = five_frame_errors(gt_poses, motions.astype(np.float64))
    return float(errors.mean()), float(errors.std())


def print_five_frame_error(mean: float, std: float) -> None:
    """Print the figures of the paper's table."""
    print(f"\n   Trajectory error: {mean:0.3f}, std: {std:0.3f}\n")


def print_scores(scores: Scores, sequence: OdometrySequence) -> None:
    """Print the errors of a whole trajectory."""
    frames = f"{len(scores.truth)} of {len(sequence.poses)} frames"
    print(f"   sequence {sequence.number:02d}, {frames}, "
          f"alignment: {scores.alignment} (scale {scores.scale:g})")
    for name, value, unit in (("t_err", scores.t_err, "%"), ("r_err", scores.r_err, "deg/100 m"),
                              ("ATE", scores.ate, "m"), ("RPE", scores.rpe_m, "m"),
                              ("RPE", scores.rpe_deg, "deg")):
        reason = ""
        if not np.isfinite(value):
            reason = ("  (needs two consecutive frames)" if name == "RPE"
                      else "  (needs a path of 100 m)")
        print(f"   {name:5}  {value:10.6f} {unit}{reason}")
    print()


def write_trajectories(folder: Path, data_path: str, sequence: OdometrySequence, poses: np.ndarray,
                       unit: str) -> None:
    """Write poses in KITTI's and in TUM's format."""
    number = f"{sequence.number:02d}"
    times, source = find_times(data_path, sequence)
    for kind, text, note in (("kitti", kitti_text(poses), ""),
                             ("tum", tum_text(times, poses), f"; times: {source}")):
        path = folder / f"trajectory_{number}_{kind}.txt"
        write_atomically(path, text.encode())
        print(f"wrote {path}: poses as predicted, not aligned, in {unit}{note}")


def find_times(data_path: str, sequence: OdometrySequence) -> tuple[np.ndarray, str]:
    """Return the times of a sequence's frames in seconds, and their source.

    Raises:
        DataError: times.txt of the sequence is broken.
    """
    path = Path(data_path, "sequences", f"{sequence.number:02d}", "times.txt")
    end = sequence.first + len(sequence.poses)
    if not path.is_file():
        return (np.arange(sequence.first, end) / RATE,
                f"frame / {RATE:g} s, because {path} is missing")
    times = read_times(path)
    if len(times) < end:
        raise DataError(f"{path} has {counted(len(times), 'time')}, but frame {end - 1} is "
                        "evaluated; extract it again (data_odometry_calib.zip), or delete it")
    return times[sequence.first:end], str(path)


def write_scores(folder: Path, sequence: OdometrySequence,
                 five_frames: tuple[float, float] | None, scores: Scores, name: str) -> None:
    """Write the errors and the picture of a trajectory, and print their paths."""
    path = folder / scores_name(sequence.number, scores.alignment)
    write_atomically(path, scores_json(five_frames, scores).encode())
    picture = trajectory_png(scores, f"{name}, sequence {sequence.number:02d}")
    write_atomically(path.with_suffix(".png"), picture)
    print(f"wrote {path} and {path.stem}.png")
