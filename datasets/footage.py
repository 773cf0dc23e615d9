"""Read the frames of an image, a folder of images, a video file or a webcam."""
from __future__ import annotations

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

from datasets.image_files import EXTENSIONS, IMAGE_ERRORS, list_files, read_array
from datasets.videos import decode_frames, rate_and_count
from runtime.errors import DataError, counted

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv",
                    ".3gp", ".3g2", ".ogv", ".ts", ".mts", ".m2ts", ".flv", ".f4v", ".asf", ".vob",
                    ".m2v", ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc"})
# Photos that Pillow cannot read everywhere, or that hold more than one image
OTHER_PHOTOS = frozenset({".heic", ".heif", ".avif", ".dng", ".cr2", ".nef", ".arw", ".gif"})
MAX_FPS = 1000  # a file that announces a higher frame rate is wrong
MIN_DECODED = 0.95  # share of the announced frames, which some formats only estimate
DEFAULT_FPS = 10.0  # frames per second where the rate is unknown, and of videos made of images
PREDICTION_SUFFIXES = ("_disp", "_depth")  # name endings of pictures that test_simple.py writes
MISSING = ("does not exist; give an image, a folder of images, a video file or the number of a "
           "webcam")
# errors are reported here, in one line; OpenCV 5, 4
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)


class Still(NamedTuple):
    """Name a frame that is decoded on demand.

    Attributes:
        label: names the frame in messages.
        name: path of the image without extension; for a video, the video's path and a number.
        read: decodes the frame to (3, H, W) uint8 RGB; raises a DataError if that fails.
        time: seconds from the first frame of a video; None for images.
    """

    label: str
    name: Path
    read: Callable[[], np.ndarray]
    time: float | None = None


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
        for number, (time, read) in enumerate(islice(self._frames(), self.max_frames)):
            yield Still(f"{self.source}, frame {number}", self.name / f"{number:06d}", read, time)

    def _rate_and_count(self) -> tuple[float, int | None]:
        if self.is_webcam:
            with self._webcam() as capture:
                rate, count = capture.get(cv2.CAP_PROP_FPS), None
        elif not Path(self.source).is_file():
            raise DataError(f"{self.source} {MISSING}")
        else:
            rate, count = rate_and_count(self.source)
        if not 0 < rate < MAX_FPS:
            rate = DEFAULT_FPS
            print(f"warning: the frame rate of {self.source} is unknown; assuming {rate:g} frames "
                  "per second", file=sys.stderr)
        return rate, count

    def _frames(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """Yield the time since the first frame, seconds, of each frame, and read its image."""
        number, start, time = 0, 0.0, 0.0
        for stamp, read in self._views() if self.is_webcam else decode_frames(self.source):
            if number == 0:
                start = stamp or 0.0
            elif stamp is not None and stamp - start > time:
                time = stamp - start
            else:  # formats without time stamps, recordings that were joined
                time += 1 / self.fps
            yield time, read
            number += 1
        if not number:
            raise DataError(f"{self.source} has no frame that can be decoded; convert it again, "
                            "for example to H.264 in .mp4")
        if self.count is not None and number < MIN_DECODED * self.count:
            print(f"\nwarning: {self.source} breaks off: it has {number} of the {self.count} "
                  "frames that it announces; copy it again", file=sys.stderr)

    def _views(self) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """Yield the time stamp, seconds, of each frame of a webcam, and read its image."""
        with self._webcam() as capture:
            while True:
                is_there, frame = capture.read()
                if not is_there:
                    return
                yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, partial(_from_opencv, frame)

    @contextmanager
    def _webcam(self) -> Iterator[cv2.VideoCapture]:
        capture = cv2.VideoCapture(int(self.source))
        try:
            if not capture.isOpened():
                raise DataError(f"webcam {self.source} cannot be opened; the first webcam is "
                                "usually 0")
            yield capture
        finally:
            capture.release()


def _find_images(path: Path, ext: str | None) -> list[Path]:
    """Return the image, or the images of the folder; print what is left out.

    Raises:
        DataError: the path is missing, has no image, or two images of one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} {MISSING}")
    wanted = EXTENSIONS if ext is None else {f".{ext.lstrip('.')}"}
    files = list_files(path)
    outputs = _find_predictions(files)
    files = [file for file in files if file not in outputs]
    found = [file for file in files if (file.suffix if ext else file.suffix.lower()) in wanted]
    taken = set(found)
    others = [file for file in files
              if file.suffix.lower() in EXTENSIONS | OTHER_PHOTOS and file not in taken]
    if not found:
        kind = "image" if ext is None else f"*.{ext.lstrip('.')}"
        advice = f"it has {_advise(others)}" if others else "is it the right folder?"
        raise DataError(f"{path} has no {kind}; {advice}")
    _check_names(found)
    _print_left_out(path, outputs, others)
    return found


def _advise(others: list[Path]) -> str:
    """Return the endings of images that are left out, and what to do to have them read."""
    endings = sorted({file.suffix for file in others})
    readable = [ending for ending in endings if ending.lower() in EXTENSIONS]
    return ", ".join(endings) + (f": pass --ext {readable[0][1:]}" if readable else
                                 ": convert them to JPEG or PNG")


def _find_predictions(files: list[Path]) -> set[Path]:
    """Return the pictures of an earlier test_simple.py: beside their image, or their array."""
    names = {file.name for file in files}
    stems = {file.stem for file in files if file.suffix.lower() in EXTENSIONS | OTHER_PHOTOS}
    return {file for file in files for suffix in PREDICTION_SUFFIXES
            if file.suffix.lower() in EXTENSIONS and file.stem.endswith(suffix)
            and (file.stem.removesuffix(suffix) in stems or f"{file.stem}.npy" in names)}


def _check_names(images: list[Path]) -> None:
    """Raise a DataError if two images have one name, as their outputs would have."""
    seen: dict[str, Path] = {}
    for image in images:
        if other := seen.get(image.stem):
            raise DataError(f"{other} and {image.name} would have outputs of one name; pass --ext, "
                            "or rename one of them")
        seen[image.stem] = image


def _print_left_out(folder: Path, outputs: set[Path], others: list[Path]) -> None:
    """Print one line about the files that are passed over."""
    parts = []
    if outputs:
        parts.append(f"{counted(len(outputs), 'output')} of an earlier run, such as "
                     f"{min(outputs).name}")
    if others:
        parts.append(f"{counted(len(others), 'image')} with other endings, {_advise(others)}")
    if parts:
        print(f"note: {folder}: left out {' and '.join(parts)}", file=sys.stderr)


def read_still(path: Path) -> np.ndarray:
    """Decode an image file to (3, H, W) uint8 RGB.

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        return read_array(path).transpose(2, 0, 1)
    except IMAGE_ERRORS as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def _from_opencv(frame: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) BGR to (3, H, W) RGB."""
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
