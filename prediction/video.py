"""Write H.264 video files frame by frame, as browsers and slides play them, whole or not at all."""
from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from runtime.errors import DataError, cannot_write
from runtime.packages import require_packages

ENCODER = "libx264"  # part of every PyAV of PyPI
# BT.709 in limited range, and said so: players guess the colours of other files by their size.
# Without B-frames: the frames are in order, so that MP4 tells the duration at variable rates too
OPTIONS = {"crf": "20", "bf": "0", "colorspace": "bt709", "color_primaries": "bt709",
           "color_trc": "bt709", "color_range": "tv"}
TICKS = 90_000  # of time stamps in a second


class VideoFile:
    """Write a video frame by frame; the file gets its name when it is complete.

    Args:
        path: an .mp4.
        fps: frames per second, where frames have no time.

    Raises:
        DataError: the file cannot be written, or PyAV or its encoder is missing.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self.fps, self.count = path, fps, 0
        self._temporary = path.with_name(f"{path.stem}.part{path.suffix}")
        self._container, self._stream, self._shape, self._ticks = None, None, None, -1

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Rename the temporary file to `path`, or delete it after an error."""
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())  # some file systems notice here that they are full
                self._temporary.replace(self.path)
        except OSError as error:
            if kind is None:  # otherwise the first error tells more
                raise cannot_write(self.path, error) from None
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Append an image.

        Args:
            image: (H, W, 3) uint8 RGB; every image has the size of the first.
            time: seconds from the first frame at which it is shown; rises.
        """
        if self._shape not in (None, image.shape):
            raise DataError(f"{self.path}: a frame has {image.shape[1]}x{image.shape[0]} pixels, "
                            f"the first {self._shape[1]}x{self._shape[0]}; all frames of a video "
                            "must have the same size")
        height, width = (side // 2 * 2 for side in image.shape[:2])  # 4:2:0 needs even sides
        if self._container is None:
            self._open(width, height)
        import av
        seconds = self.count / self.fps if time is None else time
        self._ticks = max(self._ticks + 1, round(seconds * TICKS))
        self._shape, self.count = image.shape, self.count + 1
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]))
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.duration = self._ticks, round(TICKS / self.fps)
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _open(self, width: int, height: int) -> None:
        require_packages(["av"], "av")
        import av
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path.parent} cannot be created: {error.strerror}") from None
        if ENCODER not in av.codecs_available:
            raise DataError(f"{self.path} cannot be written: this PyAV lacks the encoder "
                            f"{ENCODER}; type: pip install --force-reinstall av")
        try:
            # the index in front: players start before they have the whole file
            self._container = av.open(f"file:{self._temporary}", "w", format="mp4",
                                      options={"movflags": "+faststart"})
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._stream = self._container.add_stream(ENCODER, Fraction(self.fps).limit_denominator(
            1001), OPTIONS, width=width, height=height, pix_fmt="yuv420p",
            time_base=Fraction(1, TICKS))
