"""Read the frames of an image, a folder of images, a video file or a webcam."""
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
from datasets.images import IMAGE_ERRORS, natural_order, read_image
from runtime.errors import DataError

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv",
                    ".3gp", ".ogv", ".ts"})
MAX_FPS = 1000  # a file that announces a higher frame rate is wrong
MIN_DECODED = 0.95  # share of the announced frames, which some formats only estimate
DEFAULT_FPS = 10.0  # frames per second where the rate is unknown, and of videos made of images
PREDICTION_SUFFIXES = ("_disp", "_depth")  # name endings of pictures that test_simple.py writes
MISSING = ("does not exist; give an image, a folder of images, a video file or the number of a "
           "webcam")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # errors are reported here, in one line
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)  # OpenCV 5, 4


class Still(NamedTuple):
    """Name a frame that is decoded on demand.

    Attributes:
        label: names the frame in messages.
        name: path of the image without extension; for a video, the video's path and a number.
        read: decodes the frame to (3, H, W) uint8 RGB; raises a DataError if that fails.
    """

    label: str
    name: Path
    read: Callable[[], Tensor]


class Footage:
    """Iterate over the frames of a source, in order.

    Args:
        source: an image, a folder of images, a video file, or the number of a webcam.
        ext: extension of the images in a folder (default: every extension of `EXTENSIONS`).
        max_frames: number of frames to stop after (default: all frames).

    Attributes:
        name: path of the source without extension.
        is_webcam: whether the source is a webcam.
        is_video: whether the source is a video file or a webcam, which is read sequentially.
        fps: frames per second of a video; None for images.
        count: number of frames; None if unknown.

    Raises:
        DataError: the source is missing, cannot be opened, or is a folder without images.
    """

    def __init__(self, source: str | Path, ext: str | None = None, max_frames: int | None = None):
        path = Path(source)
        self.source, self.max_frames = source, max_frames
        self.is_webcam = bool(re.fullmatch("[0-9]{1,3}", str(source))) and not path.exists()
        self.is_video = self.is_webcam or (path.suffix.lower() in VIDEOS and not path.is_dir())
        if self.is_webcam:
            self.name = Path(f"camera_{source}")
        else:
            self.name = path if path.is_dir() else path.with_suffix("")
        self.fps = None
        if self.is_video:
            self.fps, self.count = self._rate_and_count()
        else:
            self.images = _find_images(path, ext)
            self.count = len(self.images)
        self.count = min(filter(None, (self.count, max_frames)), default=None)

    def __iter__(self) -> Iterator[Still]:
        """Yield the frames; images are decoded by `read`, frames of a video at once."""
        if not self.is_video:
            for path in self.images[:self.max_frames]:
                yield Still(str(path), path.with_suffix(""), partial(read_still, path))
            return
        for number, frame in enumerate(islice(self._frames(), self.max_frames)):
            yield Still(f"{self.source}, frame {number}", self.name / f"{number:06d}",
                        partial(_from_opencv, frame))

    def _rate_and_count(self) -> tuple[float, int | None]:
        with self._opened() as capture:
            rate = capture.get(cv2.CAP_PROP_FPS)
            count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not 0 < rate < MAX_FPS:
            rate = DEFAULT_FPS
            print(f"warning: the frame rate of {self.source} is unknown; assuming {rate:g} frames "
                  "per second", file=sys.stderr)
        return rate, int(count) if 0 < count < 1e9 and not self.is_webcam else None

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
        if self.count is not None and number < MIN_DECODED * self.count:
            print(f"\nwarning: {self.source} breaks off: it has {number} of the {self.count} "
                  "frames that it announces; copy it again", file=sys.stderr)

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoCapture]:
        if not self.is_webcam and not Path(self.source).is_file():
            raise DataError(f"{self.source} {MISSING}")
        capture = cv2.VideoCapture(int(self.source) if self.is_webcam else str(self.source))
        try:
            if not capture.isOpened() and self.is_webcam:
                raise DataError(f"webcam {self.source} cannot be opened; the first webcam is "
                                "usually 0")
            if not capture.isOpened():
                raise DataError(f"{self.source} cannot be read as a video "
                                f"({Path(self.source).stat().st_size} bytes); copy it again, or "
                                "convert it to H.264 in .mp4")
            yield capture
        finally:
            capture.release()


def _find_images(path: Path, ext: str | None) -> list[Path]:
    """Return the image, or the images of the folder, without pictures of test_simple.py."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} {MISSING}")
    wanted = EXTENSIONS if ext is None else {f".{ext.lstrip('.')}"}
    try:
        files = [file for file in path.iterdir() if not file.stem.endswith(PREDICTION_SUFFIXES)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    found = sorted((file for file in files
                    if (file.suffix if ext else file.suffix.lower()) in wanted),
                   key=natural_order)
    if not found:
        kind = "image" if ext is None else f"*.{ext.lstrip('.')}"
        others = sorted({file.suffix for file in files if file.suffix.lower() in EXTENSIONS})
        advice = f"it has {', '.join(others)}: pass --ext {others[0][1:]}" if others else (
            "is it the right folder?")
        raise DataError(f"{path} has no {kind}; {advice}")
    return found


def read_still(path: Path) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB.

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        return read_image(path)
    except IMAGE_ERRORS as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def _from_opencv(frame: np.ndarray) -> Tensor:
    """Convert (H, W, 3) BGR to (3, H, W) RGB."""
    return torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
