"""Infer a model's architecture from its weights, and build the model."""
from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.network_weights import (
    OTHER_NETWORK,
    InputFormat,
    NetworkWeights,
    load_network,
    print_note,
    read_weights,
)
from checkpoints.state_file import weights_file
from checkpoints.training_flags import read_training_flags
from networks import ENCODERS, Monodepth2
from networks.cpu import prepare_for_cpu
from networks.depth_decoder import NUM_CH_DEC
from networks.encoders import OWN_FILE
from options import MIN_SIZE, SIZE_STEP
from runtime.errors import DataError
from runtime.files import MAX_PIXELS

TRUSTED_FILE = "MONODEPTH_ENCODER_FILE"  # environment variable
# (has bottleneck blocks, blocks in the third stage): number of layers
RESNETS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}


def load_model(folder: str | Path, *, with_pose: bool = False,
               device: torch.device | str = "cpu") -> tuple[Monodepth2, InputFormat]:
    """Build the model of a weights folder, for prediction.

    The architecture is inferred from the weights, so published folders load without other files;
    the files of encoders that are no ResNets hold their names.

    Args:
        folder: folder with encoder.pth and depth.pth; for `with_pose` also pose.pth and, if the
            pose network has an encoder of its own, pose_encoder.pth.
        with_pose: load the pose network too.
        device: device of the model.

    Returns:
        The model, in evaluation mode, and the input format.

    Raises:
        DataError: a file is missing or broken, or has other keys than the model.
    """
    folder = Path(folder)
    weights = {name: read_weights(weights_file(folder, name)) for name in ("encoder", "depth")}
    if with_pose:
        weights |= _read_pose(folder)
    architecture = _architecture(weights, folder)
    input_format = _input_format(weights["encoder"])
    model = Monodepth2(**architecture, image_size=input_format[:2])
    for name, network in model.named_children():
        print_note(weights[name].path, load_network(network, weights[name]))
    if torch.device(device).type == "cpu":
        prepare_for_cpu(model)
    # channels_last makes prediction a quarter faster, on CPUs too
    return model.to(device, memory_format=torch.channels_last).eval(), input_format


def read_input_format(folder: str | Path) -> InputFormat:
    """Read the input format of a depth network, without building the network.

    Raises:
        DataError: encoder.pth is missing or broken.
    """
    return _input_format(read_weights(weights_file(folder, "encoder")))


def read_pose_input(folder: str | Path) -> int:
    """Read how many frames a pose network takes at once, without building the network.

    Raises:
        DataError: pose.pth or pose_encoder.pth is missing or broken.
    """
    states = {name: network.tensors for name, network in _read_pose(Path(folder)).items()}
    return _pose_network(states, Path(folder))[1]


def _read_pose(folder: Path) -> dict[str, NetworkWeights]:
    """Read the files of a pose network by name: its own, and its encoder's if it has one."""
    names = ["pose"]
    if os.path.isfile(weights_file(folder, "pose_encoder")):  # pathlib fails for a long name
        names.append("pose_encoder")
    return {name: read_weights(weights_file(folder, name)) for name in names}


def _input_format(encoder: NetworkWeights) -> InputFormat:
    """Return the input format stored beside an encoder's weights."""
    found, path = {"use_stereo": False, **encoder.input_format}, encoder.path
    if missing := [key for key in ("height", "width") if key not in found]:
        raise DataError(f"{path} has no {' and '.join(missing)}; expected an encoder.pth of "
                        "train.py or of a published model; add the height and the width of its "
                        "training images to the dict in the file")
    height, width, use_stereo = (_whole_number(found[key]) for key in InputFormat._fields)
    if min(height, width) < MIN_SIZE or height % SIZE_STEP or width % SIZE_STEP or (
            height * width > MAX_PIXELS):
        raise DataError(f"{path} gives the input size {str(found['width'])[:20]}x"
                        f"{str(found['height'])[:20]}; expected multiples of {SIZE_STEP}, at least "
                        f"{MIN_SIZE}; copy or download it again")
    if use_stereo not in (0, 1):
        raise DataError(f"{path} gives {str(found['use_stereo'])[:20]} for use_stereo; expected "
                        "True or False; copy or download it again")
    return InputFormat(height, width, bool(use_stereo))


def _whole_number(value: object) -> int:
    """Return the value of an int, a float or a tensor of one number; -1 if it is not whole."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return -1
    return int(number) if number.is_integer() else -1


def _architecture(weights: dict[str, NetworkWeights], folder: Path) -> dict:
    """Return the arguments of `Monodepth2` for networks with the shapes of these weights."""
    states = {name: network.tensors for name, network in weights.items()}
    heads = [value.shape[1] for key, value in states["depth"].items()
             if re.fullmatch(r"decoder\.\d+\.conv\.weight", key) and value.ndim == 4]
    architecture = {"encoder": _encoder_name(weights["encoder"], folder),
                    "scales": [NUM_CH_DEC.index(channels) for channels in heads
                               if channels in NUM_CH_DEC] or list(range(4)),
                    "frame_ids": [0]}
    if "pose" in states:
        kind, frames = _pose_network(states, folder)
        architecture |= {"pose_model_type": kind, "frame_ids": list(range(frames)),
                         "pose_model_input": "pairs" if frames == 2 else "all"}
    if "pose_encoder" in weights:
        architecture["pose_encoder"] = _encoder_name(weights["pose_encoder"], folder)
    return architecture


def _pose_network(states: dict[str, dict[str, Tensor]], folder: Path) -> tuple[str, int]:
    """Return the type of a pose network, and the number of frames that it takes."""
    convs = {name: [value for value in state.values() if value.ndim == 4]
             for name, state in states.items()}
    if len(convs["pose"]) < 2 or not convs.get("pose_encoder", [...]):
        raise DataError(f"{folder} holds no pose network of a known kind; expected pose.pth, and "
                        "pose_encoder.pth if it has one, as train.py writes them")
    if "pose_encoder" in states:
        return "separate_resnet", max(2, convs["pose_encoder"][0].shape[1] // 3)
    if "pose_conv.weight" in states["pose"]:
        return "posecnn", max(2, convs["pose"][0].shape[1] // 3)
    return "shared", max(2, convs["pose"][1].shape[1] // convs["pose"][0].shape[0])


def _encoder_name(weights: NetworkWeights, folder: Path) -> str | int:
    """Return an encoder's name: stored, or from a ResNet's blocks, or from opt.json."""
    if weights.encoder_name is not None:
        return _trusted(weights.encoder_name, weights.path)
    encoder = weights.tensors
    bottleneck = "encoder.layer1.0.conv3.weight" in encoder
    blocks = {found[1] for key in encoder
              if (found := re.match(r"encoder\.layer3\.(\d+)\.", key))}
    if (bottleneck, len(blocks)) in RESNETS:
        return RESNETS[bottleneck, len(blocks)]
    num_layers = read_training_flags(folder).get("num_layers")
    own = [name for name in ENCODERS if name not in RESNETS.values()]
    if not isinstance(num_layers, int) or num_layers not in own:
        raise DataError(f"{weights.path} is no ResNet of 18, 34, 50, 101 or 152 layers: "
                        f"its third stage has {len(blocks)} blocks; {OTHER_NETWORK}")
    return num_layers


def _trusted(name: str, path: Path) -> str:
    """Return an encoder's name; one in a Python file needs the user's consent, which says where.

    Weights come from other people, and loading them must not run their code.
    """
    own = OWN_FILE.fullmatch(name)
    if own is None:
        return name
    if TRUSTED_FILE not in os.environ:
        raise DataError(f"{path} was trained with the encoder {name[:200]}; to run such a file, "
                        f"set the variable {TRUSTED_FILE} to its path")
    return f"{os.environ[TRUSTED_FILE]}:{own[2]}"


def pose_frames(folder: str | Path, frames: int) -> list[int] | None:
    """Return the frames that a pose network takes at once, 0 first; None if it takes pairs.

    The flags of the training name the frames. Without them, three frames mean 0 -1 1, the default.

    Args:
        folder: weights folder.
        frames: number of frames that the network takes.

    Raises:
        DataError: the frames are unknown.
    """
    try:
        flags = read_training_flags(folder)
        kind, found = flags["pose_model_input"], flags["frame_ids"]
        is_valid = (all(type(f) is int and abs(f) < 1000 for f in found) and found[:1] == [0]
                    and len(set(found)) == len(found) == frames)
    except (KeyError, TypeError):
        kind, is_valid = "pairs", False
    if frames == 2 and not (kind == "all" and is_valid):
        return None
    if is_valid or frames == 3:
        return found if is_valid else [0, -1, 1]
    raise DataError(f"the pose network in {folder} takes {frames} frames at once, and no opt.json "
                    "of its training says which; put it beside the weights folder, as train.py "
                    "does")
