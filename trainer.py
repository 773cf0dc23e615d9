"""Train: the loop, validation, and saving of weights and training states."""
from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from checkpoints.frames_seen import write_frames_seen
from checkpoints.state_file import LOAD_ERRORS
from checkpoints.weights import InputFormat, load_adam, load_weights, restore_adam, save_weights
from datasets import Augment
from layers import disp_to_depth
from metrics.depth import logged_depth_errors
from options import TRAIN, MonodepthOptions
from runtime.distributed import init_distributed, shut_down_distributed
from runtime.errors import DataError, UsageError, counted
from runtime.files import lock_run, write_atomically
from runtime.machine import prepare_for_steps
from runtime.seeds import draw_seed, get_states, make_deterministic, seed_all, set_states
from runtime.signals import StopRequest
from training.build import (
    choose_compiling,
    compile_parts,
    make_frames_seen,
    make_loaders,
    make_model,
    make_objective,
    make_training_camera,
    precision_warning,
)
from training.cameras import RunCameras
from training.divergence import Divergence, divergence_error, write_report
from training.loader import hash_of_lists
from training.logs import Logs
from training.next_command import evaluation_command, resume_command
from training.optimizer import make_adam
from training.profiling import StepProfile
from training.progress import Progress
from training.states import TrainingStates, state_to_resume
from utils import sec_to_hm_str

EARLY_STEPS = 2000  # logs come every --log_frequency steps before this step, then every 2000
LR_DROP = 0.1       # factor of the learning rate after --scheduler_step_size epochs
# Methods of Monodepth2's trainer that `run_epoch` does not call
UNCALLED = ("process_batch", "predict_poses", "generate_images_pred", "compute_losses",
            "compute_reprojection_loss", "compute_depth_losses", "set_train", "set_eval")


class Trainer:
    """Train a model: `Trainer(options).train()`.

    Args:
        options: flags as `MonodepthOptions().parse()` returns them; they are only read.

    Attributes:
        model, objective, augment, optimizer, scheduler, train_loader, val_loader: parts of the
            run; `objective(inputs, model(inputs))` returns (losses, views).
        network: the model, wrapped for several processes.
        epoch, batch, step, validated: position of the run: epochs completed, batches of this
            epoch, optimizer steps in all, validation batches in all.

    Raises:
        DataError: a file that the run needs is missing or broken.
    """

    def __init_subclass__(cls):
        """Raise a TypeError if a subclass without its own loop overrides `UNCALLED` methods."""
        uncalled = [name for name in UNCALLED if name in vars(cls)]
        if uncalled and cls.run_epoch is Trainer.run_epoch and cls.train is Trainer.train:
            raise TypeError(f"{cls.__name__} overrides {', '.join(uncalled)}, which this Trainer "
                            "never calls; override run_epoch, or change `objective` and `model`")

    def __init__(self, options: Namespace):
        self.opts = options = MonodepthOptions(TRAIN).complete(options)
        self.world = init_distributed(options.no_cuda)
        self.device = self.world.device
        self.log_path = Path(options.log_dir, options.model_name)
        self.states = TrainingStates(self.log_path / "models", options.keep)
        self.lock = None  # in the main process: the file that locks the run's folder
        state = self.world.broadcast_from_main(self._claim_run)
        self.frames = options.frame_ids + (["s"] if options.use_stereo else [])
        self.seed = self._choose_seed(state)
        self._prepare_process()

        self.train_loader, self.val_loader = make_loaders(options, self.frames, self.seed,
                                                          self.world)
        self._start_loaders()
        self.steps_per_epoch = len(self.train_loader) // options.accumulate
        self.frames_seen = make_frames_seen(options, self.train_loader.dataset)
        self.model = make_model(options, self.frames, state is not None, self.world,
                                self.train_loader.cameras)
        self.cameras = RunCameras(
            self.world, make_training_camera(options, self.train_loader.dataset),
            self.train_loader.dataset, self.model.intrinsics)
        self.objective = make_objective(options, self.frames)
        self.augment = Augment(self.device, self.model.frames_read, max(options.scales) + 1,
                               options.v1_multiscale)
        # Faithful: Adam at 1e-4 for 15 whole epochs, then at a tenth
        self.optimizer = make_adam(self.model.parameters(), options.learning_rate)
        if options.load_weights_folder is not None and state is None:
            self._load_weights()
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, options.scheduler_step_size, LR_DROP)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.divergence = Divergence(self.world)
        self.stop = StopRequest()
        if self.world.is_main and (warning := precision_warning(options.precision, self.device)):
            self.world.print(warning)
        steps_done = 0 if state is None else state["step"]
        compiles, reason = choose_compiling(
            options, self.steps_per_epoch * options.num_epochs - steps_done, self.device)
        if compiles:
            compile_parts(self.model, self.objective, self.augment, self.device)
        self.world.print(reason)

        seed_all(self.seed, self.world.rank + 1)  # each process draws other flips, jitter and noise
        self.epoch = self.batch = self.step = self.validated = 0
        self.has_begun = False  # whether this process has trained on a batch
        if state is not None:
            self._restore(state)
        self.network = DistributedDataParallel(self.model) if self.world.size > 1 else self.model
        self.val_batches = self.val_loader.endless(self.validated)
        self.logs = Logs(self.log_path, self.frames, options.scales, self.step)
        self.profile = StepProfile(options.profile if self.world.is_main else 0,
                                   self.steps_per_epoch * options.num_epochs - self.step,
                                   self.log_path / "models" / "trace.json")

    def _claim_run(self) -> dict | None:
        """Lock the run's folder for this process, and return the training state to resume."""
        self.lock = lock_run(self.log_path)
        return state_to_resume(self.opts, self.states, self.world.size)

    def _choose_seed(self, state: dict | None) -> int:
        """Return the seed of the resumed state or of --seed, or draw one for all processes."""
        seed = self.opts.seed if state is None else state["seed"]
        return self.world.broadcast_from_main(draw_seed) if seed is None else seed

    def _prepare_process(self) -> None:
        """Seed this process like all others, and set its device up for training."""
        if self.opts.deterministic:
            make_deterministic()
        prepare_for_steps(self.device, self.opts.deterministic)
        seed_all(self.seed)  # every process then starts from the same weights

    def _start_loaders(self) -> None:
        """Fork all workers, while this process is small and before CUDA starts."""
        if self.world.is_main:  # the others do not validate
            self.val_loader.start()
        self.train_loader.start()  # last: the thread that pins its batches starts CUDA

    def _load_weights(self) -> None:
        """Load the weights and Adam's state of --load_weights_folder."""
        folder = self.opts.load_weights_folder
        lines = load_weights(folder, self.model, self.opts.models_to_load)
        self.world.print(*lines, load_adam(folder, self.optimizer), sep="\n")

    def train(self) -> None:
        """Train up to --num_epochs, and save weights and training states on the way.

        Raises:
            DataError: a sample cannot be read, the loss is not finite, or the disk is full; the
                last training state is complete.
            SystemExit: a signal asked the run to stop; its state is saved.
        """
        with nullcontext() if self.lock is None else closing(self.lock):
            self._train()
        shut_down_distributed()

    def _train(self) -> None:
        """Train and save to the last epoch, then print the outcome and the next command."""
        started, first_step = time.monotonic(), self.step
        self._announce()
        if self.opts.overwrite and self.world.is_main:
            self.states.remove_run()
            self.logs.remove()
        with self.stop, self.states.first_state_kept_if(
                lambda: self.has_begun or not self.world.is_main):
            if not self.step:  # fail now, not in an hour, if the folder cannot be written
                self.save_state(self.epoch)
            for epoch in range(self.epoch, self.opts.num_epochs):
                self.epoch = epoch
                self.train_loader.seek(epoch, self.batch)
                self.run_epoch()
                self.save_epoch()
            self.cameras.compare_focal_lengths(self.train_loader, self.augment, self.model,
                                               self.objective, self.weights_folder())
        self.logs.close()
        outcome = f"weights: {self.weights_folder()}"
        if steps := self.step - first_step:
            of_all = f" (of {self.step} in all)" if first_step else ""
            outcome = (f"trained {counted(steps, 'step')}{of_all} in "
                       f"{sec_to_hm_str(time.monotonic() - started)}; {outcome}")
        self.world.print(f"{outcome}\nnext: {self.next_command()}")

    def _announce(self) -> None:
        """Print what the run trains on, where it starts, and what its frame caches hold."""
        opts, world = self.opts, self.world
        world.print(f"training {opts.model_name} on {world.describe()}: "
                    f"{counted(len(self.train_loader.dataset), 'item')} of {opts.split}, "
                    f"{opts.batch_size * world.size * opts.accumulate} to a step, "
                    f"{len(self.val_loader.dataset)} to validate; seed {self.seed}; "
                    f"logs in {self.log_path}")
        if self.epoch == opts.num_epochs:
            world.print("training is complete; a larger --num_epochs continues it")
        elif self.step:
            world.print(f"going on after step {self.step}, in epoch {self.epoch + 1}")
        for dataset in (self.train_loader.dataset, self.val_loader.dataset):
            if dataset.cache is not None and world.is_main:
                dataset.cache.remove_abandoned()
                world.print(dataset.cache.describe(len(dataset.paths())))

    def run_epoch(self) -> None:
        """Train on the remaining batches of an epoch; --accumulate batches make one step."""
        self._set_training(True)
        accumulate = self.opts.accumulate
        progress = self._progress()
        for i, batch in enumerate(progress, start=self.batch + 1):
            is_step = i % accumulate == 0
            with nullcontext() if is_step else self._no_sync():
                inputs = self.augment(batch)            # float images on the device
                outputs = self.network(inputs)          # disparities and poses
                losses, views = self.objective(inputs, outputs)
                self.scaler.scale(losses["loss"] / accumulate).backward()
            self.has_begun = True
            self.divergence.note(losses["loss"], self.step)
            if not is_step:
                continue
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            progress.show(losses["loss"])
            if self._logs_now(i // accumulate - 1):
                self.log(inputs, outputs, losses, views)
            self._end_step(i)
        self._check_finite(self.step - 1)
        # Faithful: stepped after the epoch, so the drop comes after 15 whole ones
        self.scheduler.step()
        self.batch = 0

    def _progress(self) -> Progress:
        """Return the batches that are left of the epoch, under a progress bar."""
        return Progress(self.train_loader, self.steps_per_epoch * self.opts.accumulate,
                        self.opts.batch_size * self.world.size,
                        f"epoch {self.epoch + 1}/{self.opts.num_epochs}", self.world.is_main,
                        done=self.batch)

    def _no_sync(self) -> AbstractContextManager:
        """Return a context in which each process adds up gradients without exchanging them."""
        return self.network.no_sync() if self.world.size > 1 else nullcontext()

    def _end_step(self, batch: int) -> None:
        """Count a step, save the state if it is time, and stop if a process received a signal."""
        self.step, self.batch = self.step + 1, batch
        self.profile.step()
        signal = self.world.all_reduce_max(self.stop.number)
        if signal:
            self._save_and_exit(signal)
        if self.opts.save_every and self.step % self.opts.save_every == 0:
            self.save_state(self.epoch)

    def _save_and_exit(self, signal: int) -> None:
        """Save the state, print how to resume, and exit with the status of the signal."""
        path = self.save_state(self.epoch)
        self.world.all_gather(None)  # wait: a launcher kills all processes once one has ended
        self.world.print(f"\nstopped after step {self.step}, which is in {path}; to go on: "
                         f"{resume_command()}")
        shut_down_distributed()
        sys.exit(128 + signal)

    def _check_finite(self, last_step: int) -> None:
        """Stop the run if a loss of any process, or a weight after the last step, is not finite.

        This waits for the device, so it runs only before logging and saving.

        Raises:
            DataError: names the step and a file with its samples and flags.
        """
        found = self.divergence.find(self.model, last_step)
        if found is None:
            return
        step, rank = found
        path = self.log_path / f"not_finite_at_step_{step}_process_{rank}.txt"
        if rank == self.world.rank:
            first = self.batch + (step - self.step) * self.opts.accumulate
            lines = self.train_loader.split_lines(self.epoch, first, self.opts.accumulate)
            write_report(path, step, self.epoch, lines, self._flags())
        raise divergence_error(step, path, self.states.paths())

    def _flags(self) -> str:
        """Return the flags of the run as JSON, with the seed that was drawn."""
        return json.dumps(vars(self.opts) | {"seed": self.seed}, indent=2)

    def log(self, inputs: dict, outputs: dict, losses: dict, views: dict) -> None:
        """Check that the run is finite, then log a training batch and a validation batch."""
        self._check_finite(self.step)
        if self.world.is_main:
            self.logs.write("train", self.step, self.epoch, inputs, outputs, losses, views)
            self.val()

    @torch.no_grad()
    def val(self) -> None:
        """Log losses, pictures and, where there is ground truth, depth errors of one batch."""
        self._set_training(False)
        inputs = self.augment(next(self.val_batches))
        self.validated += 1
        # `forward` is not compiled: compiling it for one batch now and then would not pay
        outputs = self.model.forward(inputs)
        losses, views = self.objective.forward(inputs, outputs)
        if "depth_gt" in inputs:
            disps = disp_to_depth(outputs["disp", 0], self.opts.min_depth, self.opts.max_depth)[0]
            gts = inputs["depth_gt"].cpu().numpy()[:, 0]
            losses = losses | logged_depth_errors(gts, disps.cpu().numpy()[:, 0])
        self.logs.write("val", self.step, self.epoch, inputs, outputs, losses, views)
        self._set_training(True)

    def save_epoch(self) -> None:
        """Save the weights after every --save_frequency epochs and the last, and the state."""
        done = self.epoch + 1
        self.cameras.end_epoch()
        if done % self.opts.save_frequency == 0 or done == self.opts.num_epochs:
            self.save_model()
        self.save_state(done)

    def save_model(self) -> None:
        """Write the weights folder of the epoch, and the run's flags beside it."""
        if not self.world.is_main:
            return
        write_atomically(self.log_path / "models" / "opt.json", self._flags().encode())
        form = InputFormat(self.opts.height, self.opts.width, self.opts.use_stereo)
        self.cameras.write(self.weights_folder())
        write_frames_seen(self.weights_folder(), self.frames_seen)
        save_weights(self.weights_folder(), self.model, self.optimizer, form)

    def save_state(self, epoch: int) -> Path | None:
        """Write the training state from which a run resumes at the next batch of `epoch`.

        Returns:
            The path of the state, in the main process.

        Raises:
            DataError: the disk is full, or the run is not finite; earlier states are still there.
        """
        if self.step:
            self._check_finite(self.step - 1)
        random = self.world.all_gather(get_states(self.device))
        bad_samples = self.world.all_gather(self.train_loader.faults())
        if not self.world.is_main:
            return None
        return self.states.save({
            "options": vars(self.opts), "seed": self.seed, "processes": self.world.size,
            "epoch": epoch, "batch": self.batch, "step": self.step, "validated": self.validated,
            "lists": hash_of_lists(self.train_loader, self.val_loader), "bad_samples": bad_samples,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(),
            "random": random})

    def _restore(self, state: dict) -> None:
        """Continue from a training state that `save_state` wrote."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.step, self.validated = state["step"], state["validated"]
        if state["lists"] != hash_of_lists(self.train_loader, self.val_loader):
            raise UsageError(f"the lists of --split {self.opts.split} are not those that the run "
                             "began with; restore them, or choose another --model_name")
        try:
            self.train_loader.restore_faults(state["bad_samples"][self.world.rank])
            self.model.load_state_dict(state["model"])
            restore_adam(self.optimizer, state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            set_states(state["random"][self.world.rank], self.device)
        except LOAD_ERRORS as error:
            raise DataError(f"{self.states.paths()[-1]} does not fit this run ({error}); delete "
                            "it, and --resume goes on from the one before") from None

    def weights_folder(self) -> Path:
        """Return the weights folder of the current epoch, or of the last epoch after the run."""
        epoch = min(self.epoch, self.opts.num_epochs - 1)
        return self.log_path / "models" / f"weights_{epoch}"

    def next_command(self) -> str:
        """Return the command line that evaluates the trained weights."""
        return evaluation_command(self.opts, self.weights_folder(), self.model.pose is not None)

    def _logs_now(self, step: int) -> bool:
        """Return whether to log; `step` counts the steps of this epoch from 0."""
        early = self.step < EARLY_STEPS and step % self.opts.log_frequency == 0
        return early or self.step % EARLY_STEPS == 0

    def _set_training(self, training: bool) -> None:
        """Switch the network and the augmentation between training and validation."""
        self.network.train(training)
        self.augment.train(training)
