"""Footage: the frames of an image, a folder, a video file or a camera; and videos to write."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from utils import DataError

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv",
                    ".3gp", ".ogv", ".ts"})
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG"}
DEFAULT_FPS = 10.0  # of a video that is made of frames which have no rate of their own
MADE = ("_disp", "_depth")  # ends of the names of pictures that prediction makes
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said here, in a line
cv2.utils.logging.setLogLevel(0)


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
        self.is_camera = str(source).isdigit() and not path.exists()
        self.is_video = self.is_camera or (path.suffix.lower() in VIDEOS and not path.is_dir())
        self.name = Path(f"camera_{source}") if self.is_camera else path.with_suffix("")
        self.fps = None
        if self.is_video:
            with self._opened() as capture:
                rate, count = (capture.get(key) for key in (cv2.CAP_PROP_FPS,
                                                            cv2.CAP_PROP_FRAME_COUNT))
                self.fps = rate if 0 < rate < 1000 else DEFAULT_FPS
                self.count = int(count) if 0 < count < 1e9 and not self.is_camera else None
        else:
            self.images = _find_images(path, ext)
            self.name = path if path.is_dir() else self.name
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
    found = sorted(file for file in path.iterdir()
                   if (file.suffix if ext else file.suffix.lower()) in wanted
                   and not file.stem.endswith(MADE))
    if not found:
        what = "image" if ext is None else f"*.{ext.lstrip('.')}"
        raise DataError(f"{path} has no {what}; name their extension with --ext")
    return found


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


class VideoFile:
    """A video that is written frame by frame, and has its name only when it is whole.

    Args:
        path: with an extension of `CODECS`.
        fps: frames a second.

    Raises:
        DataError: it cannot be written, or OpenCV has no such codec here.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self.fps = path, fps
        self._temporary = path.with_name(f"{path.stem}.part{path.suffix}")
        self._writer = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Give the file its name, or remove it if an error has ended it."""
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._writer is not None:
            self._temporary.replace(self.path)
        else:
            with suppress(OSError):
                self._temporary.unlink()

    def write(self, image: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB image; all have the size of the first."""
        height, width = (side // 2 * 2 for side in image.shape[:2])  # codecs want even sides
        if self._writer is None:
            self._open(width, height)
        self._writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))

    def _open(self, width: int, height: int) -> None:
        codec = CODECS.get(self.path.suffix)
        if codec is None:
            raise DataError(f"{self.path} is no video that can be written; its extension must be "
                            f"one of {', '.join(CODECS)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path.parent} cannot be made: {error.strerror}") from None
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*codec),
                                       self.fps, (width, height))
        if not self._writer.isOpened():
            raise DataError(f"{self.path} cannot be written: OpenCV has no codec {codec} here, or "
                            "the folder is not to be written; choose another --output_dir")
