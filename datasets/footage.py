"""Footage: the frames of an image, a folder, a video file or a camera; and videos to write."""
from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.folder_dataset import EXTENSIONS
from datasets.images import IMAGE_ERRORS, read_image
from runtime.errors import DataError

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv",
                    ".3gp", ".ogv", ".ts"})
FASTEST = 1000  # frames a second; what files say of more is a mistake
WHOLE = 0.95  # of the frames that a video announces, which some formats estimate
DEFAULT_FPS = 10.0  # of a video that is made of frames which have no rate of their own
MADE = ("_disp", "_depth")  # ends of the names of pictures that prediction makes
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said here, in a line
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)  # OpenCV 5, 4


class Still(NamedTuple):
    """A frame that has not been decoded yet.

    Attributes:
        label: what it is called in messages.
        name: path of the image without its extension; of a video's frame, the video's and a number.
        read: returns it, (3, H, W) uint8 RGB; raises a DataError if it is no image.
    """

    label: str
    name: Path
    read: Callable[[], Tensor]


class Footage:
    """The frames of a source, in their order.

    Args:
        source: an image, a folder of images, a video file, or the number of a camera.
        ext: of the images in a folder; any that is known if None.
        most: frames to end after, all if None.

    Attributes:
        name: path of the source without its extension.
        is_video: whether it is a video file or a camera: its frames come one after the other.
        fps: frames a second of a video, else None.
        count: how many frames there are, None where nothing tells.

    Raises:
        DataError: there is no such source, or it has no frames.
    """

    def __init__(self, source: str | Path, ext: str | None = None, most: int | None = None):
        path = Path(source)
        self.source, self.most = source, most
        self.is_camera = bool(re.fullmatch("[0-9]{1,3}", str(source))) and not path.exists()
        self.is_video = self.is_camera or (path.suffix.lower() in VIDEOS and not path.is_dir())
        self.name = Path(f"camera_{source}") if self.is_camera else (
            path if path.is_dir() else path.with_suffix(""))
        self.fps = None
        if self.is_video:
            self.fps, self.count = self._rate_and_count()
        else:
            self.images = _find_images(path, ext)
            self.count = len(self.images)
        self.count = min(filter(None, (self.count, most)), default=None)

    def __iter__(self) -> Iterator[Still]:
        """Yield the frames; an image is decoded when it is read, a video's frame when it comes."""
        if not self.is_video:
            for path in self.images[:self.most]:
                yield Still(str(path), path.with_suffix(""), partial(read_still, path))
            return
        for number, frame in enumerate(islice(self._frames(), self.most)):
            yield Still(f"{self.source}, frame {number}", self.name / f"{number:06d}",
                        partial(_from_opencv, frame))

    def _rate_and_count(self) -> tuple[float, int | None]:
        with self._opened() as capture:
            rate = capture.get(cv2.CAP_PROP_FPS)
            count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not 0 < rate < FASTEST:
            rate = DEFAULT_FPS
            print(f"warning: {self.source} does not say its rate; it is taken for {rate:g} frames "
                  "a second", file=sys.stderr)
        return rate, int(count) if 0 < count < 1e9 and not self.is_camera else None

    def _frames(self) -> Iterator[np.ndarray]:
        number = 0
        with self._opened() as capture:
            while True:
                is_there, frame = capture.read()
                if not is_there:
                    break
                yield frame
                number += 1
        if not number:
            raise DataError(f"{self.source} has no frame that can be decoded; convert it again, "
                            "for example to H.264 in .mp4")
        if self.count is not None and number < WHOLE * self.count:
            print(f"\nwarning: {self.source} breaks off: it has {number} of the {self.count} "
                  "frames that it announces; copy it again", file=sys.stderr)

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoCapture]:
        if not self.is_camera and not Path(self.source).is_file():
            raise DataError(f"{self.source} does not exist; give an image, a folder of images, a "
                            "video file or the number of a camera")
        capture = cv2.VideoCapture(int(self.source) if self.is_camera else str(self.source))
        try:
            if not capture.isOpened():
                what = "is no camera of this machine" if self.is_camera else (
                    f"cannot be read as a video ({Path(self.source).stat().st_size} bytes)")
                cure = "0 is usually the first" if self.is_camera else (
                    "copy it again, or convert it to H.264 in .mp4")
                raise DataError(f"{self.source} {what}; {cure}")
            yield capture
        finally:
            capture.release()


def _find_images(path: Path, ext: str | None) -> list[Path]:
    """Return the image, or those in the folder, without pictures that prediction made."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give an image, a folder of images, a video file "
                        "or the number of a camera")
    wanted = EXTENSIONS if ext is None else {f".{ext.lstrip('.')}"}
    try:
        files = [file for file in path.iterdir() if not file.stem.endswith(MADE)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    found = sorted((file for file in files
                    if (file.suffix if ext else file.suffix.lower()) in wanted),
                   key=_numbers_and_words)
    if not found:
        what = "image" if ext is None else f"*.{ext.lstrip('.')}"
        others = sorted({file.suffix for file in files if file.suffix.lower() in EXTENSIONS})
        cure = f"it has {', '.join(others)}: pass --ext {others[0][1:]}" if others else (
            "is it the right folder?")
        raise DataError(f"{path} has no {what}; {cure}")
    return found


def _numbers_and_words(path: Path) -> list:
    """Return what puts 2.png before 10.png."""
    return [int(part) if part.isdecimal() else part
            for part in re.split("([0-9]+)", path.name)]


def read_still(path: Path) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB.

    Raises:
        DataError: it is no image.
    """
    try:
        return read_image(path)
    except IMAGE_ERRORS as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def _from_opencv(frame: np.ndarray) -> Tensor:
    return torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


