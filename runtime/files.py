"""Read text and arrays safely, write files atomically, and lock folders."""
from __future__ import annotations

import glob
import io
import json
import math
import os
import pickle
import re
import shutil
import socket
import sys
import tempfile
import time
import tokenize
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from runtime.errors import DataError, UsageError, cannot_write

MAX_PIXELS = 64_000_000  # of an image; a larger image may be a decompression bomb
LOCK_NAME = ".lock"      # hidden, so that listings of the folder do not show it
OWNER = re.compile(r"\.(?P<pid>[0-9]+)@(?P<host>[^/]+)\.(tmp|unfinished)$")
ABANDONED = 3600  # seconds without a write, after which a temporary file has lost its writer


def readlines(filename: str | Path) -> list[str]:
    """Return the lines of a text file in UTF-8, UTF-16 or UTF-32, without line ends.

    Files of Windows editors begin with U+FEFF, and so does each part of a file joined from them;
    this character is left out. `json.loads` finds the encoding of bytes by the same rules.

    Raises:
        DataError: the file is missing or is not text.
    """
    try:
        content = Path(filename).read_bytes()
        text = content.decode(json.detect_encoding(content))
    except FileNotFoundError:
        raise DataError(f"{filename} is missing") from None
    except OSError as error:
        raise DataError(f"{filename} cannot be read as text: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{filename} cannot be read as text: {error}; if it is text, save it as "
                        "UTF-8") from None
    return text.replace("\ufeff", "").splitlines()


def check_data_path(path: str | Path) -> None:
    """Raise a DataError if --data_path is not a folder."""
    if not os.path.isdir(path):
        fault = "is a file" if os.path.isfile(path) else "does not exist"
        raise DataError(f"--data_path {path} {fault}; give the folder of the data (docs/kitti.md)")


def check_out_dir(folder: str | Path) -> None:
    """Make the folder of --eval_out_dir, and raise a DataError if no file can be written there.

    Raises:
        DataError: the folder cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error, "--eval_out_dir") from None


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a complete file or leave the former file, even after a kill or a power cut.

    Args:
        path: the file; its folder is created if missing.
        content: bytes, or a function that writes them to an open file.

    Raises:
        DataError: the file cannot be written; the former file is unchanged.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):  # it is missing after a successful replace
            temporary.unlink()


def temporary_path(path: Path) -> Path:
    """Return a new name beside `path`, unique on all machines, that names its owner."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.{_owner()}.tmp")


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders whose owner has ended.

    A process of this machine has ended if its number is free. A process of another machine must
    have ended if its temporary file has not been written for an hour; its folders stay.
    """
    for path in paths:
        with suppress(OSError):  # its owner has just renamed it
            if _is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _owner() -> str:
    """Return the number and the machine of this process, as `OWNER` finds them in a name."""
    return f"{os.getpid()}@{socket.gethostname()}"


def _is_abandoned(path: Path) -> bool:
    """Return whether the process that writes a temporary file or folder has ended."""
    owner = OWNER.search(path.name)
    if owner and owner["host"] == socket.gethostname() and not _is_alive(int(owner["pid"])):
        return True
    return path.is_file() and time.time() - path.stat().st_mtime > ABANDONED


def _is_alive(pid: int) -> bool:
    """Return whether a process of this machine is alive; on Windows, assume that it is."""
    if os.name == "posix":
        try:
            os.kill(pid, 0)  # signal 0 only asks
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # a process of another user
            pass
    return True


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Provide a temporary folder that becomes `out` at the end, or is removed after an error.

    Temporary folders of earlier runs that were killed are removed.

    Raises:
        DataError: `out` has files already, or cannot be written.
    """
    path = Path(os.path.abspath(out))
    remove_abandoned(path.parent.glob(f"{glob.escape(path.name)}.*.unfinished"))
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{out} exists; remove it or choose another folder")
    unfinished = path.with_name(f"{path.name}.{_owner()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run whose number this process got
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise cannot_write(out, error) from None
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


def lock_run(folder: Path) -> io.FileIO | None:
    """Claim a run's folder for this process, until the returned file is closed or the process ends.

    This is a POSIX record lock, which belongs to the process alone: after a kill it is free at
    once, though worker processes that were forked live on for seconds, and NFS passes it on to
    other machines. The locks of `lock_folder` do neither.

    Returns:
        The file that holds the lock and names this process; None, after a warning, if the folder
        cannot be locked.

    Raises:
        UsageError: another process has claimed the folder.
        DataError: the folder cannot be made.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        import fcntl  # missing on Windows
        file = path.open("a+b", buffering=0)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both errors
            file.seek(0)
            owner = file.read().decode(errors="replace") or "another process"
            raise UsageError(f"{folder} belongs to {owner}; wait until it has ended, or choose "
                             "another --model_name") from None
    except (OSError, ImportError) as error:
        print(f"warning: {path} cannot be locked ({error}); start no second run of this name",
              file=sys.stderr, flush=True)
        return None
    with suppress(OSError):  # on a full disk, the lock holds without the name of its owner
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since "
                   f"{time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
    return file


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
        with warnings.catch_warnings():  # about the headers and pickles of Python 2
            warnings.simplefilter("ignore")
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


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it if that is on another file system.

    Raises:
        OSError: the source is missing, or the target cannot be written.
    """
    try:
        os.link(source.resolve(), target)  # resolved, because Linux would link to a symbolic link
    except OSError:
        shutil.copyfile(source, target)
