"""Measure how consistent depth is along a video: each test image against its next frame."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import Masks
from datasets.splits import parse_line
from evaluation.motions import load_motion_inputs, predict_motions
from evaluation.results import RATIO, SHIFT, chosen_alignment
from evaluation.test_set import TestSet
from evaluation.trajectory_files import RATE, read_trajectory
from metrics.alignment import Alignment
from metrics.depth import MIN_DEPTH
from metrics.temporal import temporal_errors
from prediction.predictor import Predictor
from runtime.distributed import World
from runtime.errors import DataError
from runtime.flag_rules import PREDICTED

MOST_FRAMES = 100_000  # whose times a trajectory in TUM's format may name


class Video(NamedTuple):
    """Hold the pairs of consecutive frames among the test images.

    Attributes:
        pairs: (P, 2) indices of a test image and of its next frame, sorted by folder and frame.
        cameras: P normalised K.
        motions: (P, 4, 4) from the first camera of a pair to the second; None until predicted.
    """

    pairs: np.ndarray
    cameras: list[np.ndarray]
    motions: np.ndarray | None


def read_video(opts: Namespace, test_set: TestSet) -> Video:
    """Find the pairs of consecutive test images, and read their motions from --temporal FILE.

    Raises:
        DataError: no two test images are consecutive; the poses or the intrinsics are missing.
    """
    frames = {(folder, side or "", frame): i for i, (folder, frame, side) in enumerate(
        map(parse_line, test_set.lines))}
    pairs = [(i, frames[after]) for (folder, side, frame), i in sorted(frames.items())
             if (after := (folder, side, frame + 1)) in frames]
    if not pairs:
        raise DataError(f"--temporal compares each image with its next frame, and no two images of "
                        f"--eval_split {opts.eval_split} are consecutive; give a list that has "
                        "runs of frames, such as `drive_0001 l: 0-99`")
    cameras = test_set.cameras()
    motions = None
    if opts.temporal != PREDICTED:
        motions = read_motions(opts.temporal, [test_set.lines[i] for i, _ in pairs])
    return Video(np.array(pairs), [cameras[i] for i, _ in pairs], motions)


def read_motions(path: str, lines: Sequence[str]) -> np.ndarray:
    """Read the motions from frames to their next frames from a trajectory, which starts at frame 0.

    Args:
        path: of the trajectory, metres, in a format of `read_trajectory`.
        lines: P split lines of one folder.

    Returns:
        (P, 4, 4) from the camera of a line's frame to the next frame's camera.

    Raises:
        DataError: the file is missing or broken or misses a frame, or the lines have several
            folders.
    """
    if not Path(path).is_file():
        raise DataError(f"--temporal {path} is no file; give a trajectory of true poses, or "
                        f"--temporal {PREDICTED}")
    folders, first, _ = zip(*map(parse_line, lines), strict=True)
    if others := set(folders) - {folders[0]}:
        raise DataError(f"--temporal {path} has the poses of one folder, and the list has runs of "
                        f"frames in {folders[0]} and {min(others)}; evaluate one folder at a time, "
                        f"or give --temporal {PREDICTED}")
    frames, poses = read_trajectory(path, find_times=lambda: (
        np.arange(MOST_FRAMES) / RATE, f"frame / {RATE:g} s"))
    wanted = {*first, *(frame + 1 for frame in first)}
    if missing := wanted - set(frames.tolist()):
        raise DataError(f"{path} has no pose of frame {min(missing)} of {folders[0]}, only of "
                        f"frames {frames[0]} to {frames[-1]}; list only frames that have a pose")
    at = np.searchsorted(frames, first)
    return np.linalg.inv(poses[at + 1]) @ poses[at]


def predict_video(opts: Namespace, test_set: TestSet, video: Video, world: World) -> Video:
    """Return a video with the motions that the pose network predicts, unless it has motions.

    Every process predicts its share; only the main process gets the motions.

    Raises:
        DataError: the weights have no pose network, or an image is missing or broken.
    """
    if video.motions is not None:
        return video
    lines = [test_set.lines[i] for i, _ in video.pairs]
    inputs = load_motion_inputs(opts, lines, world, test_set.layout)
    predictor = Predictor(opts.load_weights_folder, world.device, with_pose=True)
    return video._replace(motions=predict_motions(predictor, inputs, world))


def measure_video(opts: Namespace, test_set: TestSet, video: Video, disps: np.ndarray,
                  columns: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """Measure the temporal errors of each test image that has a next frame, at the maps' size.

    Along predicted motions, depth stays in the unit of the networks; along true ones it is aligned
    as for the other errors.

    Args:
        opts: flags of the evaluation.
        test_set: N test images with ground truth.
        video: its pairs, with their motions.
        disps: (N, h, w) scaled disparities.
        columns: (N,) scale and shift of the alignments by name.
        factor: multiplies the predicted depth before it is aligned.

    Returns:
        (N,) values by name, NaN for an image without a next frame.

    Raises:
        DataError: a mask of --mask_dir is broken.
    """
    def depth(i: int) -> np.ndarray:
        if opts.temporal == PREDICTED:
            return 1 / disps[i]
        fit = Alignment(chosen_alignment(opts), float(columns[RATIO][i]), float(columns[SHIFT][i]))
        return fit.apply(factor / disps[i]).clip(MIN_DEPTH, test_set.truth.max_depth)

    images = test_set.dataset(*disps.shape[1:])
    if opts.mask_dir:
        images.masks = Masks(opts.mask_dir, images)
    found: dict[str, np.ndarray] = {}
    for (i, j), K, motion in zip(video.pairs, video.cameras, video.motions, strict=True):
        where = images.load(i)["mask"][0].numpy() if opts.mask_dir else None
        for name, value in temporal_errors(depth(i), depth(j), motion, K, where).items():
            found.setdefault(name, np.full(len(disps), np.nan))[i] = value
    return found
