"""Store frames at training size, so that each image file is decoded and resized once."""
from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from datasets.images import HAS_LANCZOS, Resized
from runtime.errors import DataError, counted
from runtime.files import remove_abandoned, temporary_path

GB = 1e9
WORD = 8  # bytes that the checksum multiplies at once


class FrameCache:
    """Store frames of one size as uint8 files, one file per image.

    A file holds a frame, the size of the original image and a checksum; a file that was cut or
    changed is made again. The file name is a hash of the image's path, size and modification time,
    so a changed image is decoded again. Files appear whole and flushed to the disk: any number of
    processes may read and fill the store at the same time, and may be killed at any time. When
    writing fails, one warning is printed, and images are read from their own files from then on.

    Args:
        folder: parent folder of the store; made if missing.
        height: height of the frames, pixels.
        width: width of the frames, pixels.
        exact: whether `images.resize` makes the frames bit for bit as Pillow does.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, height: int, width: int, exact: bool = False):
        resizer = "pillow" if exact or not HAS_LANCZOS else "torch"
        self.folder = Path(folder) / f"{width}x{height}-{resizer}"
        self.shape = (3, height, width)
        self.size = 3 * height * width
        # odd factors: a change of a single word always changes the checksum
        self._factors = np.random.default_rng(0).integers(
            2**63, size=-(-self.size // WORD) + 1, dtype=np.uint64) | np.uint64(1)
        self._stopped = torch.zeros(1, dtype=torch.bool).share_memory_()  # one worker stops all
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--cache_dir {folder} cannot be made: {error.strerror}; choose "
                            "another folder") from None

    def read(self, path: str | Path, make: Callable[[str | Path], Resized]) -> Resized:
        """Return the frame of an image file from the store, or make and store it.

        Args:
            path: the image file.
            make: function that decodes an image file to a (3, height, width) uint8 frame.

        Raises:
            FileNotFoundError: the image file is missing.
        """
        entry = self._entry_path(path)
        frame = self._load(entry)
        if frame is None:
            frame = make(path)
            if not self._stopped:
                self._write(entry, frame)
        return frame

    def _load(self, entry: Path) -> Resized | None:
        """Read a stored frame; return None if it is missing, cut or changed."""
        try:
            content = np.fromfile(entry, np.uint8)  # a file mapped to memory ends a process if cut
        except OSError:
            return None
        if content.size != WORD * (len(self._factors) + 1):
            return None
        words = content.view(np.uint64)
        if self._checksum(words[:-1]) != words[-1]:
            return None
        height, width = content[-2 * WORD:-WORD].view(np.uint32).tolist()
        return Resized(torch.from_numpy(content[:self.size]).view(self.shape), (height, width))

    def _checksum(self, words: np.ndarray) -> np.uint64:
        """Return the sum of all words, each times its own factor, modulo 2^64."""
        return np.dot(words, self._factors)  # thrice as fast as zlib.crc32

    def _entry_path(self, path: str | Path) -> Path:
        """Return the path of the stored frame of an image file."""
        status = os.stat(path)
        words = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
        name = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.rgb"

    def _write(self, entry: Path, frame: Resized) -> None:
        """Store a frame; if that fails, stop storing and warn once."""
        content = np.zeros(WORD * (len(self._factors) + 1), np.uint8)
        content[:self.size] = frame.image.numpy().ravel()
        content[-2 * WORD:-WORD].view(np.uint32)[:] = frame.original_size
        words = content.view(np.uint64)
        words[-1] = self._checksum(words[:-1])
        temporary = temporary_path(entry)
        try:
            entry.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # before the name: a crash leaves no empty frame
            os.replace(temporary, entry)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            if not self._stopped:
                self._stopped.fill_(True)
                print(f"\nwarning: --cache_dir {self.folder} cannot be written any more "
                      f"({error.strerror}); going on without caching more frames",
                      file=sys.stderr, flush=True)

    def remove_abandoned(self) -> None:
        """Remove the temporary files of writers that were killed."""
        remove_abandoned(self.folder.glob("*/*.tmp"))

    def describe(self, frames: int) -> str:
        """Return a line about the disk space that a run on `frames` images needs and has."""
        held = sum(1 for _ in self.folder.glob("*/*.rgb"))
        free = shutil.disk_usage(self.folder).free
        line = (f"cache: {counted(frames, 'frame')} at {self.size / 1e6:.2f} MB take "
                f"{frames * self.size / GB:.1f} GB in {self.folder}, which has {held} already; "
                f"{free / GB:.1f} GB are free")
        if (frames - held) * self.size > free:
            line += ": not enough, the rest will be read from its files each time"
        return line
