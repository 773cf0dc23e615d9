"""What a weights folder predicts: disparities of a split, motions of a sequence, any images.

Scripts import this file after they have read their command line: it takes seconds (PyTorch).
"""
from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from camera import Camera, read_camera
from checkpoints import load_model
from datasets import MonoDataset, as_float, dataset_class
from datasets.arrays import read_array
from datasets.ground_truth import load_gt_depths
from datasets.images import resize
from datasets.splits import eigen_to_benchmark_ids, read_split, split_path
from distributed import World
from footage import Still
from interrupts import leave_interrupts_to_parent
from layers import disp_to_depth, resize_disp
from machine import keep_freed_memory
from metrics import batch_post_process_disparity
from networks import Monodepth2
from utils import DataError, check_data_path


@torch.no_grad()
def predict_disparities(opts: Namespace, world: World) -> np.ndarray | None:
    """Return the (N, h, w) scaled disparities of the split's test images, at network size.

    Each process predicts its share; the main one gets all of them, the others None.
    """
    check_data_path(opts.data_path)
    model, (height, width, use_stereo) = load_model(opts.load_weights_folder, device=world.device)
    camera = read_camera(opts.load_weights_folder, use_stereo).with_range(
        opts.min_depth, opts.max_depth)
    if opts.eval_stereo and not use_stereo and world.is_main:
        print(f"warning: {opts.load_weights_folder} was trained without stereo, so its depth has "
              "no known scale; --eval_mono finds one for each image")
    dataset = _test_images(opts, height, width)
    if dataset.img_ext != _extension(opts):
        world.say(f"the images of {opts.data_path} are {dataset.img_ext}, and are read as such")
    disps = [np.empty((0, height, width), np.float32)]
    for batch in batches_of(dataset, opts, world):
        images = as_float(batch["color", 0, 0].to(world.device))
        if opts.post_process:
            images = torch.cat([images, images.flip(3)])
        disp = disp_to_depth(model.disparity(images), camera.min_depth, camera.max_depth)[0]
        disp = disp[:, 0].cpu().numpy()
        if opts.post_process:
            plain, mirrored = np.split(disp, 2)
            disp = batch_post_process_disparity(plain, mirrored[:, :, ::-1])
        disps.append(disp)
    return world.gather(np.concatenate(disps))


def _prepare(device: torch.device) -> None:
    if device.type == "cpu":
        keep_freed_memory()  # a sixth of the time: batches are of one size


def _test_images(opts: Namespace, height: int, width: int) -> MonoDataset:
    """Return the split's test images, which come at that size; without --png, .jpg or .png."""
    kind = "kitti_test" if Path(opts.eval_split).name == "benchmark" else opts.dataset
    lines = read_split(split_path(opts.eval_split, "test_files.txt"))
    dataset = dataset_class(kind)(opts.data_path, lines, height, width, [0], 1,
                                  img_ext=_extension(opts), load_depth=False)
    if not opts.png:
        dataset.img_ext = dataset.found_extension()
    return dataset


def _extension(opts: Namespace) -> str:
    return ".png" if opts.png else ".jpg"


def read_test_image(opts: Namespace, index: int, height: int, width: int) -> np.ndarray:
    """Return one of the split's test images, (height, width, 3) uint8 RGB.

    Raises:
        DataError: it is missing or broken; names it and its split line.
    """
    return _test_images(opts, height, width)[index]["color", 0, 0].permute(1, 2, 0).numpy()


def batches_of(dataset: MonoDataset, opts: Namespace, world: World) -> Iterable[dict]:
    """Return the batches of this process's share of a dataset, under a bar."""
    _prepare(world.device)
    own = Subset(dataset, world.share(len(dataset)))
    loader = DataLoader(own, opts.batch_size, num_workers=min(opts.num_workers, len(own)),
                        pin_memory=world.device.type == "cuda",
                        worker_init_fn=leave_interrupts_to_parent)
    return tqdm(loader, desc=f"predicting at {dataset.width}x{dataset.height}", dynamic_ncols=True,
                disable=not world.is_main)


def load_disparities(opts: Namespace) -> np.ndarray:
    """Read --ext_disp_to_eval: (N, h, w) scaled disparities, one per test image.

    Raises:
        DataError: the file is missing, is no .npy, or has another shape.
    """
    path = opts.ext_disp_to_eval
    try:
        disps = read_array(Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"--ext_disp_to_eval {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a .npy array ({error}); expected what np.save "
                        "writes of floats") from None
    split = "eigen" if opts.eval_eigen_to_benchmark else opts.eval_split
    expected = len(read_split(split_path(split, "test_files.txt")))
    shape = getattr(disps, "shape", ())
    if len(shape) != 3 or 0 in shape or shape[0] != expected or disps.dtype.kind != "f":
        raise DataError(f"{path} is {getattr(disps, 'dtype', 'no array')} of shape {shape}; "
                        f"expected floats of shape ({expected}, height, width), a map for each "
                        f"image of the {split} split")
    disps = disps.astype(np.float32)
    return disps[eigen_to_benchmark_ids()] if opts.eval_eigen_to_benchmark else disps


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


def fit_scale(batches: Iterable[list[Frame]], path: str | Path, camera: Camera) -> float:
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
