"""The parts of a training run, as its options ask for them: loaders, model, objective."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.models import get_model_weights, list_models

from camera import Camera
from checkpoints import read_state
from datasets import Augment, FrameCache, dataset_class
from datasets.images import IMAGE_ERRORS, open_image
from datasets.loader import Draws, EpochSampler, loader_of
from datasets.splits import parse_line, read_split, split_path
from distributed import World
from downloads import Checksum, Refused, alone_in, download
from losses import ReprojectionObjective
from machine import compiler_fault
from networks import ENCODERS, Monodepth2
from networks.cpu import prepare_for_cpu
from utils import DataError, UsageError, check_data_path


def make_loader(opts: Namespace, name: str, frames: Sequence[int | str], seed: int,
                world: World) -> DataLoader:
    """Return the loader of a list of the split.

    Args:
        opts: of the run.
        name: "train" or "val".
        frames: of an item.
        seed: of the order.
        world: its processes train on a share each; one of them validates, on all.

    Raises:
        DataError: the list or the data is missing, or there is too little of it.
    """
    is_train = name == "train"
    list_path = split_path(opts.split, f"{name}_files.txt")
    lines = read_split(list_path)
    check_data_path(opts.data_path)
    batches = opts.accumulate * world.size  # of a step
    if is_train and len(lines) < opts.batch_size * batches:
        raise DataError(f"{list_path} has {len(lines)} lines, fewer than the "
                        f"{opts.batch_size * batches} of a step; choose --batch_size "
                        f"{max(1, len(lines) // batches)} or less")
    cache = FrameCache(opts.cache_dir, opts.height, opts.width,
                       exact=not is_train) if opts.cache_dir else None
    dataset = dataset_class(opts.dataset)(
        opts.data_path, lines, opts.height, opts.width, frames, max(opts.scales) + 1,
        is_train=is_train, img_ext=".png" if opts.png else ".jpg", cache=cache)
    share = (world.rank, world.size) if is_train else (0, 1)
    return loader_of(Draws(dataset, seed, opts.max_bad_samples), opts.batch_size,
                     opts.num_workers, EpochSampler(len(dataset), seed, *share),
                     drop_last=is_train, pin_memory=world.device.type == "cuda")


def make_model(opts: Namespace, frames: Sequence[int | str], is_resumed: bool,
               world: World) -> Monodepth2:
    """Return the networks, with ImageNet's weights if they are wanted and no others will follow.

    Args:
        opts: of the run.
        frames: that it reads.
        is_resumed: whether a training state will follow.
        world: its processes download one after the other: what one has brought, the next finds.

    Raises:
        UsageError: there is no such architecture.
        DataError: ImageNet's weights are not to be had.
    """
    if opts.num_layers not in ENCODERS:
        raise UsageError(f"--num_layers {opts.num_layers} does not exist; choose one of "
                         f"{', '.join(map(str, ENCODERS))}")
    pretrained = not is_resumed and opts.weights_init == "pretrained" and (
        not _encoders_are_loaded(opts))
    if pretrained:
        world.in_turn(partial(_fetch_imagenet_weights, opts.num_layers))
    model = Monodepth2(opts.num_layers, pretrained, frames, opts.scales, opts.pose_model_type,
                       opts.pose_model_input, opts.predictive_mask)
    if world.device.type == "cpu":
        prepare_for_cpu(model)
    return model


def _fetch_imagenet_weights(num_layers: int) -> None:
    """Download a ResNet's weights to where torchvision looks for them, if they are not there.

    Raises:
        DataError: they are not to be had, or broken.
    """
    name = f"resnet{num_layers}"
    if name not in list_models():  # a backbone of one's own fetches its own
        return
    url = get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
    try:
        with alone_in(path.parent):
            if not path.is_file():
                sha256 = path.stem.rpartition("-")[2]  # its start, which torchvision names files by
                download(url, path, Checksum("sha256", sha256))
        read_state(path)
    except (DataError, Refused, OSError) as error:
        raise DataError(f"ImageNet's weights cannot be loaded ({error}); put {url} at {path}, or "
                        "pass --weights_init scratch") from None


def _encoders_are_loaded(opts: Namespace) -> bool:
    """Whether --load_weights_folder has every encoder, so that ImageNet's is not needed."""
    has_pose_encoder = opts.pose_model_type == "separate_resnet" and len(opts.frame_ids) > 1
    return opts.load_weights_folder is not None and all(
        name in opts.models_to_load and Path(opts.load_weights_folder, f"{name}.pth").is_file()
        for name in ["encoder"] + ["pose_encoder"] * has_pose_encoder)


def make_objective(opts: Namespace, frames: Sequence[int | str]) -> ReprojectionObjective:
    """Return the objective with every flag that changes it."""
    return ReprojectionObjective(
        frames, opts.scales, opts.min_depth, opts.max_depth, opts.disparity_smoothness,
        v1_multiscale=opts.v1_multiscale, avg_reprojection=opts.avg_reprojection,
        automasking=not opts.disable_automasking, predictive_mask=opts.predictive_mask,
        ssim=not opts.no_ssim, scale_translation=opts.pose_model_type == "posecnn")


def make_camera(opts: Namespace, loader: DataLoader) -> Camera:
    """Return what a run's weights say of their depth; `loader` is of its training list."""
    dataset = loader.dataset.dataset
    folder, frame, side = parse_line(dataset.filenames[0])
    K = dataset.get_intrinsics(folder)
    folders = {parse_line(line)[0] for line in dataset.filenames}
    is_one = all(np.array_equal(K, dataset.get_intrinsics(other)) for other in folders)
    size = None
    # a dataset's images need not be files; what else is wrong, loading says with its line
    with (suppress(DataError, *IMAGE_ERRORS),
          open_image(dataset.get_image_path(folder, frame, side)) as image):
        size = list(image.size)
    training = "+".join(["mono"] * (len(opts.frame_ids) > 1) + ["stereo"] * opts.use_stereo)
    return Camera(training, opts.min_depth, opts.max_depth, dataset.baseline,
                  K[:3, :3].tolist() if is_one else None, size)


def compile_parts(model: Monodepth2, objective: ReprojectionObjective, augment: Augment,
                  device: torch.device) -> str:
    """Compile the parts of a training step that gain speed on the device; return a message."""
    if fault := compiler_fault(device):
        return f"warning: --compile: {fault}; going on without it"
    augment.compile(dynamic=False)
    if device.type == "cuda":
        objective.compile(dynamic=False)
        model.compile(dynamic=False)
    else:  # PyTorch's own convolutions and noise are faster on a CPU than compiled ones
        keep_steps_eager(objective)
        objective.compile(dynamic=False, options={"fallback_random": True})
    return "compiling: the first step takes a minute or two"


def keep_steps_eager(objective: ReprojectionObjective) -> None:
    """Exclude from compilation the steps of the objective that a compiler slows down on a CPU."""
    # compiled into scalar loops, these take ten times as long as PyTorch's own vectorised loops
    for name in ("_resize", "_sample", "_reflect"):
        setattr(objective, name, torch.compiler.disable(getattr(objective, name)))
    # a call out of the graph stores the statistics; otherwise every loop computes them anew, and
    # the objective takes one and a half times as long
    store = torch.compiler.disable(lambda statistics: statistics)
    target_statistics, window_means = objective._target_statistics, objective._window_means
    objective._target_statistics = lambda *args: store(target_statistics(*args))
    objective._window_means = lambda *args: store(window_means(*args))
