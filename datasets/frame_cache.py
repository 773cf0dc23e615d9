"""Store frames at training size, so that each image file is decoded and resized once."""
from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from datasets.images import HAS_LANCZOS, Resized
from runtime.errors import DataError

SIZE = struct.Struct("<2I")  # height and width of the original image
GB = 1e9
ABANDONED = 3600  # seconds after which the writer of a temporary file must have died


class FrameCache:
    """Store frames of one size as memory-mapped uint8 files, one file per image.

    A file holds a frame, followed by eight bytes with the size of the original image. The file name
    is a hash of the image's path, size and modification time, so a changed image is decoded again.
    Files appear whole and never change: any number of processes may read and fill the store at the
    same time, and may be killed at any time. When writing fails, one warning is printed, and images
    are read from their own files from then on.

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
        self.folder = Path(folder).expanduser() / f"{width}x{height}-{resizer}"
        self.shape = (3, height, width)
        self.size = 3 * height * width
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
        try:
            if entry.stat().st_size == self.size + SIZE.size:  # shorter after a power cut
                content = torch.from_file(str(entry), size=self.size + SIZE.size,
                                          dtype=torch.uint8)
                return Resized(content[:self.size].view(self.shape),
                               SIZE.unpack(content[self.size:].numpy()))
        except (OSError, RuntimeError):  # missing, or just deleted
            pass
        frame = make(path)
        if not self._stopped:
            self._write(entry, frame)
        return frame

    def _entry_path(self, path: str | Path) -> Path:
        """Return the path of the stored frame of an image file."""
        status = os.stat(path)
        words = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
        name = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.rgb"

    def _write(self, entry: Path, frame: Resized) -> None:
        """Store a frame; if that fails, stop storing and warn once."""
        temporary = entry.with_suffix(f".{uuid.uuid4().hex}.tmp")  # unique on all machines
        try:
            entry.parent.mkdir(exist_ok=True)
            temporary.write_bytes(frame.image.numpy().tobytes() + SIZE.pack(*frame.original_size))
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
        for file in self.folder.glob("*/*.tmp"):
            with suppress(OSError):  # its writer is alive, and has renamed it
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()

    def describe(self, frames: int) -> str:
        """Return a line about the disk space that a run on `frames` images needs and has."""
        held = sum(1 for _ in self.folder.glob("*/*.rgb"))
        free = shutil.disk_usage(self.folder).free
        line = (f"cache: {frames} frames at {self.size / 1e6:.2f} MB take "
                f"{frames * self.size / GB:.1f} GB in {self.folder}, which has {held} already; "
                f"{free / GB:.1f} GB are free")
        if (frames - held) * self.size > free:
            line += ": not enough, the rest will be read from its files each time"
        return line
