"""Read the weights of one network, however they were saved, and load them into the network."""
from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor, nn

from checkpoints.state_file import check_finite, is_complete_tensor, read_state
from runtime.errors import DataError, counted

NESTED = ("model", "state_dict", "model_state_dict")  # keys under which trainers keep weights
ENCODER_NAME = "encoder_name"  # key of an encoder's file: the name of an encoder that is no ResNet
PREFIX = re.compile(r"(module\.|_orig_mod\.)+")  # of nn.DataParallel and of torch.compile
UNUSED = re.compile(r"encoder\.fc\.(weight|bias)|(.*\.)?num_batches_tracked")
OTHER_NETWORK = ("it is not a network of Monodepth2, as train.py writes it or as it was published; "
                 "run it with the code that wrote it")


class InputFormat(NamedTuple):
    """The input that a depth network was trained on, as stored in encoder.pth."""

    height: int
    width: int
    use_stereo: bool


class NetworkWeights(NamedTuple):
    """Hold the content of a network's file.

    Attributes:
        path: of the file.
        tensors: by the names that the network gives them.
        input_format: fields of `InputFormat` that the file has, of any type.
        encoder_name: name of an encoder that its weights do not tell; None: a ResNet, or another
            network.
        others: keys of the file that hold no tensors of the network.
        notes: how the tensors were found in the file.
    """

    path: Path
    tensors: dict[str, Tensor]
    input_format: dict[str, object]
    others: list[str]
    notes: list[str]
    encoder_name: str | None = None


def read_weights(path: str | Path) -> NetworkWeights:
    """Read a network's state dict; nested dicts and prefixes of names are unwrapped.

    Args:
        path: of a .pth file, or a .safetensors file.

    Raises:
        DataError: the file is missing or broken, or holds no weights.
    """
    state, others, notes = _without_nesting(read_state(path))
    name = state.get(ENCODER_NAME)
    if isinstance(name, str):
        state = {key: value for key, value in state.items() if key != ENCODER_NAME}
    input_format = {key: state[key] for key in InputFormat._fields if key in state}
    tensors = {key: value for key, value in state.items() if key not in input_format
               and isinstance(key, str) and is_complete_tensor(value)}
    others += [str(key) for key in state if key not in tensors and key not in input_format]
    if not tensors:
        raise DataError(f"{path} holds no weights, but {_listed(others)}; expected the state dict "
                        "of a network")
    stripped = {key[_prefix_length(key):]: value for key, value in tensors.items()}
    if stripped.keys() != tensors.keys() and len(stripped) == len(tensors):
        prefixes = {key[:_prefix_length(key)] for key in tensors} - {""}
        tensors = stripped
        notes.append(f"removed {' and '.join(sorted(prefixes))} (nn.DataParallel or torch.compile) "
                     "from the names")
    return NetworkWeights(Path(path), tensors, input_format, others, notes,
                          name if isinstance(name, str) else None)


def _without_nesting(state: dict) -> tuple[dict, list[str], list[str]]:
    """Return the innermost state dict, the keys of what lies around it, and notes."""
    others, notes = [], []
    for name in NESTED:  # each at most once: a dict may contain itself
        if _holds_weights(state.get(name)):
            outer, state = state, state[name]
            beside = (*InputFormat._fields, ENCODER_NAME)
            state = {key: outer[key] for key in beside if key in outer} | state
            others += [str(key) for key in outer if key != name and key not in beside]
            notes.append(f"took the weights in its {name!r}")
    return state, others, notes


def _holds_weights(value: object) -> bool:
    """Return whether a value is a dict with a tensor, or with another dict of weights."""
    return isinstance(value, dict) and any(
        isinstance(value[key], Tensor) or key in NESTED for key in value)


def _prefix_length(name: str) -> int:
    """Return the number of letters that DataParallel or torch.compile put before a name."""
    found = PREFIX.match(name)
    return found.end() if found else 0


def load_network(network: nn.Module, weights: NetworkWeights, cure: str = OTHER_NETWORK) -> str:
    """Load weights that must have the network's names and shapes.

    Values that the network lacks are skipped, unless they are weights of further layers. Missing
    values that the network does not use keep their initial values.

    Args:
        network: the network to load into.
        weights: the content of its file.
        cure: what to do if the file was written by another architecture of this project.

    Returns:
        What was unwrapped, skipped and filled in, in one line; "" if nothing was.

    Raises:
        DataError: names, shapes or types differ, a weight is not finite, or a variance is below 0.
    """
    own, given = network.state_dict(), weights.tensors
    missing, more = own.keys() - given.keys(), given.keys() - own.keys()
    filled = {key for key in missing if UNUSED.fullmatch(key)}
    layers = {key for key in more if key.endswith((".weight", ".bias"))}
    shapes = {key for key in own.keys() & given.keys() if own[key].shape != given[key].shape}
    types = {key for key in own.keys() & given.keys()
             if own[key].is_floating_point() and not _is_float(given[key])}
    if len(given) - len(more) < min(len(own), len(given)) / 2:
        cure = OTHER_NETWORK
    for what, noun, keys in (("misses", "key", missing - filled), ("has", "unknown key", layers),
                             ("has other shapes of", "key", shapes),
                             ("has numbers of another type (integer or complex) in", "key",
                              types)):
        if keys:
            raise DataError(f"{weights.path} {what} {counted(len(keys), noun)} "
                            f"({_listed(keys)}); {cure}")
    # as the network will hold them: a float64 may be too large for a float32
    fitting = {key: given[key].to(own[key].dtype) for key in own if key in given}
    check_finite(fitting, weights.path)
    _check_variances(fitting, weights.path)
    network.load_state_dict(own | fitting)
    return _describe(weights, more, filled)


def _is_float(tensor: Tensor) -> bool:
    """Return whether a tensor's numbers convert to float32; PyTorch has no such code for float4."""
    return tensor.is_floating_point() and "float4" not in str(tensor.dtype)


def _check_variances(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise a DataError if a variance of a batch norm is below 0: its root would be NaN."""
    for name, value in tensors.items():
        if name.endswith("running_var") and (value < 0).any():
            raise DataError(f"{path} has a variance below 0 in {name}: the file is damaged; copy "
                            "or download it again")


def _describe(weights: NetworkWeights, more: Iterable[str], filled: set[str]) -> str:
    """Return what was unwrapped, skipped and filled in, in one line."""
    notes = list(weights.notes)
    if skipped := {*weights.others, *more}:
        notes.append(f"skipped what the network lacks ({_listed(skipped)})")
    if filled:
        notes.append(f"filled in what the network does not use ({_listed(filled)})")
    return "; ".join(notes)


def _listed(keys: Iterable[str]) -> str:
    """Return the first three keys and the number of the others."""
    keys = [" ".join(key[:60].split()) for key in sorted(keys)]
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return (", ".join(keys[:3]) or "nothing") + more


def print_note(path: Path, note: str) -> None:
    """Print what `load_network` returned, on stderr, in the main process."""
    if note and not (dist.is_initialized() and dist.get_rank()):
        print(f"note: {path}: {note}", file=sys.stderr)
