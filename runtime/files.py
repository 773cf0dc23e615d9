"""Read text and arrays safely, write files atomically, and lock folders."""
from __future__ import annotations

import io
import math
import os
import pickle
import shutil
import tokenize
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from runtime.errors import DataError

MAX_PIXELS = 64_000_000  # of an image; a larger image may be a decompression bomb
LOCK_NAME = ".lock"      # hidden, so that listings of the folder do not show it


def readlines(filename: str | Path) -> list[str]:
    """Return the lines of a text file, without line ends.

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
    """Raise a DataError if --data_path is not a folder."""
    if not Path(path).is_dir():
        raise DataError(f"--data_path {path} does not exist; give the folder of the data "
                        "(docs/kitti.md)")


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a complete file or leave the former file, even after a kill or a power cut.

    Args:
        path: the file; its folder is created if missing.
        content: bytes, or a function that writes them to an open file.

    Raises:
        DataError: the file cannot be written; the former file is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # unique among processes
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
        with suppress(OSError):  # it is missing after a successful replace
            temporary.unlink()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Provide a temporary folder that becomes `out` at the end, or is removed after an error.

    Raises:
        DataError: `out` has files already, or cannot be written.
    """
    path = Path(os.path.abspath(out))
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{out} exists; remove it or choose another folder")
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def lock_folder(folder: Path) -> AcquireReturnProxy:
    """Wait until no other process has locked a folder, then lock it: `with lock_folder(folder):`.

    Raises:
        DataError: the folder cannot be written, or its file system has no locks.
    """
    try:
        return FileLock(folder / LOCK_NAME).acquire()
    except (OSError, NotImplementedError) as error:
        raise DataError(f"{folder} cannot be locked: {error}; use a folder that you may write to, "
                        "on a file system with locks") from None


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk (Windows cannot open folders, and does not need this)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def npy(array: np.ndarray) -> memoryview:
    """Encode an array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getbuffer()


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array to a .npy file, atomically."""
    write_atomically(path, npy(array))


# What numpy, tokenize and pickle raise for a broken header or pickle
BROKEN = (ValueError, EOFError, KeyError, TypeError, IndexError, AttributeError, RuntimeError,
          SyntaxError, ImportError, MemoryError, OverflowError, tokenize.TokenError,
          pickle.UnpicklingError)


def read_array(content: bytes, objects: bool = False) -> np.ndarray:
    """Decode a .npy file without running code from it.

    Args:
        content: the bytes of the file.
        objects: also accept an object array of float arrays, as in the original's ground truth.

    Returns:
        A read-only array.

    Raises:
        ValueError: the file is broken, its size differs from its header's, or its pickle asks for
            anything but float arrays.
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
    """Build NumPy arrays from a pickle, and refuse every other function that a pickle can call."""

    ALLOWED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
                         ("_codecs", "encode")})  # _codecs: bytes in NumPy's oldest pickles

    def find_class(self, module: str, name: str):
        """Return the function or class that a pickle names, if arrays need it."""
        package, last = module.partition(".")[0], module.rpartition(".")[2]
        if package in ("numpy", "_codecs") and (last, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which float arrays don't need")
