"""Read the lines, the images and the ground truth of a test split once."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets import Masks, MonoDataset, Samples, dataset_class, make3d
from datasets.ground_truth import LIST_NAME, GroundTruth, load_ground_truth
from datasets.splits import SplitLine, parse_line, read_split, split_path
from runtime.distributed import World
from runtime.files import check_data_path
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent


class TestSet(NamedTuple):
    """Hold the lines, the images and the ground truth of a test split.

    Attributes:
        lines: N split lines.
        layout: value of --dataset.
        dataset: makes the dataset of the N images at a height and a width.
        truth: N depth maps; None if the evaluation needs no ground truth.
    """

    lines: list[SplitLine]
    layout: str
    dataset: Callable[[int, int], MonoDataset]
    truth: GroundTruth | None

    def image(self, index: int, height: int, width: int) -> np.ndarray:
        """Return an image at a size, (height, width, 3) uint8 RGB.

        Raises:
            DataError: the file is missing or broken; names the file and its split line.
        """
        return self.dataset(height, width).load(index)["color", 0, 0].permute(1, 2, 0).numpy()

    def cameras(self) -> list[np.ndarray]:
        """Return the normalised K of each image, (4, 4), as the dataset of --dataset knows it.

        Raises:
            DataError: the intrinsics of a folder are missing or broken.
        """
        dataset = self.dataset(1, 1)
        return [dataset.get_intrinsics(parse_line(line)[0]) for line in self.lines]


def is_benchmark(opts: Namespace) -> bool:
    """Whether --eval_split is the split whose ground truth is on KITTI's server only."""
    return Path(opts.eval_split).name == "benchmark"


def layout_of_images(opts: Namespace) -> str:
    """Return the layout of the test images, a value of --dataset."""
    if opts.eval_split == make3d.SPLIT:
        return make3d.SPLIT
    return "kitti_test" if is_benchmark(opts) else opts.dataset


def read_test_lines(opts: Namespace) -> list[SplitLine]:
    """Return the lines of --eval_split; Make3D's are the names of its images.

    Raises:
        DataError: the list, or Make3D's images, are missing.
    """
    if opts.eval_split == make3d.SPLIT:
        check_data_path(opts.data_path)
        return make3d.list_images(opts.data_path)
    return read_split(split_path(opts.eval_split, LIST_NAME))


def asked_extension(opts: Namespace) -> str:
    """Return the extension of images that the flags ask for."""
    return ".png" if opts.png else ".jpg"


def read_test_set(opts: Namespace, with_truth: bool) -> TestSet:
    """Read the list and the ground truth of --eval_split.

    Args:
        opts: flags of the evaluation.
        with_truth: load the ground truth; a missing gt_depths.npz is made from --data_path.

    Raises:
        DataError: the list or the ground truth is missing or broken.
    """
    lines = read_test_lines(opts)
    truth = load_ground_truth(opts.data_path, opts.eval_split, lines, opts.num_workers,
                              opts.gt_disparity) if with_truth else None
    layout = layout_of_images(opts)

    def dataset(height: int, width: int) -> MonoDataset:
        images = dataset_class(layout)(opts.data_path, lines, height, width, [0], 1,
                                       img_ext=asked_extension(opts))
        images.load_depth = False  # `truth` has it
        if not opts.png:
            images.img_ext = images.found_extension()
        return images

    if opts.mask_dir and truth is not None:
        truth = hide_masked(truth, dataset(1, 1), opts.mask_dir)
    return TestSet(lines, layout, dataset, truth)


def hide_masked(truth: GroundTruth, images: MonoDataset, folder: str) -> GroundTruth:
    """Return ground truth without depth where the masks of its images are 0.

    Args:
        truth: N depth maps.
        images: the N images.
        folder: folder of the masks.

    Raises:
        DataError: no image has a mask; a mask is broken, or of another size than its map.
    """
    masks = Masks(folder, images)
    paths = [images.get_image_path(*parse_line(line)) for line in images.filenames]
    return truth._replace(depths=[np.where(masks.read(path, depth.shape), depth, 0)
                                  for path, depth in zip(paths, truth.depths, strict=True)])


def load_batches(dataset: MonoDataset, opts: Namespace, world: World) -> Iterator[dict]:
    """Start to load this process's share of a dataset; yield batches under a progress bar.

    The workers are forked by this call: call it before the networks are loaded, because what this
    process has in memory by then is shared with the workers and copied page by page.
    """
    own = Samples(dataset, world.shard(len(dataset)))
    workers = checked_workers(min(opts.num_workers, len(own)))
    loader = DataLoader(own, opts.batch_size, num_workers=workers,
                        pin_memory=world.device.type == "cuda",
                        worker_init_fn=leave_interrupts_to_parent)
    batches = iter(loader)

    def with_progress() -> Iterator[dict]:
        yield from tqdm(batches, desc=f"predicting at {dataset.width}x{dataset.height}",
                        total=len(loader), dynamic_ncols=True, disable=not world.is_main)
    return with_progress()
