"""Predict images of any size in batches, read ahead by threads."""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from checkpoints.training_camera import TrainingCamera
from datasets.footage import Still
from datasets.image_files import resize_array
from runtime.errors import DataError, counted


class ArrayPredictor(Protocol):
    """Predict arrays: what a runtime of the depth network offers, PyTorch or ONNX Runtime.

    Attributes:
        height, width: size of the network's input, pixels.
        training_camera: depth range, baseline, intrinsics and unit of depth.
    """

    height: int
    width: int
    training_camera: TrainingCamera

    def disparity_array(self, images: np.ndarray) -> np.ndarray:
        """Map (B, 3, height, width) uint8 RGB to disparities (B, 1, height, width) in (0, 1)."""

    def resize_disp(self, disp: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize (B, 1, h, w) disparities to (B, 1, height, width), bilinearly."""


class Frame(NamedTuple):
    """Hold an image and its predicted disparity.

    Attributes:
        label: names the image in messages.
        name: path without extension, from which the names of output files are made.
        image: (3, H, W) uint8 RGB.
        disp: (1, 1, h, w) in (0, 1), at the size of the network.
        time: seconds from the first frame of a video; None for images.
    """

    label: str
    name: Path
    image: np.ndarray
    disp: np.ndarray
    time: float | None = None


def predict_images(predictor: ArrayPredictor, footage: Iterable[Still], batch_size: int,
                   pool: Executor) -> Iterator[list[Frame]]:
    """Yield the images in batches, with their disparities.

    Args:
        predictor: of any runtime.
        footage: images of any size.
        batch_size: images per batch; the last batch may be smaller.
        pool: threads that read the next two batches while the network predicts.

    Raises:
        DataError: an image cannot be read; the images before it have been yielded.
    """
    frames = _read_ahead(pool, footage, predictor.height, predictor.width, 2 * batch_size)
    for batch in _batches(frames, batch_size):
        disps = predictor.disparity_array(np.stack([resized for _, _, resized in batch]))
        yield [Frame(still.label, still.name, image, disp[None], still.time)
               for (still, image, _), disp in zip(batch, disps, strict=True)]


def _read_ahead(pool: Executor, footage: Iterable[Still], height: int, width: int,
                ahead: int) -> Iterator[tuple[Still, np.ndarray, np.ndarray]]:
    """Yield frames in order, decoded and resized, reading at most `ahead` frames in advance."""
    def read(still: Still) -> tuple[Still, np.ndarray, np.ndarray]:
        image = still.read()
        return still, image, resize_array(image, height, width)

    pending = deque()
    try:
        for still in footage:
            pending.append(pool.submit(read, still))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for frame in pending:
            frame.cancel()


def _batches(frames: Iterable[tuple], batch_size: int) -> Iterator[list[tuple]]:
    """Yield lists of `batch_size` frames; a shorter list at the end or before an error."""
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


def fit_scale(batches: Iterable[list[Frame]], path: str | Path,
              predictor: ArrayPredictor) -> float:
    """Return the factor that scales predicted depth to ground truth.

    The factor is the median over images of median(true depth) / median(predicted depth), at pixels
    with ground truth.

    Args:
        batches: output of `predict_images`.
        path: an .npz with a depth map (H, W) for each image, 0 = no ground truth.
        predictor: that the batches are from.

    Raises:
        DataError: the file is broken, its number of maps is wrong, or every pixel is 0.
    """
    # imported here: it needs PyTorch, and ONNX Runtime does without
    from datasets.ground_truth import load_gt_depths
    gt_depths, ratios = load_gt_depths(path), []
    # one frame too many proves that the numbers differ, and ends the endless frames of a webcam
    disps = [frame.disp for frame in islice(chain.from_iterable(batches), len(gt_depths) + 1)]
    if len(disps) != len(gt_depths):
        raise DataError(f"--scale_from {path} has {counted(len(gt_depths), 'map')}, which is not "
                        "the number of images; give one map for each image, in the same order")
    for disp, gt in zip(disps, gt_depths, strict=True):
        disp = predictor.resize_disp(disp, *gt.shape)
        depth = predictor.training_camera.disp_to_depth(disp)[1][0, 0]
        if (gt > 0).any():
            ratios.append(np.median(gt[gt > 0]) / np.median(depth[gt > 0]))
    if not ratios:
        raise DataError(f"--scale_from {path} has no pixel with ground truth; export it again")
    return float(np.median(ratios))
