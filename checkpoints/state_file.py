"""Read a state dict of tensors and numbers, without running code that its file may contain."""
from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
from argparse import Namespace
from codecs import encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints.safetensors_file import SUFFIX, read_safetensors
from runtime.errors import DataError

# Exceptions of torch.load for files that are broken or hold something other than weights
LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError,
               IndexError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error,
               OSError)


def weights_file(folder: str | Path, name: str) -> Path:
    """Return the path of a network's file: <name>.safetensors if it exists, or else <name>.pth."""
    path = Path(folder, name + SUFFIX)
    return path if os.path.isfile(path) else path.with_suffix(".pth")


def read_state(path: str | Path) -> dict:
    """Read a state dict onto the CPU, without running code that the file may contain.

    Of a .pth file, tensors of any device, numbers, numpy's scalars and argparse's flags are read.

    Raises:
        DataError: the file is missing, broken, or holds something else.
    """
    path = Path(path)
    if not os.path.isfile(path):  # pathlib raises an error for a name that is too long
        raise DataError(_missing(path))
    if path.suffix == SUFFIX:
        return read_safetensors(path)
    try:
        with warnings.catch_warnings(), _stand_ins_allowed():
            warnings.simplefilter("ignore")  # of TorchScript, which then raises an error
            state = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise DataError(f"{path} cannot be read as weights: {_reason(error)}") from None
    if not isinstance(state, dict):
        raise DataError(f"{path} holds a {type(state).__name__}, expected a state dict")
    return state


def _missing(path: Path) -> str:
    """Return the error for a path without a file."""
    if os.path.isfile(path.parent):
        return (f"{path.parent} is a file; give the weights folder with {path.name} in it, for "
                f"example {path.parent.parent}")
    missing = path if os.path.isdir(path.parent) else path.parent
    return (f"{missing} does not exist; expected a weights folder with {path.name}, as train.py "
            "writes it to <log_dir>/<model_name>/models/weights_<epoch>")


def _reason(error: BaseException) -> str:
    """Tell why `torch.load` raised an error, and what to do."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (f"it holds {found[1]}, and loading other objects than tensors and numbers can run "
                "code; save the state dict of the network alone")
    if "TorchScript" in str(error):
        return "it is a TorchScript archive; save the state dict of the network instead"
    return ("it is cut off, or holds other things than tensors and numbers; copy or download it "
            "again")


class _DType:
    """Stand in for numpy.dtype: hold the code and the byte order of a type."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


def _scalar(dtype: _DType, content: bytes) -> int | float | bool:
    """Return the Python number of a numpy scalar; numpy refuses types that are no numbers."""
    return np.frombuffer(content, dtype.order + dtype.code)[0].item()


def _stand_in(path: str, thing: Callable) -> Callable:
    """Give a function or class the path by which files name it."""
    thing.__module__, _, thing.__qualname__ = path.rpartition(".")
    thing.__name__ = thing.__qualname__  # PyTorch 2.4 reads __name__, later versions __qualname__
    return thing


# Names of numpy 1 and 2. numpy's own functions would take any state from a file.
STAND_INS = [_stand_in("numpy.dtype", _DType), Namespace, encode,
             *(_stand_in(f"numpy.{core}.multiarray.scalar", lambda *args: _scalar(*args))
               for core in ("core", "_core"))]


@contextmanager
def _stand_ins_allowed() -> Iterator[None]:
    """Let `torch.load` read `STAND_INS`, whatever the process has allowed until now."""
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def is_complete_tensor(value: object) -> bool:
    """Return whether a value is a CPU tensor whose storage has all numbers of its shape."""
    return (isinstance(value, Tensor) and value.layout == torch.strided
            and value.device.type == "cpu" and not value.is_quantized
            and value.untyped_storage().nbytes() >= value.numel() * value.element_size())


def check_finite(tensors: Mapping[str, object], path: Path) -> None:
    """Refuse weights that are not finite; values that are no tensors are skipped.

    Raises:
        DataError: names the first tensor with NaN or inf.
    """
    for name, value in tensors.items():
        # a sum is the quickest pass over a tensor; an overflow is told from NaN by a second pass
        if (is_complete_tensor(value) and value.is_floating_point()
                and not value.sum().isfinite() and not value.isfinite().all()):
            raise DataError(f"{path} has NaN or inf in {name}: its training diverged, or the file "
                            "is damaged; take an earlier one, or copy or download it again")
