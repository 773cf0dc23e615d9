"""Decode video files with PyAV: every container and codec of FFmpeg, upright, by time stamps."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import DataError
from runtime.packages import require_packages

if TYPE_CHECKING:  # imported where a video is read: images do not need PyAV
    import av

UNTAGGED = 2     # FFmpeg's number of an unknown colour matrix
HD_HEIGHT = 720  # pixels; players take untagged videos from this height on for BT.709, else BT.601


def rate_and_count(path: str | Path) -> tuple[float, int | None]:
    """Return the mean frames per second of a video, 0 if unknown, and the number of its frames.

    The number is None where the file neither has nor allows to estimate it.

    Raises:
        DataError: the file cannot be read as a video.
    """
    with _opened(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / 1e6
        return rate, stream.frames or round(seconds * rate) or None


def decode_frames(path: str | Path) -> Iterator[tuple[float | None, Callable[[], np.ndarray]]]:
    """Yield the time stamp, seconds, of each frame and a function that returns its image.

    The time stamp is None in formats without any. Frames that are broken are left out, and the
    frames of a file that breaks off end early.

    Raises:
        DataError: the file cannot be read as a video.
    """
    import av
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:  # the frames up to the next key frame may be lost
                    continue
                for frame in frames:
                    yield frame.time, partial(_to_image, frame)
        except av.FFmpegError:  # the caller compares the number of frames
            return


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file and its first picture stream."""
    require_packages(["av"], "av")
    import av
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")  # "a:b.mp4" is no protocol
    except (OSError, av.FFmpegError):
        raise _unreadable(path) from None
    with container:
        if not container.streams.video:
            raise _unreadable(path)
        yield container, container.streams.video[0]


def _unreadable(path: str | Path) -> DataError:
    return DataError(f"{path} cannot be read as a video ({Path(path).stat().st_size} bytes); copy "
                     "it again, or convert it to H.264 in .mp4")


def _to_image(frame: av.VideoFrame) -> np.ndarray:
    """Convert a frame to (3, H, W) uint8 RGB, by its colour matrix and range, and turn it."""
    is_hd = frame.colorspace == UNTAGGED and frame.height >= HD_HEIGHT
    image = frame.to_ndarray(format="rgb24", src_colorspace="ITU709" if is_hd else None)
    upright = np.rot90(image, round(frame.rotation / 90))  # counterclockwise, as the file says
    return np.ascontiguousarray(upright).transpose(2, 0, 1)
