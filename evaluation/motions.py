"""Predict the motions of the camera along a sequence."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from checkpoints.architecture import pose_frames, read_input_format, read_pose_input
from datasets import as_float, dataset_class
from datasets.splits import SplitLine, parse_line
from evaluation.test_set import asked_extension, load_batches
from prediction.motions import motions_over_targets, target_offsets
from prediction.predictor import Predictor
from runtime.distributed import World


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
        offsets = np.concatenate([target_offsets(frames, count, folder)
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
        done = sum(map(len, motions))
        offsets = inputs.offsets[done:done + len(images[0])] if inputs.frames else None
        motions.append(motions_over_targets(predictor.model, images, offsets).cpu().numpy())
    return world.gather_on_main(np.concatenate(motions))


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
