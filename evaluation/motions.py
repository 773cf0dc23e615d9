"""Predict the motions of the camera along a sequence."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from checkpoints.architecture import pose_frames, read_input_format, read_pose_input
from datasets import as_float, dataset_class
from datasets.splits import SplitLine, parse_line
from evaluation.test_set import asked_extension, load_batches
from prediction.predictor import Predictor
from runtime.distributed import World
from runtime.errors import DataError


class MotionInputs(NamedTuple):
    """Hold what the motions along a sequence are predicted from.

    Attributes:
        frames: offsets of the frames that the network sees at once; None if it sees pairs.
        offsets: from the target of each motion of this process to the line's frame.
        batches: this process's images, {("color", frame, 0): (B, 3, h, w) uint8, ...} each.
    """

    frames: list[int] | None
    offsets: np.ndarray
    batches: Iterator[dict]


def load_motion_inputs(opts: Namespace, lines: list[str], world: World,
                       layout: str = "kitti_odom") -> MotionInputs:
    """Start to load the images of sequences; every process loads its share of the lines.

    A network of pairs sees frames i and i + 1. A network of more frames predicts the poses from its
    target to its other frames, and the motion from i to i + 1 goes over the target. The target is
    frame i itself if the network then sees frame i + 1; otherwise, and at the ends of the sequence,
    it is the nearest frame from which the network sees both.

    Args:
        opts: flags of the evaluation.
        lines: N frames, in runs of consecutive frames of a sequence.
        world: the processes.
        layout: value of --dataset.

    Raises:
        DataError: the weights are missing or broken, or the network cannot see these motions.
    """
    folder = opts.load_weights_folder
    height, width, _ = read_input_format(folder)
    frames = pose_frames(folder, read_pose_input(folder))
    offsets = np.zeros(len(lines), int)
    if frames:
        offsets = np.concatenate([_target_offsets(frames, count, folder)
                                  for count in _count_runs(lines)])
    targets = [_earlier_line(line, b) for line, b in zip(lines, offsets, strict=True)]
    dataset = dataset_class(layout)(opts.data_path, targets, height, width, frames or [0, 1], 1,
                                    img_ext=asked_extension(opts))
    dataset.load_depth = False
    dataset.img_ext = dataset.found_extension()
    first = dataset.get_image_path(*parse_line(targets[0]))
    world.print(f"reading {dataset.img_ext} images, as in {Path(first).parent}")
    return MotionInputs(frames, offsets[world.shard(len(lines))],
                        load_batches(dataset, opts, world))


@torch.no_grad()
def predict_motions(predictor: Predictor, inputs: MotionInputs, world: World) -> np.ndarray | None:
    """Predict the motion from the camera of each line's frame to the next frame's camera.

    Args:
        predictor: with its pose network.
        inputs: of the N lines, from `load_motion_inputs`.
        world: the processes.

    Returns:
        (N, 4, 4) in the main process, None in the others.

    Raises:
        DataError: an image is missing or broken.
    """
    predictor.keep_freed_memory()
    motions = [np.empty((0, 4, 4), np.float32)]
    for batch in inputs.batches:
        images = {f: as_float(batch["color", f, 0].to(world.device))
                  for f in inputs.frames or (0, 1)}
        if inputs.frames:
            done = sum(map(len, motions))
            found = _motions_over_target(predictor.model.motions(images),
                                         inputs.offsets[done:done + len(images[0])])
        else:
            found = predictor.model.motion(images[0], images[1])
        motions.append(found.cpu().numpy())
    return world.gather_on_main(np.concatenate(motions))


def _target_offsets(frames: list[int], count: int, folder: str) -> np.ndarray:
    """Choose the target of each of `count` motions among `count` + 1 frames.

    Args:
        frames: offsets of the frames that the network sees; 0 is the target.
        count: number of motions.
        folder: of the weights, for the error.

    Returns:
        (count,) offset of the motion's first frame from the motion's target.

    Raises:
        DataError: the network sees no two consecutive frames, or the sequence is too short.
    """
    choices = sorted((b for b in frames if b + 1 in frames), key=lambda b: (abs(b), b))
    if not choices:
        raise DataError(f"the pose network in {folder} sees frames {frames} at once, of which no "
                        "two are consecutive, so it cannot predict the motion from a frame to the "
                        "next")
    offsets = np.empty(count, int)
    for i in range(count):
        fitting = [b for b in choices if i - b + min(frames) >= 0 and i - b + max(frames) <= count]
        if not fitting:
            raise DataError(f"the pose network in {folder} sees frames {frames} at once; "
                            f"{count + 1} frames are too few to predict their motions")
        offsets[i] = fitting[0]
    return offsets


def _count_runs(lines: list[str]) -> list[int]:
    """Return the lengths of the runs of consecutive frames of one folder and side."""
    counts, expected = [], None
    for folder, frame, side in map(parse_line, lines):
        if (folder, frame, side) != expected:
            counts.append(0)
        counts[-1] += 1
        expected = folder, frame + 1, side
    return counts


def _earlier_line(line: str, by: int) -> SplitLine:
    """Return a split line whose frame comes `by` frames before the frame of `line`."""
    folder, frame, side = parse_line(line)
    return SplitLine(" ".join([folder, str(frame - by), *filter(None, [side])]),
                     getattr(line, "where", ""))


def _motions_over_target(poses: dict[int, Tensor], offsets: np.ndarray) -> Tensor:
    """Return the (B, 4, 4) motions from frame b to frame b + 1, composed over the target.

    Args:
        poses: {frame: (B, 4, 4) from the camera of the target to the camera of the frame}.
        offsets: (B,) frames b.
    """
    identity = torch.eye(4).to(next(iter(poses.values()))).expand(len(offsets), 4, 4)
    poses = {0: identity, **poses}
    start, end = (torch.stack([poses[int(b) + ahead][i] for i, b in enumerate(offsets)])
                  for ahead in (0, 1))
    return end @ torch.linalg.inv(start)
