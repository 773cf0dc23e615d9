"""The training states of a run: training_state_<step>.pth, which --resume goes on from."""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from checkpoints import read_state, save_state_dict
from utils import DataError


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
