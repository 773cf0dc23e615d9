"""Read and write weights_<epoch>/{encoder,depth,pose_encoder,pose}.pth and adam.pth."""
from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from networks import Monodepth2
from runtime.errors import DataError, counted
from runtime.files import remove_abandoned, write_atomically

# Exceptions of torch.load for files that are broken or hold something other than weights
LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError,
               IndexError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error,
               OSError)


class InputFormat(NamedTuple):
    """The input that a depth network was trained on, as stored in encoder.pth."""

    height: int
    width: int
    use_stereo: bool


def save_weights(folder: str | Path, model: Monodepth2, optimizer: torch.optim.Optimizer,
                 input_format: InputFormat) -> None:
    """Write a model's networks and its optimizer's state; each file appears complete or not at all.

    Raises:
        DataError: a file cannot be written.
    """
    # Faithful: one state dict per network, published keys; encoder.pth also has the input's size
    for name, network in model.named_children():
        extra = input_format._asdict() if name == "encoder" else {}
        save_state_dict(Path(folder, f"{name}.pth"), {**network.state_dict(), **extra})
    save_state_dict(Path(folder, "adam.pth"), optimizer.state_dict())


def save_state_dict(path: Path, state: dict) -> None:
    """Write a state dict; the file appears complete or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # its context may be the error of the disk
            disk_error = error.__context__
            raise (disk_error if isinstance(disk_error, OSError) else error) from None

    remove_abandoned(path.parent.glob(f"{path.name}.*.tmp"))
    write_atomically(path, write)


def read_state(path: str | Path) -> dict:
    """Read a state dict onto the CPU, without running code that the file may contain.

    Raises:
        DataError: the file is missing, broken, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        missing = path if path.parent.is_dir() else path.parent
        raise DataError(f"{missing} does not exist; expected a weights folder with {path.name}, "
                        "as train.py writes it to <log_dir>/<model_name>/models/weights_<epoch>")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS:
        raise DataError(f"{path} cannot be read as weights: it is cut off, or holds other things "
                        "than tensors and numbers; copy or download it again") from None
    if not isinstance(state, dict):
        raise DataError(f"{path} holds a {type(state).__name__}, expected a state dict")
    return state


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a network's state dict: tensors by name and, for an encoder, its `InputFormat`.

    Raises:
        DataError: the file is missing, broken, or holds something else.
    """
    state = read_state(path)
    wrong = [key for key, value in state.items() if not isinstance(key, str) or not (
        isinstance(value, int) if key in InputFormat._fields else _is_complete_tensor(value))]
    if wrong:
        raise DataError(f"{path} holds other things than weights ({str(wrong[0])[:60]!r}); copy or "
                        "download it again")
    return state


def _is_complete_tensor(value: object) -> bool:
    """Return whether a value is a CPU tensor whose storage has all numbers of its shape."""
    return (isinstance(value, Tensor) and value.layout == torch.strided
            and value.device.type == "cpu" and not value.is_quantized
            and value.untyped_storage().nbytes() >= value.numel() * value.element_size())


def find_weights_folders(run: str | Path) -> dict[int, Path]:
    """Return the weights folders of a run by epoch, in order.

    Args:
        run: <log_dir>/<model_name>, or the folder models/ in it.

    Raises:
        DataError: the run has no weights folders.
    """
    found = {int(path.name.removeprefix("weights_")): path
             for parent in (Path(run), Path(run, "models")) for path in parent.glob("weights_*")
             if re.fullmatch("weights_[0-9]+", path.name)}
    if not found:
        raise DataError(f"{run} has no weights_<epoch> folders; give the folder of a run, "
                        "<log_dir>/<model_name>")
    return dict(sorted(found.items()))


def load_strictly(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that must have exactly the network's keys and shapes.

    Raises:
        DataError: keys or shapes differ; names the file and the first keys.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key not in InputFormat._fields}
    wrong = {"misses": own.keys() - given.keys(), "has unknown": given.keys() - own.keys(),
             "has other shapes of": {key for key in own.keys() & given.keys()
                                     if own[key].shape != getattr(given[key], "shape", None)}}
    for what, keys in wrong.items():
        if keys:
            raise DataError(f"{path} {what} {counted(len(keys), 'key')} "
                            f"({', '.join(sorted(keys)[:3])}, ...); it was written by "
                            "another architecture: match the model's flags, or leave its name out "
                            "of --models_to_load")
    network.load_state_dict(given)


def load_weights(folder: str | Path, model: Monodepth2, names: Iterable[str]) -> list[str]:
    """Load the named networks of a model from a folder, for fine-tuning.

    Args:
        folder: weights folder; it may lack some of the networks.
        model: model to load into.
        names: names of the networks.

    Returns:
        One line per name: whether it was loaded, or why it was skipped.

    Raises:
        DataError: the folder is missing or has none of the networks, or a file does not fit.
    """
    folder, lines = Path(folder), []
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; --load_weights_folder expects a weights_<epoch> "
                        "folder")
    children = dict(model.named_children())
    for name in names:
        path = folder / f"{name}.pth"
        if name not in children:
            lines.append(f"skipped {name}: this model has no such network")
        elif not path.is_file():
            lines.append(f"skipped {name}: {path} does not exist")
        else:
            load_strictly(children[name], read_weights(path), path)
            lines.append(f"loaded {name}")
    if not any(line.startswith("loaded") for line in lines):
        raise DataError(f"nothing was loaded from {folder} ({'; '.join(lines)}); give a "
                        "weights_<epoch> folder")
    return lines


def load_adam(folder: str | Path, optimizer: torch.optim.Optimizer) -> str:
    """Load Adam's moments if they fit; the optimizer keeps its own learning rate and settings.

    Returns:
        A line that says whether the state was loaded, or why it was skipped.

    Raises:
        DataError: adam.pth is broken.
    """
    path = Path(folder, "adam.pth")
    if not path.is_file():
        return f"skipped Adam's state: {path} does not exist; Adam starts without moments"
    state = read_state(path)
    if not _fits(state, optimizer):
        return (f"skipped Adam's state: {path} belongs to other networks; Adam starts without "
                "moments")
    # Faithful: --learning_rate wins over the stored rate, and the scheduler starts from it
    groups = [{**own, "initial_lr": own["lr"], "params": stored["params"]} for own, stored in
              zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)]
    try:
        restore_adam(optimizer, {"state": state["state"], "param_groups": groups})
    except LOAD_ERRORS as error:
        raise DataError(f"{path} cannot be read as Adam's state ({error}); copy it again, or "
                        "delete it, and Adam starts anew") from None
    return "loaded Adam's state"


def restore_adam(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load a state, and lay the moments out in memory like the parameters, as fused Adam needs."""
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def _fits(state: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a stored state has moments of the shapes of the optimizer's parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        count = sum(len(group["params"]) for group in state["param_groups"])
        same_groups = len(state["param_groups"]) == len(optimizer.param_groups)
        return same_groups and count == len(parameters) and all(
            moments[name].shape == parameters[i].shape
            for i, moments in state["state"].items() for name in ("exp_avg", "exp_avg_sq"))
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
