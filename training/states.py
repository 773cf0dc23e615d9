"""The training states of a run: training_state_<step>.pth, which --resume goes on from."""
from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from checkpoints.weights import read_state, save_state_dict
from options import RESUME_ALWAYS
from runtime.errors import DataError, UsageError


class TrainingStates:
    """The training states of a run, `training_state_<step>.pth`, of which the last few are kept.

    Args:
        folder: where they are, beside the weights folders.
        keep: how many.
    """

    FORM = MappingProxyType({
        "options": dict, "seed": int, "processes": int, "epoch": int, "batch": int, "step": int,
        "validated": int, "lists": str, "bad_samples": list, "model": dict, "optimizer": dict,
        "scheduler": dict, "scaler": dict, "random": list})

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Return the states that there are, the oldest first."""
        found = {int(path.stem.rpartition("_")[2]): path
                 for path in self.folder.glob("training_state_*.pth")
                 if path.stem.rpartition("_")[2].isdecimal()}
        return [found[step] for step in sorted(found)]

    def save(self, state: dict) -> Path:
        """Write a state, as `FORM` has it, then remove all but the last `keep`.

        Raises:
            DataError: it cannot be written; those before it are still there.
        """
        path = self.folder / f"training_state_{state['step']:08d}.pth"
        for abandoned in self.folder.glob("training_state_*.tmp"):  # by a killed run
            abandoned.unlink(missing_ok=True)
        save_state_dict(path, state)
        for old in self.paths()[:-self.keep]:
            if old != path:
                old.unlink(missing_ok=True)
        return path

    def load(self) -> dict | None:
        """Read the last state, if there is one, onto the CPU; no code in the file is run.

        Raises:
            DataError: it is broken.
        """
        if not self.paths():
            return None
        path = self.paths()[-1]
        try:
            state = read_state(path)
        except DataError as error:
            raise DataError(f"{error}; or delete it, and --resume goes on from the one before, if "
                            "there is one") from None
        if missing := [key for key, kind in self.FORM.items()
                       if not isinstance(state.get(key), kind)]:
            raise DataError(f"{path} is no training state: it has no {', '.join(missing)}; "
                            "delete it, and --resume goes on from the one before")
        return state

    def remove_run(self) -> None:
        """Delete the weights, states and options of the run in this folder.

        Raises:
            DataError: that is not allowed.
        """
        try:
            for weights in self.folder.glob("weights_*"):
                shutil.rmtree(weights)
            for file in (*self.folder.glob("training_state_*"), self.folder / "opt.json"):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"--overwrite: {error.filename} cannot be deleted: {error.strerror}; "
                            "choose another --model_name") from None

    @contextmanager
    def kept_if(self, has_begun: Callable[[], bool]) -> Iterator[None]:
        """Remove a new run's first state if wrong flags or data end it before it `has_begun`.

        Otherwise it would be in the way of the same run with the right ones.
        """
        is_new = not self.run_exists()
        try:
            yield
        except DataError:
            if is_new and not has_begun():
                for file in ("training_state_00000000.pth", "opt.json"):
                    with suppress(OSError):  # it may not have been written
                        (self.folder / file).unlink()
            raise

    def run_exists(self) -> bool:
        """Return whether there are weights or states here."""
        return any(self.folder.glob("weights_*")) or bool(self.paths())

# They say how or for how long a run works; every other flag says what it learns. (Its lists are
# compared by what they hold, wherever --split finds them.)
MAY_CHANGE = frozenset({
    "data_path", "log_dir", "model_name", "num_epochs", "num_workers", "no_cuda", "compile",
    "cache_dir", "profile", "log_frequency", "save_frequency", "save_every", "keep", "resume",
    "overwrite", "max_bad_samples", "seed", "deterministic", "weights_init", "load_weights_folder",
    "models_to_load", "split"})


def state_to_resume(opts: Namespace, states: TrainingStates, processes: int) -> dict | None:
    """Return the training state that a run begins with, None where it begins anew.

    Args:
        opts: of the run.
        states: of the runs of its name.
        processes: of the run.

    Raises:
        UsageError: there is a run of this name, and no flag says what shall become of it; or it is
            another run than these flags ask for.
        DataError: there is nothing to resume, or it is broken.
    """
    if opts.resume is None:
        if states.run_exists() and not opts.overwrite:
            raise UsageError(f"{states.folder} has a run of this name already; go on with it "
                             "(--resume), delete it (--overwrite), or choose another --model_name")
        return None
    state = states.load()
    if state is None and (opts.resume == RESUME_ALWAYS or states.run_exists()):
        raise DataError(f"{states.folder} has no training_state_<step>.pth to go on from; leave "
                        "--resume out, or check --log_dir and --model_name")
    if state is not None:
        _check_same_run(opts, state, processes, states)
    return state


def _check_same_run(opts: Namespace, state: dict, processes: int, states: TrainingStates) -> None:
    before, now = state["options"], vars(opts)
    changed = [f"--{name} was {before[name]}, is {now[name]}" for name in before
               if name in now and name not in MAY_CHANGE and before[name] != now[name]]
    if opts.seed not in (None, state["seed"]):
        changed.append(f"--seed was {state['seed']}, is {opts.seed}")
    if processes != state["processes"]:
        changed.append(f"processes were {state['processes']}, are {processes}")
    if changed:
        raise UsageError(f"the run in {states.folder} is another one: {'; '.join(changed)}; give "
                         "the same flags, choose another --model_name, or --overwrite that run, "
                         "without --resume")
