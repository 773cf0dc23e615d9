"""What a weights folder predicts: disparities of a split, motions of a sequence, any images.

Scripts import this file after they have read their command line: it takes seconds (PyTorch).
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from checkpoints.training_camera import TrainingCamera
from datasets import as_float
from datasets.footage import Still
from datasets.ground_truth import load_gt_depths
from datasets.images import resize
from layers import disp_to_depth, resize_disp
from networks import Monodepth2
from runtime.errors import DataError
from runtime.machine import keep_freed_memory


def _prepare(device: torch.device) -> None:
    if device.type == "cpu":
        keep_freed_memory()  # a sixth of the time: batches are of one size


class Frame(NamedTuple):
    """An image and what was predicted for it.

    Attributes:
        label: what it is called in messages.
        name: path without extension, on which those of its outputs are built.
        image: (3, H, W) uint8 RGB.
        disp: (1, 1, h, w) in (0, 1), of the network's size.
    """

    label: str
    name: Path
    image: Tensor
    disp: Tensor


def predict_images(model: Monodepth2, footage: Iterable[Still], height: int, width: int,
                   batch_size: int, pool: Executor) -> Iterator[list[Frame]]:
    """Yield each batch of images with their disparities.

    Args:
        model: on any device.
        footage: images of any size.
        height: of the network's input.
        width: the same.
        batch_size: images at once.
        pool: threads that read the next two batches while the network predicts.

    Raises:
        DataError: a file is no image; those before it have been yielded.
    """
    device = next(model.parameters()).device
    _prepare(device)
    for batch in _batches(_read_ahead(pool, footage, height, width, 2 * batch_size), batch_size):
        images = torch.stack([resized for _, _, resized in batch]).to(device)
        with torch.no_grad():
            disps = model.disparity(as_float(images)).cpu()
        yield [Frame(still.label, still.name, image, disp)
               for (still, image, _), disp in zip(batch, disps.split(1), strict=True)]


def _read_ahead(pool: Executor, footage: Iterable[Still], height: int, width: int,
                ahead: int) -> Iterator[tuple[Still, Tensor, Tensor]]:
    """Yield frames in their order, read at most `ahead` too early: as they are, and resized."""
    def read(still: Still) -> tuple[Still, Tensor, Tensor]:
        image = still.read()
        return still, image, resize(image, height, width, exact=True)

    coming = deque()
    try:
        for still in footage:
            coming.append(pool.submit(read, still))
            if len(coming) > ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for frame in coming:
            frame.cancel()


def _batches(frames: Iterable[tuple], batch_size: int) -> Iterator[list[tuple]]:
    """Yield lists of `batch_size` frames; what is left, or came before an error, is yielded too."""
    batch = []
    try:
        for frame in frames:
            batch.append(frame)
            if len(batch) == batch_size:
                yield batch
                batch = []
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def fit_scale(batches: Iterable[list[Frame]], path: str | Path, camera: TrainingCamera) -> float:
    """Return the factor that makes predicted depth that of a ground truth file.

    Each image has a ratio of medians, over the pixels that have ground truth; theirs is the factor.

    Args:
        batches: as `predict_images` yields them.
        path: of an .npz with a map (H, W) for each image, 0 = none.
        camera: of the weights.

    Raises:
        DataError: the file is broken, has another number of maps, or no depth.
    """
    gt_depths, ratios = load_gt_depths(path), []
    # one more than there should be tells enough: a camera never ends
    frames = [frame.disp for frame in islice(chain.from_iterable(batches), len(gt_depths) + 1)]
    if len(frames) != len(gt_depths):
        raise DataError(f"--scale_from {path} has {len(gt_depths)} maps, which is not the number "
                        "of images; give one for each, in their order")
    for disp, gt in zip(frames, gt_depths, strict=True):
        depth = disp_to_depth(resize_disp(disp, *gt.shape), camera.min_depth, camera.max_depth)[1]
        if (gt > 0).any():
            ratios.append(np.median(gt[gt > 0]) / np.median(depth[0, 0].numpy()[gt > 0]))
    if not ratios:
        raise DataError(f"--scale_from {path} has no depth at all; export it again")
    return float(np.median(ratios))
