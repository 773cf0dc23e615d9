"""A store of frames at training size, so that each image file is decoded and resized once."""
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

SIZE = struct.Struct("<2I")  # height and width of an image
GB = 1e9
ABANDONED = 3600  # seconds after which a temporary file has no writer any more


class FrameCache:
    """Frames of one size, memory-mapped uint8, one file each, in a folder of that size.

    A file holds a frame and, in eight bytes more, the size of its image. Its name is a hash of the
    image's path, size and time of change, so a changed image is read anew. Files appear whole or
    not at all, and none changes afterwards: any number of processes may read and fill the store at
    once, and be killed. When it cannot be written, one line says so and images are read from their
    files from then on.

    Args:
        folder: made if it does not exist.
        height: of the frames.
        width: the same.
        exact: whether `images.resize` makes them as Pillow does, to the bit.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, height: int, width: int, exact: bool = False):
        resizer = "pillow" if exact or not HAS_LANCZOS else "torch"
        self.folder = Path(folder).expanduser() / f"{width}x{height}-{resizer}"
        self.shape = (3, height, width)
        self.size = 3 * height * width
        self._stopped = torch.zeros(1, dtype=torch.bool).share_memory_()  # by any worker, for all
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--cache_dir {folder} cannot be made: {error.strerror}; choose "
                            "another folder") from None

    def read(self, path: str | Path, make: Callable[[str | Path], Resized]) -> Resized:
        """Return a frame, from the store if it has it, or else made and stored.

        Args:
            path: of the image file.
            make: returns the (3, height, width) uint8 frame of such a file.

        Raises:
            FileNotFoundError: there is no such image file.
        """
        entry = self._entry(path)
        try:
            if entry.stat().st_size == self.size + SIZE.size:  # a power cut may leave a shorter one
                content = torch.from_file(str(entry), size=self.size + SIZE.size,
                                          dtype=torch.uint8)
                return Resized(content[:self.size].view(self.shape),
                               SIZE.unpack(content[self.size:].numpy()))
        except (OSError, RuntimeError):  # not there (any more)
            pass
        frame = make(path)
        if not self._stopped:
            self._write(entry, frame)
        return frame

    def _entry(self, path: str | Path) -> Path:
        status = os.stat(path)
        words = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
        name = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.rgb"

    def _write(self, entry: Path, frame: Resized) -> None:
        temporary = entry.with_suffix(f".{uuid.uuid4().hex}.tmp")  # no other machine's either
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
        """Remove what killed writers have left."""
        for file in self.folder.glob("*/*.tmp"):
            with suppress(OSError):  # its writer lives, and has renamed it
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()

    def describe(self, frames: int) -> str:
        """Return a line on the space that a run reading so many frames needs."""
        held = sum(1 for _ in self.folder.glob("*/*.rgb"))
        free = shutil.disk_usage(self.folder).free
        line = (f"cache: {frames} frames at {self.size / 1e6:.2f} MB take "
                f"{frames * self.size / GB:.1f} GB in {self.folder}, which has {held} already; "
                f"{free / GB:.1f} GB are free")
        if (frames - held) * self.size > free:
            line += ": not enough, the rest will be read from its files each time"
        return line
