"""Read weights folders, and write weights_<epoch>/{encoder,depth,pose_encoder,pose,adam}.pth."""
from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from checkpoints.network_weights import ENCODER_NAME, InputFormat, load_network, read_weights
from checkpoints.state_file import LOAD_ERRORS, check_finite, read_state, weights_file
from networks import Monodepth2
from runtime.errors import DataError
from runtime.files import remove_abandoned, write_atomically

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam
FLAGS_DIFFER = ("it was written by another architecture: match the model's flags, or leave its "
                "name out of --models_to_load")


def save_weights(folder: str | Path, model: Monodepth2, optimizer: torch.optim.Optimizer,
                 input_format: InputFormat) -> None:
    """Write a model's networks and its optimizer's state; each file appears complete or not at all.

    Raises:
        DataError: a file cannot be written.
    """
    # Faithful: one state dict per network, published keys; encoder.pth also has the input's size
    for name, network in model.named_children():
        extra = input_format._asdict() if name == "encoder" else {}
        if isinstance(encoder := model.encoder_names.get(name), str):  # its weights do not tell it
            extra |= {ENCODER_NAME: encoder}
        save_state_dict(Path(folder, f"{name}.pth"), _portable({**network.state_dict(), **extra}))
    save_state_dict(Path(folder, "adam.pth"), _portable(optimizer.state_dict()))


def _portable(value: object) -> object:
    """Copy the tensors in a state to the CPU, row by row, so that every machine can read them."""
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous()
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_portable, value))
    return value


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


def load_weights(folder: str | Path, model: Monodepth2, names: Iterable[str]) -> list[str]:
    """Load the named networks of a model from a folder, for fine-tuning.

    Args:
        folder: weights folder; it may lack some of the networks.
        model: model to load into.
        names: names of the networks.

    Returns:
        One line per name: whether it was loaded, and what was unwrapped, skipped or filled in; or
        why it was skipped.

    Raises:
        DataError: the folder is missing or has none of the networks, or a file does not fit.
    """
    folder, lines = Path(folder), []
    if not os.path.isdir(folder):  # pathlib raises an error for a name that is too long
        fault = "is a file" if os.path.isfile(folder) else "does not exist"
        raise DataError(f"{folder} {fault}; --load_weights_folder expects a weights_<epoch> folder")
    children = dict(model.named_children())
    for name in names:
        path = weights_file(folder, name)
        if name not in children:
            lines.append(f"skipped {name}: this model has no such network")
        elif not path.is_file():
            lines.append(f"skipped {name}: {path} does not exist")
        else:
            weights = read_weights(path)
            if weights.encoder_name not in (None, model.encoder_names.get(name)):
                stored, flag = weights.encoder_name[:200], f"--{name}"  # --encoder, --pose_encoder
                raise DataError(f"{path} is of the encoder {stored}, the model has another; pass "
                                f"{flag} {stored}")
            note = load_network(children[name], weights, FLAGS_DIFFER)
            lines.append(f"loaded {name}: {note}" if note else f"loaded {name}")
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
    check_finite({f"{name} of parameter {number}": moments[name]
                  for number, moments in state["state"].items() for name in MOMENTS}, path)
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
        for name in MOMENTS:
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def _fits(state: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a stored state has moments of the shapes of the optimizer's parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        # numbers since PyTorch 1.6; before, addresses in memory, in the order of the parameters
        keys = [key for group in state["param_groups"] for key in group["params"]]
        parameter_of = dict(zip(keys, parameters, strict=True))
        same_groups = len(state["param_groups"]) == len(optimizer.param_groups)
        return same_groups and len(parameter_of) == len(parameters) and all(
            moments[name].shape == parameter_of[key].shape
            for key, moments in state["state"].items() for name in MOMENTS)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return False
