"""Small things with no better home: errors, text files, pictures, time."""
from __future__ import annotations

import io
import os
import signal
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import numpy as np

if TYPE_CHECKING:  # every script imports this file to read its command line, which needs no torch
    from torch import Tensor

BRIGHTEST = 95  # percentile of a disparity map from which on it is painted white


class DataError(Exception):
    """A file or value of the user's is not what it must be.

    The message is for a person: what was found, what was expected, what to type. It is one line,
    also after a loader's worker has wrapped it in its own traceback.
    """

    status = 1  # of the script that ends with it

    def __str__(self) -> str:
        own_words = super().__str__().rpartition("DataError: ")[2]
        return " ".join(own_words.split())


class UsageError(DataError):
    """A flag has a value that does not exist, which only the part that reads it can know."""

    status = 2


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; what a user can cause becomes one line on stderr and a status."""
    try:
        main()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        print(f"error: a process that reads images has died: {' '.join(str(error).split())} Where "
              "memory is short, lower --num_workers or --batch_size", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read what is printed has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


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


def normalize_image(x: Tensor) -> Tensor:
    """Stretch a tensor of any shape to [0, 1], for showing; a constant one becomes 0."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp(min=1e-12)


def colorize(disp: np.ndarray, disp_range: tuple[float, float] | None = None,
             colormap: str = "magma") -> np.ndarray:
    """Paint a disparity map, in matplotlib's magma near is bright.

    Args:
        disp: (H, W).
        disp_range: what is painted black, and from where on all is white; if None, the map's
            minimum and its percentile `BRIGHTEST`.
        colormap: one of OpenCV's.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    import cv2
    low, high = disp_range or (disp.min(), np.percentile(disp, BRIGHTEST))
    level = np.clip((disp - low) / max(high - low, 1e-12), 0, 1)
    painted = cv2.applyColorMap((255 * level).astype(np.uint8),
                                getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return cv2.cvtColor(painted, cv2.COLOR_BGR2RGB)


def sec_to_hm_str(t: float) -> str:
    """Write seconds as hours, minutes and seconds: 10239 -> 02h50m39s."""
    minutes, seconds = divmod(int(t), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}h{minutes:02d}m{seconds:02d}s"
