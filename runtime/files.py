"""Read text, and write files whole or not at all."""
from __future__ import annotations

import io
import math
import os
import pickle
import tokenize
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from runtime.errors import DataError

MAX_PIXELS = 64_000_000  # a larger image is no frame of a video, but may be a decompression bomb


def readlines(filename: str | Path) -> list[str]:
    """Return the lines of a text file, without their line ends.

    Raises:
        DataError: the file is missing or is not text.
    """
    try:
        return Path(filename).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{filename} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{filename} cannot be read as text: {error}") from None


def check_data_path(path: str | Path) -> None:
    """Raise a DataError where --data_path is no folder."""
    if not Path(path).is_dir():
        raise DataError(f"--data_path {path} does not exist; give the folder of the data (README, "
                        "'KITTI data')")


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file as a whole or not at all, whatever ends the program or the machine.

    Args:
        path: of the file; its folder is made.
        content: of the file, or what writes it into an open one.

    Raises:
        DataError: it cannot be written; what was there before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # others may write it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; free some space, or "
                        "choose another folder") from None
    finally:
        with suppress(OSError):  # it is there no more if it has its name, and else is no use
            temporary.unlink()


def lock(file: TextIO) -> bool:
    """Lock an open file for this process and those it starts with it; False if others have it.

    The lock ends with the last of these processes. Where there are no locks, as on Windows, this
    is True.
    """
    if os.name != "posix":
        return True
    import fcntl
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are file systems without locks
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk (on Windows, folders cannot be opened, and need not be)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def npy(array: np.ndarray) -> memoryview:
    """Return the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getbuffer()


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write a .npy file, as a whole or not at all."""
    write_atomically(path, npy(array))

# What a header or a pickle that is broken raises, in numpy, tokenize and pickle
BROKEN = (ValueError, EOFError, KeyError, TypeError, IndexError, AttributeError, RuntimeError,
          SyntaxError, ImportError, MemoryError, OverflowError, tokenize.TokenError,
          pickle.UnpicklingError)


def read_array(content: bytes, objects: bool = False) -> np.ndarray:
    """Read a .npy of plain values.

    Args:
        content: of the file.
        objects: also read, as the original's ground truth has it, an array of float arrays.

    Returns:
        An array that cannot be written to.

    Raises:
        ValueError: it is broken, says that it has more or fewer values than it has, or its pickle
            asks for more than float arrays.
    """
    try:
        return _read(content, objects)
    except BROKEN as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read(content: bytes, objects: bool) -> np.ndarray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                   else np.lib.format.read_array_header_2_0)
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject and not objects:
        raise ValueError("it holds objects, not numbers")
    if dtype.hasobject:
        return _FloatArrayUnpickler(stream, encoding="latin1").load()
    size, start = math.prod(shape) * dtype.itemsize, stream.tell()
    if size != len(content) - start:
        raise ValueError(f"its header says {size} bytes, it has {len(content) - start}")
    values = np.frombuffer(content, dtype, offset=start) if size else np.empty(0, dtype)
    return values.reshape(shape, order="F" if is_fortran else "C")


class _FloatArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and refuses everything else that a pickle can call."""

    ALLOWED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
                         ("_codecs", "encode")})  # the last as numpy's oldest pickles write bytes

    def find_class(self, module: str, name: str):
        """Return what a pickle names, if an array needs it."""
        package, last = module.partition(".")[0], module.rpartition(".")[2]
        if package in ("numpy", "_codecs") and (last, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which float arrays don't need")
