"""Build the parts of a training run from its options: loaders, model, objective, camera."""
from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import get_model_weights, list_models

from checkpoints.frames_seen import FramesSeen, frames_of_training
from checkpoints.network_weights import load_network, read_weights
from checkpoints.state_file import LOAD_ERRORS, check_finite, weights_file
from checkpoints.training_camera import TrainingCamera
from datasets import Augment, FrameCache, Masks, MonoDataset, dataset_class
from datasets.image_files import IMAGE_ERRORS
from datasets.images import read_image
from datasets.splits import parse_line, read_split, split_path
from losses import ReprojectionObjective
from networks import ENCODERS, Monodepth2, ResnetEncoder
from networks.cpu import prepare_for_cpu
from networks.encoders import WithHalfSize, check_encoder_name, describe_encoder, encoder_key
from networks.learned_intrinsics import LearnedIntrinsics
from networks.timm_encoder import TimmEncoder, convert_sync_batchnorm
from runtime.distributed import World
from runtime.errors import DataError, UsageError, counted
from runtime.files import check_data_path, lock_folder
from runtime.machine import compiler_fault, slowdown, trains_channels_last
from training.cameras import number_cameras
from training.loader import BadSamples, TrainingLoader
from utils import sec_to_hm_str

# Seconds that compiling saves for each pixel of a training batch: on one core of a CPU, as measured
# (docs/speed.md); on a GPU, a cautious guess
SAVED_BY_COMPILING = {"cpu": 2e-6, "cuda": 1e-8}
WORTH_COMPILING = 600  # seconds that must be saved: several times those that compiling takes
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_loaders(opts: Namespace, frames: Sequence[int | str], seed: int,
                 world: World) -> tuple[TrainingLoader, TrainingLoader]:
    """Return the loaders of the training and the validation list.

    The processes share the training samples between them; the main process validates on all
    validation samples.

    Args:
        opts: flags of the run.
        frames: frames of a sample: 0, then the source frames.
        seed: seed of the order.
        world: processes of the run.

    Raises:
        DataError: a list or the data is missing, or the training list is too short for one step.
    """
    bad_samples = BadSamples(opts.max_bad_samples)
    train, val = (make_dataset(opts, name, frames) for name in ("train", "val"))
    batches = opts.accumulate * world.size  # in a step
    if len(train) < opts.batch_size * batches:
        list_path = split_path(opts.split, "train_files.txt")
        raise DataError(f"{list_path} has {counted(len(train), 'line')}, fewer than the "
                        f"{opts.batch_size * batches} of a step; choose --batch_size "
                        f"{max(1, len(train) // batches)} or less")
    on_gpu = world.device.type == "cuda"
    cameras = number_cameras(train) if opts.learn_intrinsics else {}
    return (TrainingLoader(train, opts.batch_size, opts.num_workers, seed, bad_samples, world.rank,
                           world.size, drop_last=True, pin_memory=on_gpu, cameras=cameras),
            # not pinned: the thread that pins would start CUDA before the training workers fork
            TrainingLoader(val, opts.batch_size, opts.num_workers, seed, bad_samples,
                           cameras=cameras))


def make_dataset(opts: Namespace, name: str, frames: Sequence[int | str]) -> MonoDataset:
    """Return the dataset of the "train" or the "val" list of the split.

    Raises:
        DataError: the list or the data is missing.
    """
    is_train = name == "train"
    lines = read_split(split_path(opts.split, f"{name}_files.txt"))
    check_data_path(opts.data_path)
    dataset = dataset_class(opts.dataset)(
        opts.data_path, lines, opts.height, opts.width, frames, max(opts.scales) + 1,
        is_train=is_train, img_ext=".png" if opts.png else ".jpg")
    if opts.cache_dir:
        dataset.use_cache(FrameCache(opts.cache_dir, opts.height, opts.width, exact=not is_train))
    if opts.velocity_weight:
        dataset.use_odometers()
    if opts.mask_dir:
        dataset.masks = Masks(opts.mask_dir, dataset)
    return dataset


def make_model(opts: Namespace, frames: Sequence[int | str], is_resumed: bool,
               world: World, cameras: Collection[str] = ()) -> Monodepth2:
    """Return the networks on their device, with ImageNet's weights if nothing replaces them.

    Args:
        opts: flags of the run.
        frames: frames of a sample: 0, then the source frames.
        is_resumed: whether a training state will be loaded into the model.
        world: processes of the run.
        cameras: cameras whose intrinsics are learned.

    Raises:
        UsageError: a flag asks for an architecture or a device that does not exist.
        DataError: ImageNet's weights cannot be downloaded or read.
    """
    if opts.num_layers not in ENCODERS:
        raise UsageError(f"--num_layers {opts.num_layers} does not exist; choose one of "
                         f"{', '.join(map(str, ENCODERS))}")
    if opts.sync_batchnorm and world.device.type != "cuda":
        raise UsageError("--sync_batchnorm needs GPUs; leave it out")
    names = _encoder_names(opts)
    is_start = not is_resumed and not _encoders_are_loaded(opts)
    # an encoder of the same name starts from the same file
    from_file = [child for child, name in names.items()
                 if is_start and opts.encoder_weights and name == names["encoder"]]
    pretrained = [child for child in names
                  if is_start and opts.weights_init == "pretrained" and child not in from_file]
    for name in names.values():
        check_encoder_name(name)  # before a download
    for child in pretrained:
        download_imagenet_weights(names[child])
    model = Monodepth2(opts.num_layers, pretrained, frames, opts.scales, opts.pose_model_type,
                       opts.pose_model_input, opts.predictive_mask, opts.encoder,
                       opts.pose_encoder, (opts.height, opts.width))
    for child in from_file:
        load_imagenet_weights(getattr(model, child), opts.encoder_weights)
    if opts.encoder or opts.pose_encoder:
        world.print(*(f"{child}: {describe_encoder(name, getattr(model, child))}"
                      for child, name in names.items()), sep="\n")
    if cameras:
        model.intrinsics = LearnedIntrinsics(cameras)
    model.precision = PRECISIONS[opts.precision]
    if world.device.type == "cpu":
        prepare_for_cpu(model)
    # on a CPU, PyTorch 2.14's backward pass of a 1x1 convolution of an image with stride 2, as in
    # fastvit_t8, corrupts memory in channels_last, so only ResNets are trained in it
    if trains_channels_last(world.device, model.precision) and (
            world.device.type != "cpu" or all(isinstance(name, int) for name in names.values())):
        model.to(memory_format=torch.channels_last)
    if opts.sync_batchnorm and world.size > 1:
        convert_sync_batchnorm(model)
    return model.to(world.device)


def precision_warning(precision: str, device: torch.device) -> str | None:
    """Return a warning if the networks compute more slowly in a --precision than in fp32."""
    if device.type != "cpu" or precision == "fp32":
        return None
    if precision == "fp16":
        return "warning: --precision fp16 is meant for GPUs; on a CPU, choose bf16 or fp32"
    return slowdown_warning(precision, slowdown(PRECISIONS[precision]))


def slowdown_warning(precision: str, ratio: float) -> str | None:
    """Return a warning if a convolution takes `ratio` times as long in a precision as in fp32."""
    if ratio < 1.1:  # the same, but for noise
        return None
    return (f"warning: this CPU takes {ratio:.1f} times as long for a convolution in {precision} "
            "as in fp32; leave --precision out")


def load_imagenet_weights(encoder: nn.Module, path: str) -> None:
    """Load the ImageNet weights of a file into an encoder, for one image or several.

    Raises:
        DataError: the file is missing or broken, or has the weights of another network.
    """
    if not os.path.isfile(path):
        raise DataError(f"--encoder_weights {path} does not exist; give a .pth or .safetensors "
                        "file with the weights of --encoder")
    weights = read_weights(path)
    net = encoder.encoder if isinstance(encoder, WithHalfSize) else encoder
    cure = "give the ImageNet weights of --encoder to --encoder_weights"
    if isinstance(net, TimmEncoder):
        check_finite(weights.tensors, weights.path)
        try:
            missing = net.load_imagenet(weights.tensors)
        except DataError as error:
            raise DataError(f"{path}: {error}; {cure}") from None
        if missing:
            raise DataError(f"{path} misses {counted(len(missing), 'weight')} of {net.name} "
                            f"({', '.join(missing[:3])}, ...); {cure}")
        return
    if isinstance(net, ResnetEncoder):
        weights = weights._replace(tensors=net.imagenet_state(weights.tensors))
    load_network(net, weights, cure)


def download_imagenet_weights(num_layers: int | str) -> None:
    """Let torchvision download a ResNet's ImageNet weights, once on this machine, and read them.

    Backbones that torchvision does not know are skipped.

    Raises:
        DataError: the weights cannot be downloaded, have a wrong hash, or are broken.
    """
    name = f"resnet{num_layers}"
    if name not in list_models():
        return
    weights = get_model_weights(name).IMAGENET1K_V1
    path = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if path.parts[0] == "~":
        raise DataError("ImageNet's weights belong into the home folder, which is unknown; set "
                        "TORCH_HOME to a folder for them, or pass --weights_init scratch")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # other processes of this machine wait for the one that downloads
        with nullcontext() if path.is_file() else lock_folder(path.parent):
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"{path} holds a {type(state).__name__}, expected a state dict")
        check_finite(state, path)
    except (*LOAD_ERRORS, HTTPException) as error:
        raise DataError(f"ImageNet's weights of {name} cannot be loaded ({error}); put "
                        f"{weights.url} at {path}, or pass --weights_init scratch") from None


def _encoder_names(opts: Namespace) -> dict[str, str | int]:
    """Return the names of the encoders that the run trains, by the model's child."""
    given = {"encoder": opts.encoder}
    if opts.pose_model_type == "separate_resnet" and len(opts.frame_ids) > 1:
        given["pose_encoder"] = opts.pose_encoder
    return {child: opts.num_layers if name is None else encoder_key(name)
            for child, name in given.items()}


def _encoders_are_loaded(opts: Namespace) -> bool:
    """Return whether --load_weights_folder has every encoder, which replaces ImageNet's weights."""
    return opts.load_weights_folder is not None and all(
        name in opts.models_to_load
        and os.path.isfile(weights_file(opts.load_weights_folder, name))
        for name in _encoder_names(opts))


def make_objective(opts: Namespace, frames: Sequence[int | str]) -> ReprojectionObjective:
    """Return the objective, with every flag that changes it."""
    return ReprojectionObjective(
        frames, opts.scales, opts.min_depth, opts.max_depth, opts.disparity_smoothness,
        v1_multiscale=opts.v1_multiscale, avg_reprojection=opts.avg_reprojection,
        automasking=not opts.disable_automasking, predictive_mask=opts.predictive_mask,
        ssim=not opts.no_ssim, scale_translation=opts.pose_model_type == "posecnn",
        velocity_weight=opts.velocity_weight)


def make_training_camera(opts: Namespace, dataset: MonoDataset) -> TrainingCamera:
    """Return the camera that the run's weights are trained with.

    Args:
        opts: flags of the run.
        dataset: dataset of the training list.
    """
    folder, frame, side = parse_line(dataset.filenames[0])
    K = dataset.get_intrinsics(folder)
    folders = {parse_line(line)[0] for line in dataset.filenames}
    is_one = all(np.array_equal(K, dataset.get_intrinsics(other)) for other in folders)
    size = None
    # images of a dataset need not be files; other errors are raised by loading, with their line
    with suppress(DataError, *IMAGE_ERRORS):
        size = list(read_image(dataset.get_image_path(folder, frame, side)).shape[:0:-1])
    sources = []
    if len(opts.frame_ids) > 1:
        sources.append("mono")
    if opts.use_stereo:
        sources.append("stereo")
    if opts.velocity_weight:
        sources.append("speed")
    return TrainingCamera("+".join(sources), opts.min_depth, opts.max_depth, dataset.baseline,
                          K[:3, :3].tolist() if is_one else None, size)


def make_frames_seen(opts: Namespace, dataset: MonoDataset) -> FramesSeen:
    """Return the frames that the run's weights will have seen, those of their parents included.

    Args:
        opts: flags of the run.
        dataset: dataset of the training list.

    Raises:
        DataError: frames_seen.json of --load_weights_folder is broken.
    """
    return frames_of_training(opts.dataset, opts.split, dataset.filenames, opts.frame_ids,
                              opts.load_weights_folder, opts.data_path)


def choose_compiling(opts: Namespace, steps: int, device: torch.device) -> tuple[bool, str]:
    """Decide whether to compile parts of the training step; return a line with the reason too.

    Args:
        opts: flags of the run.
        steps: training steps that are left.
        device: device of the run.
    """
    if opts.compile in ("off", False):  # False: in the opt.json of an earlier version
        return False, "not compiling: --compile off"
    reason = ""
    if opts.compile == "auto":
        if opts.deterministic:  # a resumed run has fewer steps left, and might decide otherwise
            return False, "not compiling: --deterministic, unless --compile is given"
        saved = seconds_saved_by_compiling(opts, steps, device)
        if saved < WORTH_COMPILING:
            return False, (f"not compiling: {counted(steps, 'step')} left are too few to gain from "
                           "it; --compile compiles all the same")
        reason = f"it saves about {sec_to_hm_str(saved)} of the {steps} steps left; "
    if fault := compiler_fault(device):
        if opts.compile == "auto":
            return False, f"not compiling: {fault}"
        return False, f"warning: --compile: {fault}; going on without it"
    return True, f"compiling: {reason}the first step takes a minute or two"


def seconds_saved_by_compiling(opts: Namespace, steps: int, device: torch.device) -> float:
    """Estimate the seconds that compiled parts save in the training steps that are left."""
    pixels = steps * opts.accumulate * opts.batch_size * opts.height * opts.width
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    return pixels * SAVED_BY_COMPILING[device.type] / cores


def compile_parts(model: Monodepth2, objective: ReprojectionObjective, augment: Augment,
                  device: torch.device) -> None:
    """Compile the parts of a training step that gain speed on the device."""
    augment.compile(dynamic=False)
    if device.type == "cuda":
        objective.compile(dynamic=False)
        model.compile(dynamic=False)
    else:  # PyTorch's own convolutions and noise are faster on a CPU than compiled ones
        keep_steps_eager(objective)
        objective.compile(dynamic=False, options={"fallback_random": True})


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
