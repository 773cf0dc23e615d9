"""The test images of a split, and the disparities predicted for them."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from checkpoints.architecture import load_model
from checkpoints.training_camera import read_training_camera
from datasets import MonoDataset, as_float, dataset_class
from datasets.splits import eigen_to_benchmark_ids, read_split, split_path
from layers import disp_to_depth
from metrics.depth import batch_post_process_disparity
from runtime.distributed import World
from runtime.errors import DataError
from runtime.files import check_data_path, read_array
from runtime.machine import keep_freed_memory
from runtime.signals import leave_interrupts_to_parent


@torch.no_grad()
def predict_disparities(opts: Namespace, world: World) -> np.ndarray | None:
    """Return the (N, h, w) scaled disparities of the split's test images, at network size.

    Each process predicts its share; the main one gets all of them, the others None.
    """
    check_data_path(opts.data_path)
    model, (height, width, use_stereo) = load_model(opts.load_weights_folder, device=world.device)
    camera = read_training_camera(opts.load_weights_folder, use_stereo).with_range(
        opts.min_depth, opts.max_depth)
    if opts.eval_stereo and not use_stereo and world.is_main:
        print(f"warning: {opts.load_weights_folder} was trained without stereo, so its depth has "
              "no known scale; --eval_mono finds one for each image")
    dataset = _test_images(opts, height, width)
    if dataset.img_ext != _extension(opts):
        world.print(f"the images of {opts.data_path} are {dataset.img_ext}, and are read as such")
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
    return world.gather_on_main(np.concatenate(disps))


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
    if world.device.type == "cpu":
        keep_freed_memory()  # a sixth of the time: batches are of one size
    own = Subset(dataset, world.shard(len(dataset)))
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
