"""The trainer: builds the parts from the options; the loop, validation and saving."""
from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from checkpoints.training_camera import write_training_camera
from checkpoints.weights import (
    LOAD_ERRORS,
    InputFormat,
    load_adam,
    load_weights,
    restore_adam,
    save_weights,
)
from datasets import Augment
from layers import disp_to_depth
from metrics.depth import logged_depth_errors
from runtime.distributed import init_distributed, shut_down_distributed
from runtime.errors import DataError, UsageError
from runtime.files import write_atomically
from runtime.machine import prepare_for_steps, trains_channels_last
from runtime.seeds import draw_seed, get_states, make_deterministic, seed_all, set_states
from runtime.signals import StopRequest
from training.build import (
    compile_parts,
    make_loader,
    make_model,
    make_objective,
    make_training_camera,
)
from training.divergence import Divergence, diverged
from training.loader import BadSamples, digest, endless
from training.logs import Logs
from training.next_command import evaluation_command, resume_command
from training.profiling import StepProfile
from training.progress import Progress
from training.states import TrainingStates, state_to_resume
from utils import sec_to_hm_str

EARLY_STEPS = 2000    # until then logs come every --log_frequency steps, later every 2000
DROP = 0.1            # of the learning rate, after --scheduler_step_size epochs
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A training run: `Trainer(options).train()`.

    Args:
        options: as `MonodepthOptions().parse()` returns them; they are only read.

    Attributes:
        model, objective, augment, optimizer, scheduler, train_loader, val_loader: the parts;
            `objective(inputs, model(inputs))` gives (losses, views).
        network: the model, as the processes of the run share it.
        epoch, batch, step, validated: how far the run is: whole epochs, batches within this one,
            steps of the optimizer in all, batches of the validation.

    Raises:
        DataError: a file that the run needs is missing or broken.
    """

    def __init__(self, options: Namespace):
        self.opts = options
        self.world = init_distributed(options.no_cuda)
        self.device = self.world.device
        self.log_path = Path(options.log_dir).expanduser() / options.model_name
        self.states = TrainingStates(self.log_path / "models", options.keep)
        state = self.world.broadcast_from_main(state_to_resume, options, self.states,
                                               self.world.size)
        self._seed(state)
        self.frames = options.frame_ids + ["s"] * options.use_stereo
        self.train_loader = make_loader(options, "train", self.frames, self.seed, self.world)
        self.val_loader = make_loader(options, "val", self.frames, self.seed, self.world)
        self.camera = make_training_camera(options, self.train_loader)
        self.steps_per_epoch = len(self.train_loader) // options.accumulate
        self.model = make_model(options, self.frames, state is not None, self.world).to(self.device)
        if trains_channels_last(self.device):
            self.model.to(memory_format=torch.channels_last)
        self.objective = make_objective(options, self.frames)
        self.augment = Augment(self.device, self.model.frames_read, max(options.scales) + 1,
                               options.v1_multiscale)
        # Faithful: Adam at 1e-4 for 15 whole epochs, then at a tenth
        self.optimizer = torch.optim.Adam(self.model.parameters(), options.learning_rate,
                                          fused=True)
        if options.load_weights_folder is not None and state is None:
            self._load_weights()
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, options.scheduler_step_size, DROP)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self._configure_speed()
        self.divergence = Divergence(self.world)
        self.stop = StopRequest()
        self.epoch = self.batch = self.step = self.validated = 0
        self.bad_samples = BadSamples(options.max_bad_samples)
        seed_all(self.seed, self.world.rank + 1)  # flips, jitter and noise differ between processes
        if state is not None:
            self._restore(state)
        self.profile = StepProfile(options.profile if self.world.is_main else 0,
                                   self.steps_per_epoch * options.num_epochs - self.step,
                                   self.log_path / "models" / "trace.json")
        self.network = DistributedDataParallel(self.model) if self.world.size > 1 else self.model
        self.val_batches = endless(self.val_loader, self.validated)
        self.logs = Logs(self.log_path, self.frames, options.scales, self.step)

    def _seed(self, state: dict | None) -> None:
        """Choose the run's seed, the same in all processes, and seed what makes the networks."""
        chosen = self.opts.seed if state is None else state["seed"]
        self.seed = self.world.broadcast_from_main(draw_seed) if chosen is None else chosen
        if self.opts.deterministic:
            make_deterministic()
        seed_all(self.seed)

    def _restore(self, state: dict) -> None:
        """Go on where a state was saved."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.step, self.validated = state["step"], state["validated"]
        if state["lists"] != digest(self.train_loader, self.val_loader):
            raise UsageError(f"the lists of --split {self.opts.split} are not those that the run "
                             "began with; restore them, or choose another --model_name")
        try:
            self.bad_samples.found[:] = state["bad_samples"][self.world.rank]
            self.model.load_state_dict(state["model"])
            restore_adam(self.optimizer, state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            set_states(state["random"][self.world.rank], self.device)
        except LOAD_ERRORS as error:
            raise DataError(f"{self.states.paths()[-1]} does not fit this run ({error}); delete "
                            "it, and --resume goes on from the one before") from None

    def _load_weights(self) -> None:
        folder = self.opts.load_weights_folder
        lines = load_weights(folder, self.model, self.opts.models_to_load)
        self.world.print(*lines, load_adam(folder, self.optimizer), sep="\n")

    def _configure_speed(self) -> None:
        """Do what --precision, --compile and --sync_batchnorm ask for."""
        opts = self.opts
        self.model.precision = PRECISIONS[opts.precision]
        if opts.sync_batchnorm and self.device.type != "cuda":
            raise UsageError("--sync_batchnorm needs GPUs; leave it out")
        if opts.sync_batchnorm and self.world.size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        prepare_for_steps(self.device, opts.deterministic)
        if opts.compile:
            self.world.print(compile_parts(self.model, self.objective, self.augment, self.device))

    def train(self) -> None:
        """Train up to --num_epochs, saving weights and training states on the way.

        Raises:
            DataError: a sample cannot be read, the loss is not finite, or the disk is full; the
                last state is whole.
            SystemExit: a signal asked to stop; the state is saved.
        """
        opts, started = self.opts, time.monotonic()
        self._announce()
        with self.stop, self.states.kept_if(
                lambda: self.divergence.has_looked or not self.world.is_main):
            if not self.step:  # a folder that cannot be written is better found now than in an hour
                self.save_state(self.epoch)
            for epoch in range(self.epoch, opts.num_epochs):
                self.epoch = epoch
                self.train_loader.sampler.seek(self.epoch, self.batch * opts.batch_size)
                self.run_epoch()
                if (epoch + 1) % opts.save_frequency == 0 or epoch + 1 == opts.num_epochs:
                    self.save_model()
                self.save_state(epoch + 1)
        self.logs.close()
        duration = sec_to_hm_str(time.monotonic() - started)
        self.world.print(f"trained {self.step} steps in {duration}; weights: "
                         f"{self.weights_folder()}\nnext: {self.next_command()}")
        shut_down_distributed()

    def _announce(self) -> None:
        """Say what is about to happen, and make room for it."""
        opts, world = self.opts, self.world
        world.print(f"training {opts.model_name} on {world.describe()}: "
                    f"{len(self.train_loader.dataset)} items of {opts.split}, "
                    f"{opts.batch_size * world.size * opts.accumulate} to a step, "
                    f"{len(self.val_loader.dataset)} to validate; seed {self.seed}; "
                    f"logs in {self.log_path}")
        if self.epoch == opts.num_epochs:
            world.print("nothing is left to do; a larger --num_epochs goes on")
        elif self.step:
            world.print(f"going on after step {self.step}, in epoch {self.epoch + 1}")
        if opts.overwrite and world.is_main:
            self.states.remove_run()
            self.logs.remove()
        for loader in (self.train_loader, self.val_loader):
            dataset = loader.dataset.dataset
            if dataset.cache is not None and world.is_main:
                dataset.cache.remove_abandoned()
                print(dataset.cache.describe(len(dataset.paths())), flush=True)

    def run_epoch(self) -> None:
        """Train on the batches that are left of an epoch; --accumulate of them make a step."""
        self._set_training(True)
        accumulate = self.opts.accumulate
        progress = self._progress()
        for i, batch in enumerate(progress, start=self.batch + 1):
            is_step = i % accumulate == 0
            with nullcontext() if is_step else self._no_sync():
                inputs = self.augment(self.bad_samples.pop(batch))
                outputs = self.network(inputs)
                losses, views = self.objective(inputs, outputs)
                self.scaler.scale(losses["loss"] / accumulate).backward()
            self.divergence.look(losses["loss"], self.step)
            if not is_step:
                continue
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            progress.show(losses["loss"])
            self.profile.step()
            if self._logs_now(i // accumulate - 1):
                self._check_finite(self.step)
                self.log(inputs, outputs, losses, views)
            self.step, self.batch = self.step + 1, i
            self._save_or_stop()
        self._check_finite(self.step - 1)
        # Faithful: stepped after the epoch, so the drop comes after 15 whole ones
        self.scheduler.step()
        self.batch = 0

    def _progress(self) -> Progress:
        return Progress(self.train_loader, self.steps_per_epoch * self.opts.accumulate,
                        self.opts.batch_size * self.world.size,
                        f"epoch {self.epoch + 1}/{self.opts.num_epochs}", self.world.is_main,
                        done=self.batch)

    def _no_sync(self) -> AbstractContextManager:
        """While in it, gradients add up in each process and are not exchanged."""
        return self.network.no_sync() if self.world.size > 1 else nullcontext()

    def _save_or_stop(self) -> None:
        """Save the state if it is time, and end the run if a signal asked any process to."""
        number = self.world.all_reduce_max(self.stop.number)
        if not number and (not self.opts.save_every or self.step % self.opts.save_every):
            return
        path = self.save_state(self.epoch)
        if number:
            self.world.all_gather(None)  # or a launcher ends the one that is still writing
            self.world.print(f"\nstopped after step {self.step}, which is in {path}; to go on: "
                             f"{resume_command()}")
            shut_down_distributed()
            sys.exit(128 + number)

    def _check_finite(self, last_step: int) -> None:
        """End the run if a loss of any process, or a weight after the last step, is not finite."""
        self.divergence.look(sum(p.detach().sum() for p in self.model.parameters()), last_step)
        found = self.divergence.first()
        if found is None:
            return
        step, rank = found
        report = self.log_path / f"not_finite_at_step_{step}_process_{rank}.txt"
        if rank == self.world.rank:
            write_atomically(report, self._report(step).encode())
        raise diverged(step, report, self.states.paths())

    def _report(self, step: int) -> str:
        """Return the split lines of a step of this epoch, and the run's flags."""
        batches = self.batch + (step - self.step) * self.opts.accumulate  # before that step
        loader, size = self.train_loader, self.opts.batch_size
        draws = loader.sampler.draws(self.epoch)[batches * size:][:size * self.opts.accumulate]
        lines = map(loader.dataset.line, draws)
        return "\n".join([f"step {step}, epoch {self.epoch}", *lines, self._flags(), ""])

    def _flags(self) -> str:
        """Return the options as JSON, with the seed that was drawn."""
        return json.dumps(vars(self.opts) | {"seed": self.seed}, indent=2)

    def log(self, inputs: dict, outputs: dict, losses: dict, views: dict) -> None:
        """Log a training batch and a validation batch, in one of the processes."""
        if self.world.is_main:
            self.logs.write("train", self.step, self.epoch, inputs, outputs, losses, views)
            self.val()

    @torch.no_grad()
    def val(self) -> None:
        """Log losses, pictures and, where there is ground truth, depth errors of one batch."""
        self._set_training(False)
        inputs = self.augment(self.bad_samples.pop(next(self.val_batches)))
        self.validated += 1
        # not what --compile made: it would compile all once more, for a batch now and then
        outputs = self.model.forward(inputs)
        losses, views = self.objective.forward(inputs, outputs)
        if "depth_gt" in inputs:
            disps = disp_to_depth(outputs["disp", 0], self.opts.min_depth, self.opts.max_depth)[0]
            gts = inputs["depth_gt"].cpu().numpy()[:, 0]
            losses = losses | logged_depth_errors(gts, disps.cpu().numpy()[:, 0])
        self.logs.write("val", self.step, self.epoch, inputs, outputs, losses, views)
        self._set_training(True)

    def save_model(self) -> None:
        """Write the epoch's weights folder, and the options beside it."""
        if not self.world.is_main:
            return
        write_atomically(self.log_path / "models" / "opt.json", self._flags().encode())
        form = InputFormat(self.opts.height, self.opts.width, self.opts.use_stereo)
        write_training_camera(self.weights_folder(), self.camera)
        save_weights(self.weights_folder(), self.model, self.optimizer, form)

    def save_state(self, epoch: int) -> Path | None:
        """Write all that going on takes, from the next batch of `epoch`; return where it is.

        Raises:
            DataError: the disk is full, or the loss is not finite; the states before are there.
        """
        if self.step:
            self._check_finite(self.step - 1)
        random = self.world.all_gather(get_states(self.device))
        bad_samples = self.world.all_gather(self.bad_samples.found)
        if not self.world.is_main:
            return None
        return self.states.save({
            "options": vars(self.opts), "seed": self.seed, "processes": self.world.size,
            "epoch": epoch, "batch": self.batch, "step": self.step, "validated": self.validated,
            "lists": digest(self.train_loader, self.val_loader), "bad_samples": bad_samples,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
            "random": random})

    def weights_folder(self) -> Path:
        """Return the folder of the current epoch's weights, after the last one that of the last."""
        epoch = min(self.epoch, self.opts.num_epochs - 1)
        return self.log_path / "models" / f"weights_{epoch}"

    def next_command(self) -> str:
        """Return the command line that evaluates what was trained."""
        return evaluation_command(self.opts, self.weights_folder(), self.model.pose is not None)

    def _logs_now(self, step: int) -> bool:
        early = self.step < EARLY_STEPS and step % self.opts.log_frequency == 0
        return early or self.step % EARLY_STEPS == 0

    def _set_training(self, training: bool) -> None:
        self.network.train(training)
        self.augment.train(training)
