"""Save and load training states, `training_state_<step>.pth`, and decide whether to resume."""
from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from checkpoints.state_file import check_finite, read_state
from checkpoints.weights import save_state_dict
from options import RESUME_ALWAYS, MonodepthOptions
from runtime.errors import DataError, UsageError
from runtime.files import remove_abandoned

# Flags that a resumed run may change, because they do not change what it learns. (The split lists
# may move to another folder; their content is compared.)
MAY_CHANGE = frozenset({
    "data_path", "log_dir", "model_name", "num_epochs", "num_workers", "no_cuda", "compile",
    "cache_dir", "profile", "log_frequency", "save_frequency", "save_every", "keep", "resume",
    "overwrite", "max_bad_samples", "seed", "deterministic", "weights_init", "load_weights_folder",
    "models_to_load", "split"})


class TrainingStates:
    """Save and load the training states of a run, and keep only the last few.

    Args:
        folder: folder of the states and of the weights folders.
        keep: number of states to keep.
    """

    FORM = MappingProxyType({
        "options": dict, "seed": int, "processes": int, "epoch": int, "batch": int, "step": int,
        "validated": int, "lists": str, "bad_samples": list, "model": dict, "optimizer": dict,
        "scheduler": dict, "scaler": dict, "random": list})

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Return the paths of the saved states, the oldest first."""
        found = {int(path.stem.rpartition("_")[2]): path
                 for path in self.folder.glob("training_state_*.pth")
                 if path.stem.rpartition("_")[2].isdecimal()}
        return [found[step] for step in sorted(found)]

    def save(self, state: dict) -> Path:
        """Write a state with the keys of `FORM`, then delete all but the last `keep` states.

        Raises:
            DataError: the state cannot be written; the earlier states are still there.
        """
        path = self.folder / f"training_state_{state['step']:08d}.pth"
        remove_abandoned(self.folder.glob("training_state_*.tmp"))
        save_state_dict(path, state)
        for old in self.paths()[:-self.keep]:
            if old != path:
                old.unlink(missing_ok=True)
        return path

    def load(self) -> dict | None:
        """Read the last state onto the CPU, without running code of the file; None without states.

        Raises:
            DataError: the state is broken, or its weights are not finite.
        """
        if not self.paths():
            return None
        path = self.paths()[-1]
        try:
            state = read_state(path)
            if missing := [key for key, kind in self.FORM.items()
                           if not isinstance(state.get(key), kind)]:
                raise DataError(f"{path} is no training state: it has no {', '.join(missing)}; "
                                "copy it again")
            check_finite(state["model"], path)
        except DataError as error:
            raise DataError(f"{error}; or delete it, and --resume goes on from the one before, if "
                            "there is one") from None
        return state

    def run_exists(self) -> bool:
        """Return whether the folder has weights or states of a run."""
        return any(self.folder.glob("weights_*")) or bool(self.paths())

    def remove_run(self) -> None:
        """Delete the weights, states and options of the run in the folder.

        Raises:
            DataError: a file cannot be deleted.
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
    def first_state_kept_if(self, has_begun: Callable[[], bool]) -> Iterator[None]:
        """Delete the first state of a new run if a DataError ends the run before it `has_begun`.

        Wrong flags or data end a run that early. Its first state would make the same command with
        the right flags ask for --resume or --overwrite.
        """
        is_new = not self.run_exists()
        try:
            yield
        except DataError:
            if is_new and not has_begun():
                for file in ("training_state_00000000.pth", "opt.json"):
                    with suppress(OSError):  # the file may not have been written
                        (self.folder / file).unlink()
            raise


def state_to_resume(opts: Namespace, states: TrainingStates, processes: int) -> dict | None:
    """Decide whether a run starts fresh or resumes, and check that the flags match.

    Args:
        opts: flags of the run.
        states: training states of the runs with the same name.
        processes: number of processes of the run.

    Returns:
        The training state to resume, or None for a fresh start.

    Raises:
        UsageError: a run of this name exists, and neither --resume nor --overwrite is given; or
            its flags differ from these.
        DataError: the state to resume is missing or broken.
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
    if state is not None and (changes := _changed_flags(opts, state, processes)):
        raise UsageError(f"the run in {states.folder} was started with other flags: "
                         f"{'; '.join(changes)}; give the same flags, choose another "
                         "--model_name, or --overwrite that run, without --resume")
    return state


def _changed_flags(opts: Namespace, state: dict, processes: int) -> list[str]:
    """Return a text for each flag that differs from a state's, and must not."""
    now = MonodepthOptions().used(opts)  # evaluation's flags have no effect here
    # a flag that the state's version did not know yet had no effect, as its default has none
    before = vars(MonodepthOptions().parse([])) | state["options"]
    changed = [f"--{name} was {before[name]}, is {now[name]}" for name in now
               if name in before and name not in MAY_CHANGE and before[name] != now[name]]
    if opts.seed not in (None, state["seed"]):
        changed.append(f"--seed was {state['seed']}, is {opts.seed}")
    if processes != state["processes"]:
        changed.append(f"processes were {state['processes']}, are {processes}")
    return changed
