"""Weights folders: weights_<epoch>/{encoder,depth,pose_encoder,pose}.pth and adam.pth."""
from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from datasets.images import MAX_PIXELS
from networks import ENCODERS, Monodepth2
from networks.cpu import prepare_for_cpu
from networks.depth_decoder import NUM_CH_DEC
from options import MIN_SIZE, SIZE_STEP
from utils import DataError, write_atomically

# What torch.load raises on files that are broken or are no weights.
LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError,
               IndexError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error,
               OSError)
# (has bottleneck blocks, blocks in the third stage): number of layers
RESNETS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}


class InputFormat(NamedTuple):
    """What encoder.pth says of the images it was trained on."""

    height: int
    width: int
    use_stereo: bool


def save_weights(folder: str | Path, model: Monodepth2, optimizer: torch.optim.Optimizer,
                 input_format: InputFormat) -> None:
    """Write a model's children and its optimizer's state, each file whole or not at all.

    Raises:
        DataError: a file cannot be written.
    """
    # Faithful: one state dict per network, of the published keys; encoder.pth has the input's size
    for name, network in model.named_children():
        extra = input_format._asdict() if name == "encoder" else {}
        save_state_dict(Path(folder, f"{name}.pth"), {**network.state_dict(), **extra})
    save_state_dict(Path(folder, "adam.pth"), optimizer.state_dict())


def save_state_dict(path: Path, state: dict) -> None:
    """Write a state dict, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # which hides what the disk said
            disk = error.__context__
            raise (disk if isinstance(disk, OSError) else error) from None

    for abandoned in path.parent.glob(f"{path.name}.*.tmp"):  # by a killed run
        abandoned.unlink(missing_ok=True)
    write_atomically(path, write)


def read_state(path: str | Path) -> dict:
    """Read a state dict onto the CPU; no code in the file is run.

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
    """Read a network's state dict: tensors by name and, of an encoder, its `InputFormat`.

    Raises:
        DataError: the file is missing, broken, or holds something else.
    """
    state = read_state(path)
    wrong = [key for key, value in state.items() if not isinstance(key, str) or not (
        isinstance(value, int) if key in InputFormat._fields else _is_whole(value))]
    if wrong:
        raise DataError(f"{path} holds other things than weights ({str(wrong[0])[:60]!r}); copy or "
                        "download it again")
    return state


def _is_whole(value: object) -> bool:
    """Whether a value is a tensor with as many numbers as it says: its storage is in the file."""
    return (isinstance(value, Tensor) and value.layout == torch.strided
            and value.device.type == "cpu" and not value.is_quantized
            and value.untyped_storage().nbytes() >= value.numel() * value.element_size())


def weights_folders(run: str | Path) -> dict[int, Path]:
    """Return the weights folders of a run by their epochs, in order.

    Args:
        run: <log_dir>/<model_name>, or its models/.

    Raises:
        DataError: it has none.
    """
    found = {int(path.name.removeprefix("weights_")): path
             for place in (Path(run), Path(run, "models")) for path in place.glob("weights_*")
             if re.fullmatch("weights_[0-9]+", path.name)}
    if not found:
        raise DataError(f"{run} has no weights_<epoch> folders; give the folder of a run, "
                        "<log_dir>/<model_name>")
    return dict(sorted(found.items()))


def load_model(folder: str | Path, *, with_pose: bool = False,
               device: torch.device | str = "cpu") -> tuple[Monodepth2, InputFormat]:
    """Build the model whose weights a folder holds, for prediction.

    The architecture is read off the weights themselves, so a published folder loads as it is.

    Args:
        folder: with encoder.pth and depth.pth; pose.pth (and pose_encoder.pth) if `with_pose`.
        with_pose: load the pose network too.
        device: where the model goes.

    Returns:
        The model, in evaluation mode, and the input's format.

    Raises:
        DataError: a file is missing or broken, or its keys are not the model's.
    """
    folder = Path(folder)
    states = {name: read_weights(folder / f"{name}.pth") for name in ("encoder", "depth")}
    if with_pose:
        states["pose"] = read_weights(folder / "pose.pth")
        if (folder / "pose_encoder.pth").is_file():
            states["pose_encoder"] = read_weights(folder / "pose_encoder.pth")
    model = Monodepth2(**_architecture(states, folder))
    for name, network in model.named_children():
        load_strictly(network, states[name], folder / f"{name}.pth")
    input_format = _input_format(states["encoder"], folder / "encoder.pth")
    prepare_for_cpu(model)  # on another device, the model runs as it was built
    # prediction is a quarter faster with the channels last, on CPUs too
    return model.to(device, memory_format=torch.channels_last).eval(), input_format


def _input_format(encoder: dict, path: Path) -> InputFormat:
    if missing := [key for key in ("height", "width") if key not in encoder]:
        raise DataError(f"{path} does not say its {' and '.join(missing)}; weights of train.py and "
                        "the published ones do")
    height, width = encoder["height"], encoder["width"]
    if min(height, width) < MIN_SIZE or height % SIZE_STEP or width % SIZE_STEP or (
            height * width > MAX_PIXELS):
        raise DataError(f"{path} is of images of {width}x{height}; a network's have multiples of "
                        f"{SIZE_STEP}, from {MIN_SIZE} on; copy or download it again")
    return InputFormat(height, width, bool(encoder.get("use_stereo", False)))


def _architecture(states: dict[str, dict], folder: Path) -> dict:
    """Return the arguments of `Monodepth2` that give networks of these states' shapes."""
    heads = [value.shape[1] for key, value in states["depth"].items()
             if re.fullmatch(r"decoder\.\d+\.conv\.weight", key) and value.ndim == 4]
    architecture = {"num_layers": _num_layers(states["encoder"], folder),
                    "scales": [NUM_CH_DEC.index(channels) for channels in heads
                               if channels in NUM_CH_DEC] or list(range(4)),
                    "frame_ids": [0]}
    if "pose" in states:
        kind, frames = _pose_network(states, folder)
        architecture |= {"pose_model_type": kind, "frame_ids": list(range(frames)),
                         "pose_model_input": "pairs" if frames == 2 else "all"}
    return architecture


def _pose_network(states: dict[str, dict], folder: Path) -> tuple[str, int]:
    """Return the type of a pose network, and how many frames it takes."""
    convs = {name: [value for value in state.values() if getattr(value, "ndim", 0) == 4]
             for name, state in states.items()}
    if len(convs["pose"]) < 2 or not convs.get("pose_encoder", [...]):
        raise DataError(f"{folder} holds no pose network of a known kind; expected pose.pth, and "
                        "pose_encoder.pth if it has one, as train.py writes them")
    if "pose_encoder" in states:
        return "separate_resnet", max(2, convs["pose_encoder"][0].shape[1] // 3)
    if "pose_conv.weight" in states["pose"]:
        return "posecnn", max(2, convs["pose"][0].shape[1] // 3)
    return "shared", max(2, convs["pose"][1].shape[1] // convs["pose"][0].shape[0])


def _num_layers(encoder: dict, folder: Path) -> int:
    """Return the key of `ENCODERS`: a ResNet's is counted, another's stands in opt.json."""
    bottleneck = "encoder.layer1.0.conv3.weight" in encoder
    blocks = {key.split(".")[2] for key in encoder if key.startswith("encoder.layer3.")}
    if (bottleneck, len(blocks)) in RESNETS:
        return RESNETS[bottleneck, len(blocks)]
    try:
        num_layers = json.loads((folder.parent / "opt.json").read_text())["num_layers"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        num_layers = None
    own = [name for name in ENCODERS if name not in RESNETS.values()]
    if not isinstance(num_layers, int) or num_layers not in own:
        raise DataError(f"{folder / 'encoder.pth'} is no ResNet of 18, 34, 50, 101 or 152 layers: "
                        f"its third stage has {len(blocks)} blocks")
    return num_layers


def pose_frames(folder: str | Path, frames: int) -> list[int] | None:
    """Return which frames a pose network takes at once, in their order, 0 first; None: pairs.

    They stand in training's opt.json; without it, three are taken for 0 -1 1, the default.

    Args:
        folder: of the weights.
        frames: how many the network takes.

    Raises:
        DataError: nothing tells.
    """
    try:
        flags = json.loads((Path(folder).parent / "opt.json").read_text())
        kind, found = flags["pose_model_input"], flags["frame_ids"]
        is_whole = (all(type(f) is int and abs(f) < 1000 for f in found) and found[:1] == [0]
                    and len(set(found)) == len(found) == frames)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        kind, is_whole = "pairs", False
    if frames == 2 and not (kind == "all" and is_whole):
        return None
    if is_whole or frames == 3:
        return found if is_whole else [0, -1, 1]
    raise DataError(f"the pose network in {folder} takes {frames} frames at once, and no opt.json "
                    "of its training says which; put it beside the weights folder, as train.py "
                    "does")


def load_strictly(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that must have exactly the network's keys and shapes.

    Raises:
        DataError: it does not; names the file and the first keys.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key not in InputFormat._fields}
    wrong = {"misses": own.keys() - given.keys(), "has unknown": given.keys() - own.keys(),
             "has other shapes of": {key for key in own.keys() & given.keys()
                                     if own[key].shape != getattr(given[key], "shape", None)}}
    for what, keys in wrong.items():
        if keys:
            raise DataError(f"{path} {what} {len(keys)} keys ({', '.join(sorted(keys)[:3])}, ...); "
                            "it was written by another architecture: match the model's flags, or "
                            "leave its name out of --models_to_load")
    network.load_state_dict(given)


def load_weights(folder: str | Path, model: Monodepth2, names: Iterable[str]) -> list[str]:
    """Load those of a model's children that a folder has, to train on.

    Returns:
        One line per name: what was loaded, and what was skipped and why.

    Raises:
        DataError: the folder is missing or has none of them, or a file does not fit the model.
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
        A line that says what was done.
    """
    path = Path(folder, "adam.pth")
    if not path.is_file():
        return f"skipped Adam's state: {path} does not exist; it starts anew"
    state = read_state(path)
    if not _fits(state, optimizer):
        return f"skipped Adam's state: {path} is of other networks; it starts anew"
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
    """Load a state as it is, but for the moments' layouts: fused Adam needs the parameters' own."""
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def _fits(state: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a stored state has a moment of the right shape for each parameter it speaks of."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        count = sum(len(group["params"]) for group in state["param_groups"])
        same_groups = len(state["param_groups"]) == len(optimizer.param_groups)
        return same_groups and count == len(parameters) and all(
            moments[name].shape == parameters[i].shape
            for i, moments in state["state"].items() for name in ("exp_avg", "exp_avg_sq"))
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
