"""The trainer: builds the parts from the options; the loop, validation, logging and saving."""
from __future__ import annotations

import json
import shlex
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from tensorboardX import SummaryWriter
from torch.utils.data import DataLoader
from torchvision.models import get_model_weights
from tqdm import tqdm

from checkpoints import LOAD_ERRORS, InputFormat, load_adam, load_weights, save_weights
from datasets import Augment, dataset_class
from datasets.splits import read_split, split_path
from layers import disp_to_depth
from losses import ReprojectionObjective
from metrics import depth_errors, eigen_mask
from networks import ENCODERS, Monodepth2
from options import MAX_DEPTH, MIN_DEPTH
from utils import (
    DataError,
    UsageError,
    check_data_path,
    get_device,
    normalize_image,
    sec_to_hm_str,
    write_atomically,
)

EARLY_STEPS = 2000    # until then logs come every --log_frequency batches, later every 2000 steps
IMAGES_PER_LOG = 4    # samples of a batch whose pictures are logged
BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
BAR_SECONDS = 1.0     # between looks at the loss for the progress bar
DROP = 0.1            # of the learning rate, after --scheduler_step_size epochs
KITTI_SPLITS = ("eigen_zhou", "eigen_full", "benchmark")  # trained on these, eigen is the test
# The names under which TensorBoard shows metrics.DEPTH_METRICS
LOGGED_METRICS = ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3")


class Trainer:
    """A training run: `Trainer(options).train()`.

    Args:
        options: as `MonodepthOptions().parse()` returns them; they are only read.

    Attributes:
        model, objective, augment, optimizer, scheduler, train_loader, val_loader: the parts;
            `objective(inputs, model(inputs))` gives (losses, views).

    Raises:
        DataError: a file that the run needs is missing or broken.
    """

    def __init__(self, options: Namespace):
        self.opts = options
        self.device = get_device(options.no_cuda)
        self.log_path = Path(options.log_dir).expanduser() / options.model_name
        self.frames = options.frame_ids + ["s"] * options.use_stereo
        self.train_loader = self._make_loader("train", is_train=True)
        self.val_loader = self._make_loader("val", is_train=False)
        self.model = self._make_model().to(self.device)
        self.objective = self._make_objective()
        self.augment = Augment(self.device, self.model.frames_read)
        # Faithful: Adam at 1e-4 for 15 whole epochs, then at a tenth
        self.optimizer = torch.optim.Adam(self.model.parameters(), options.learning_rate)
        if options.load_weights_folder is not None:
            self._load_weights()
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, options.scheduler_step_size, DROP)
        self.step = self.epoch = 0
        self._looked, self._seen, self._waited = time.monotonic(), 0, 0.0

    def _make_loader(self, name: str, is_train: bool) -> DataLoader:
        opts = self.opts
        list_path = split_path(opts.split, f"{name}_files.txt")
        lines = read_split(list_path)
        check_data_path(opts.data_path)
        if is_train and len(lines) < opts.batch_size:
            raise DataError(f"{list_path} has {len(lines)} lines, fewer than a batch; choose "
                            f"--batch_size {len(lines)} or less")
        dataset = dataset_class(opts.dataset)(
            opts.data_path, lines, opts.height, opts.width, self.frames, max(opts.scales) + 1,
            is_train=is_train, img_ext=".png" if opts.png else ".jpg", pyramids=opts.v1_multiscale)
        return DataLoader(dataset, opts.batch_size, shuffle=True, num_workers=opts.num_workers,
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
        for line in load_weights(folder, self.model, self.opts.models_to_load):
            print(line)
        print(load_adam(folder, self.optimizer))

    def train(self) -> None:
        """Train for --num_epochs, saving weights on the way."""
        opts, started = self.opts, time.monotonic()
        print(f"training {opts.model_name} on {self.device}: "
              f"{len(self.train_loader.dataset)} items of {opts.split}, "
              f"{len(self.val_loader.dataset)} to validate; logs in {self.log_path}", flush=True)
        for epoch in range(opts.num_epochs):
            self.epoch = epoch
            self.run_epoch()
            if (epoch + 1) % opts.save_frequency == 0 or epoch + 1 == opts.num_epochs:
                self.save_model()
        for writer in self.writers.values():
            writer.close()
        print(f"trained {self.step} steps in {sec_to_hm_str(time.monotonic() - started)}; "
              f"weights: {self.weights_folder()}\nnext: {self.next_command()}")

    def run_epoch(self) -> None:
        """Train on every batch once."""
        self._set_training(True)
        progress = tqdm(self._timed(self.train_loader), total=len(self.train_loader),
                        desc=f"epoch {self.epoch + 1}/{self.opts.num_epochs}", bar_format=BAR)
        for i, batch in enumerate(progress):
            inputs = self.augment(batch)
            outputs = self.model(inputs)
            losses, views = self.objective(inputs, outputs)
            self.optimizer.zero_grad()
            losses["loss"].backward()
            self.optimizer.step()

            self._show(progress, losses["loss"], is_last=i + 1 == len(self.train_loader))
            if self._logs_now(i):
                self.log("train", inputs, outputs, losses, views)
                self.val()
            self.step += 1
        # Faithful: stepped after the epoch, so the drop comes after 15 whole ones
        self.scheduler.step()

    @torch.no_grad()
    def val(self) -> None:
        """Log losses, pictures and, where there is ground truth, depth errors of one batch."""
        self._set_training(False)
        batch = next(self._val_batches)
        inputs = self.augment(batch)
        outputs = self.model(inputs)
        losses, views = self.objective(inputs, outputs)
        if "depth_gt" in inputs:
            losses = losses | self.compute_depth_losses(inputs, outputs)
        self.log("val", inputs, outputs, losses, views)
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

    @torch.no_grad()
    def log(self, mode: str, inputs: dict, outputs: dict, losses: dict, views: dict) -> None:
        """Write scalars, and pictures of up to four samples, to TensorBoard's `mode` run."""
        writer = self.writers[mode]
        for name, value in losses.items():
            writer.add_scalar(name, value.item(), self.step)
        for j in range(min(IMAGES_PER_LOG, len(inputs["color", 0, 0]))):
            for name, picture in self._pictures(inputs, outputs, views, j):
                writer.add_image(f"{name}/{j}", picture.detach().float().cpu().numpy(), self.step)
        writer.flush()

    def _pictures(self, inputs: dict, outputs: dict, views: dict,
                  j: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the (name, (C, H, W) tensor in [0, 1]) that show sample j."""
        for key in inputs:
            if key[0] == "color":
                yield f"color_{key[1]}_{key[2]}", inputs[key][j]
        for s in self.opts.scales:
            for i, f in enumerate(self.frames[1:]):
                if s == 0:
                    yield f"color_pred_{f}_{s}", views["color", f, s][j]
                if self.opts.predictive_mask:
                    yield f"predictive_mask_{f}_{s}", outputs["predictive_mask", s][j, i:i + 1]
            yield f"disp_{s}", normalize_image(outputs["disp", s][j])
            if ("automask", s) in views:
                yield f"automask_{s}", views["automask", s][j][None]

    def save_model(self) -> None:
        """Write the epoch's weights folder, and the options beside it."""
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
    def writers(self) -> dict[str, SummaryWriter]:
        """TensorBoard's two runs, "train" and "val"."""
        try:
            return {mode: SummaryWriter(str(self.log_path / mode)) for mode in ("train", "val")}
        except OSError as error:
            raise DataError(f"--log_dir: {self.log_path} cannot be written: {error.strerror}; "
                            "choose another folder") from None

    @cached_property
    def _val_batches(self) -> Iterator[dict]:
        """The validation batches, over and over."""
        return chain.from_iterable(repeat(self.val_loader))

    def _logs_now(self, batch: int) -> bool:
        early = self.step < EARLY_STEPS and batch % self.opts.log_frequency == 0
        return early or self.step % EARLY_STEPS == 0

    def _set_training(self, training: bool) -> None:
        self.model.train(training)
        self.augment.train(training)

    def _timed(self, loader: Iterable) -> Iterator:
        """Yield the loader's batches, adding up the time spent waiting for them."""
        batches, done = iter(loader), object()
        while True:
            asked = time.monotonic()
            batch = next(batches, done)
            self._waited += time.monotonic() - asked
            if batch is done:
                return
            yield batch

    def _show(self, progress: tqdm, loss: torch.Tensor, is_last: bool) -> None:
        """Refresh the bar about once a second: looking at the loss makes the device stop."""
        self._seen += self.opts.batch_size
        passed = time.monotonic() - self._looked
        if passed >= BAR_SECONDS or is_last:
            progress.set_postfix_str(f"loss {loss.item():.4f}, {self._seen / passed:.1f} examples/s"
                                     f", {self._waited / passed:.0%} waiting for data")
            self._looked, self._seen, self._waited = time.monotonic(), 0, 0.0
