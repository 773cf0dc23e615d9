"""Write a video file frame by frame, and verify that it is complete."""
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import DataError

CODEC = "mp4v"  # part of every OpenCV


class VideoFile:
    """Write a video frame by frame; the file gets its name when it is complete.

    Args:
        path: an .mp4.
        fps: frames per second.

    Raises:
        DataError: the file cannot be written, or this OpenCV lacks the codec.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self.fps = path, round(fps, 2)  # MPEG-4 stores the rate as a short fraction
        self._temporary = path.with_name(f"{path.stem}.part{path.suffix}")
        self._writer, self._shape, self.count = None, None, 0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Rename the temporary file to `path`, or delete it after an error."""
        if self._writer is None:
            return
        self._writer.release()
        try:
            if kind is None:
                self._verify()
                self._temporary.replace(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def write(self, image: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB image; every image has the size of the first."""
        if self._shape not in (None, image.shape):
            raise DataError(f"{self.path}: a frame has {image.shape[1]}x{image.shape[0]} pixels, "
                            f"the first {self._shape[1]}x{self._shape[0]}; all frames of a video "
                            "must have the same size")
        height, width = (side // 2 * 2 for side in image.shape[:2])  # codecs need even sides
        if self._writer is None:
            self._open(width, height)
        self._shape, self.count = image.shape, self.count + 1
        self._writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))

    def _open(self, width: int, height: int) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path.parent} cannot be created: {error.strerror}") from None
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*CODEC),
                                       self.fps, (width, height))
        if not self._writer.isOpened():
            self._writer = None
            raise DataError(f"{self.path} cannot be written: this OpenCV lacks the codec {CODEC}, "
                            "or the folder is read-only; choose another --output_dir")

    def _verify(self) -> None:
        """Raise a DataError if frames are missing: OpenCV does not report a full disk."""
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self.count:
            raise DataError(f"{self.path} cannot be written: {found} of {self.count} frames are in "
                            "the file; the disk may be full, or limited by ulimit -f")
