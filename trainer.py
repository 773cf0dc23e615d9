"""The trainer: builds the parts from the options; the loop, validation and saving."""
from __future__ import annotations

import json
import shlex
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.models import get_model_weights

from checkpoints import LOAD_ERRORS, InputFormat, load_adam, load_weights, save_weights
from datasets import Augment, FrameCache, collate, dataset_class
from datasets.splits import read_split, split_path
from distributed import join_world, leave_world
from layers import disp_to_depth
from logs import Logs
from losses import ReprojectionObjective
from machine import compiler_fault, keep_freed_memory
from metrics import depth_errors, eigen_mask
from networks import ENCODERS, Monodepth2
from options import MAX_DEPTH, MIN_DEPTH
from profiling import SETTLING, StepProfile
from progress import Progress
from utils import DataError, UsageError, check_data_path, sec_to_hm_str, write_atomically

EARLY_STEPS = 2000    # until then logs come every --log_frequency steps, later every 2000
DROP = 0.1            # of the learning rate, after --scheduler_step_size epochs
KITTI_SPLITS = ("eigen_zhou", "eigen_full", "benchmark")  # trained on these, eigen is the test
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The names under which TensorBoard shows metrics.DEPTH_METRICS
LOGGED_METRICS = ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3")


class Trainer:
    """A training run: `Trainer(options).train()`.

    Args:
        options: as `MonodepthOptions().parse()` returns them; they are only read.

    Attributes:
        model, objective, augment, optimizer, scheduler, train_loader, val_loader: the parts;
            `objective(inputs, model(inputs))` gives (losses, views).
        network: the model, as the processes of the run share it.

    Raises:
        DataError: a file that the run needs is missing or broken.
    """

    def __init__(self, options: Namespace):
        self.opts = options
        self.world = join_world(options.no_cuda)
        self.device = self.world.device
        self.log_path = Path(options.log_dir).expanduser() / options.model_name
        self.frames = options.frame_ids + ["s"] * options.use_stereo
        self.train_loader = self._make_loader("train", is_train=True)
        self.val_loader = self._make_loader("val", is_train=False)
        self.steps_per_epoch = len(self.train_loader) // options.accumulate
        self.model = self._make_model().to(self.device)
        if self.device.type == "cuda":  # on CPUs only prediction gains: backward loses more
            self.model.to(memory_format=torch.channels_last)
        self.objective = self._make_objective()
        self.augment = Augment(self.device, self.model.frames_read, max(options.scales) + 1,
                               options.v1_multiscale)
        # Faithful: Adam at 1e-4 for 15 whole epochs, then at a tenth
        self.optimizer = torch.optim.Adam(self.model.parameters(), options.learning_rate,
                                          fused=True)
        if options.load_weights_folder is not None:
            self._load_weights()
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, options.scheduler_step_size, DROP)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self._configure_speed()
        self.network = DistributedDataParallel(self.model) if self.world.size > 1 else self.model
        self.logs = Logs(self.log_path, self.frames, options.scales)
        self.profile = self._make_profile()
        self.step = self.epoch = 0

    def _make_loader(self, name: str, is_train: bool) -> DataLoader:
        opts = self.opts
        list_path = split_path(opts.split, f"{name}_files.txt")
        lines = read_split(list_path)
        check_data_path(opts.data_path)
        batches = opts.accumulate * self.world.size  # of a step
        if is_train and len(lines) < opts.batch_size * batches:
            raise DataError(f"{list_path} has {len(lines)} lines, fewer than the "
                            f"{opts.batch_size * batches} of a step; choose --batch_size "
                            f"{max(1, len(lines) // batches)} or less")
        cache = FrameCache(opts.cache_dir, opts.height, opts.width,
                           exact=not is_train) if opts.cache_dir else None
        dataset = dataset_class(opts.dataset)(
            opts.data_path, lines, opts.height, opts.width, self.frames, max(opts.scales) + 1,
            is_train=is_train, img_ext=".png" if opts.png else ".jpg", cache=cache)
        sampler = DistributedSampler(dataset, self.world.size, self.world.rank,
                                     drop_last=True) if is_train and self.world.size > 1 else None
        return DataLoader(dataset, opts.batch_size, shuffle=sampler is None, sampler=sampler,
                          num_workers=opts.num_workers, collate_fn=collate,
                          pin_memory=self.device.type == "cuda", drop_last=is_train,
                          persistent_workers=opts.num_workers > 0)

    def _make_model(self) -> Monodepth2:
        opts = self.opts
        if opts.num_layers not in ENCODERS:
            raise UsageError(f"--num_layers {opts.num_layers} does not exist; choose one of "
                             f"{', '.join(map(str, ENCODERS))}")
        pretrained = opts.weights_init == "pretrained" and not self._encoders_are_loaded()
        try:
            return Monodepth2(opts.num_layers, pretrained, self.frames,
                              opts.scales, opts.pose_model_type, opts.pose_model_input,
                              opts.predictive_mask)
        except LOAD_ERRORS as error:
            if not pretrained:
                raise
            url = get_model_weights(f"resnet{opts.num_layers}").IMAGENET1K_V1.url
            place = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
            raise DataError(f"ImageNet's weights cannot be loaded ({error}); put {url} at {place}, "
                            "or pass --weights_init scratch") from None

    def _encoders_are_loaded(self) -> bool:
        """Whether --load_weights_folder has every encoder, so that ImageNet's is not needed."""
        opts = self.opts
        has_pose_encoder = opts.pose_model_type == "separate_resnet" and len(opts.frame_ids) > 1
        return opts.load_weights_folder is not None and all(
            name in opts.models_to_load and Path(opts.load_weights_folder, f"{name}.pth").is_file()
            for name in ["encoder"] + ["pose_encoder"] * has_pose_encoder)

    def _make_objective(self) -> ReprojectionObjective:
        opts = self.opts
        return ReprojectionObjective(
            self.frames, opts.scales, opts.min_depth, opts.max_depth, opts.disparity_smoothness,
            v1_multiscale=opts.v1_multiscale, avg_reprojection=opts.avg_reprojection,
            automasking=not opts.disable_automasking, predictive_mask=opts.predictive_mask,
            ssim=not opts.no_ssim, scale_translation=opts.pose_model_type == "posecnn")

    def _load_weights(self) -> None:
        folder = self.opts.load_weights_folder
        lines = load_weights(folder, self.model, self.opts.models_to_load)
        self._say(*lines, load_adam(folder, self.optimizer), sep="\n")

    def _configure_speed(self) -> None:
        """Do what --precision, --compile and --sync_batchnorm ask for."""
        opts = self.opts
        self.model.precision = PRECISIONS[opts.precision]
        if opts.sync_batchnorm and self.device.type != "cuda":
            raise UsageError("--sync_batchnorm needs GPUs; leave it out")
        if opts.sync_batchnorm and self.world.size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("highest")  # no TF32 in geometry and pyramid
        else:
            keep_freed_memory()
        if opts.compile:
            self._compile()

    def _compile(self) -> None:
        if fault := compiler_fault(self.device):
            self._say(f"warning: --compile: {fault}; going on without it")
            return
        self.augment.compile(dynamic=False)
        self.objective.compile(dynamic=False)
        if self.device.type == "cuda":  # the CPU's library is faster than compiled convolutions
            self.model.compile(dynamic=False)

    def _make_profile(self) -> StepProfile:
        steps = self.opts.profile if self.world.is_main else 0
        total = self.steps_per_epoch * self.opts.num_epochs
        if steps and total < steps + SETTLING:
            raise UsageError(f"--profile {steps} records after {SETTLING} steps, and this run has "
                             f"{total}; give a smaller number")
        return StepProfile(steps, self.log_path / "models" / "trace.json")

    def _say(self, *words: object, sep: str = " ") -> None:
        if self.world.is_main:
            print(*words, sep=sep, flush=True)

    def train(self) -> None:
        """Train for --num_epochs, saving weights on the way."""
        opts, started = self.opts, time.monotonic()
        examples = opts.batch_size * self.world.size
        self._say(f"training {opts.model_name} on {self._place()}: "
                  f"{len(self.train_loader.dataset)} items of {opts.split}, "
                  f"{examples * opts.accumulate} to a step, "
                  f"{len(self.val_loader.dataset)} to validate; logs in {self.log_path}")
        for dataset in (self.train_loader.dataset, self.val_loader.dataset):
            if dataset.cache is not None and self.world.is_main:
                dataset.cache.remove_abandoned()
                print(dataset.cache.describe(len(dataset.paths())), flush=True)
        for epoch in range(opts.num_epochs):
            self.epoch = epoch
            self.run_epoch()
            if (epoch + 1) % opts.save_frequency == 0 or epoch + 1 == opts.num_epochs:
                self.save_model()
        self.logs.close()
        self._say(f"trained {self.step} steps in {sec_to_hm_str(time.monotonic() - started)}; "
                  f"weights: {self.weights_folder()}\nnext: {self.next_command()}")
        leave_world()

    def run_epoch(self) -> None:
        """Train on every batch once; --accumulate of them make a step."""
        self._set_training(True)
        accumulate = self.opts.accumulate
        progress = self._progress()
        for i, batch in enumerate(progress, start=1):
            is_step = i % accumulate == 0
            with nullcontext() if is_step else self._no_sync():
                inputs = self.augment(batch)
                outputs = self.network(inputs)
                losses, views = self.objective(inputs, outputs)
                self.scaler.scale(losses["loss"] / accumulate).backward()
            if not is_step:
                continue
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()

            progress.show(losses["loss"])
            self.profile.step()
            if self._logs_now(i // accumulate - 1):
                self.logs.write("train", self.step, inputs, outputs, losses, views)
                self.val()
            self.step += 1
        # Faithful: stepped after the epoch, so the drop comes after 15 whole ones
        self.scheduler.step()

    def _progress(self) -> Progress:
        if self.world.size > 1:
            self.train_loader.sampler.set_epoch(self.epoch)
        return Progress(self.train_loader, self.steps_per_epoch * self.opts.accumulate,
                        self.opts.batch_size * self.world.size,
                        f"epoch {self.epoch + 1}/{self.opts.num_epochs}", self.world.is_main)

    def _no_sync(self) -> AbstractContextManager:
        """While in it, gradients add up in each process and are not exchanged."""
        return self.network.no_sync() if self.world.size > 1 else nullcontext()

    @torch.no_grad()
    def val(self) -> None:
        """Log losses, pictures and, where there is ground truth, depth errors of one batch."""
        self._set_training(False)
        batch = next(self._val_batches)
        inputs = self.augment(batch)
        # not what --compile made: it would compile all once more, for a batch now and then
        outputs = self.model.forward(inputs)
        losses, views = self.objective.forward(inputs, outputs)
        if "depth_gt" in inputs:
            losses = losses | self.compute_depth_losses(inputs, outputs)
        self.logs.write("val", self.step, inputs, outputs, losses, views)
        self._set_training(True)

    def compute_depth_losses(self, inputs: dict, outputs: dict) -> dict[str, float]:
        """Return a batch's mean depth errors after median scaling, as the evaluation has them."""
        disps = disp_to_depth(outputs["disp", 0], self.opts.min_depth, self.opts.max_depth)[0]
        errors = []
        for gt, disp in zip(inputs["depth_gt"].cpu().numpy()[:, 0], disps.cpu().numpy()[:, 0],
                            strict=True):
            mask = eigen_mask(gt)
            if mask.any():  # a few of KITTI's frames have no scan
                errors.append(depth_errors(gt, disp, mask)[0])
        return dict(zip(LOGGED_METRICS, np.mean(errors, 0), strict=True)) if errors else {}

    def save_model(self) -> None:
        """Write the epoch's weights folder, and the options beside it."""
        if not self.world.is_main:
            return
        options = json.dumps(vars(self.opts), indent=2)
        write_atomically(self.log_path / "models" / "opt.json", options.encode())
        form = InputFormat(self.opts.height, self.opts.width, self.opts.use_stereo)
        save_weights(self.weights_folder(), self.model, self.optimizer, form)

    def weights_folder(self) -> Path:
        """Return the folder of the current epoch's weights."""
        return self.log_path / "models" / f"weights_{self.epoch}"

    def next_command(self) -> str:
        """Return the command line that evaluates what was trained."""
        opts = self.opts
        words = ["--data_path", opts.data_path] + ["--png"] * opts.png
        if opts.split == "odom" and self.model.pose is not None:
            words = ["evaluate_pose.py", *words, "--eval_split", "odom_9"]
        elif opts.split in KITTI_SPLITS or Path(opts.split, "test_files.txt").is_file():
            words = ["evaluate_depth.py", *words,
                     "--eval_stereo" if opts.use_stereo else "--eval_mono"]
            if opts.split not in KITTI_SPLITS:
                words += ["--eval_split", opts.split]
            if opts.dataset != "kitti":
                words += ["--dataset", opts.dataset]
        else:  # a list of one's own, without test frames
            words = ["test_simple.py", "--image_path", "IMAGE"]
        if (opts.min_depth, opts.max_depth) != (MIN_DEPTH, MAX_DEPTH):
            words += ["--min_depth", opts.min_depth, "--max_depth", opts.max_depth]
        words += ["--load_weights_folder", self.weights_folder()]
        return shlex.join(map(str, ["python", *words]))

    @cached_property
    def _val_batches(self) -> Iterator[dict]:
        """The validation batches, over and over."""
        return chain.from_iterable(repeat(self.val_loader))

    def _logs_now(self, step: int) -> bool:
        early = self.step < EARLY_STEPS and step % self.opts.log_frequency == 0
        return self.world.is_main and (early or self.step % EARLY_STEPS == 0)

    def _place(self) -> str:
        """Say what the run runs on."""
        device = "the CPU" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        return device if self.world.size == 1 else f"{self.world.size} x {device}"

    def _set_training(self, training: bool) -> None:
        self.network.train(training)
        self.augment.train(training)
