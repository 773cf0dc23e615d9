"""Write sequences made of footage: moving frames as JPEGs, intrinsics, and split lists."""
from __future__ import annotations

import io
import math
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.footage import Footage, Still
from datasets.images import resize
from datasets.intrinsics import FILE_NAME, Intrinsics, write_intrinsics
from datasets.odometer import TIMES
from datasets.splits import compact
from preparation.optical_flow import mean_flow, small_gray
from runtime.errors import DataError, counted
from runtime.files import write_atomically

QUALITY = 95         # of the JPEGs
STRETCH = 500        # frames, of which the last tenth is for validation
VAL_SHARE = 0.1
LISTS = "splits"     # folder of the split lists
GAP = 1.5            # median steps between frame numbers: a longer step is a gap
MIN_STRETCH = 3      # frames: a target frame with both neighbours
EARLY = 0.25         # mean steps of a video by which a frame may come too early
MAX_PENDING = 8      # frames waiting to be written


class PreparedSequence(NamedTuple):
    """A sequence that was written.

    Attributes:
        name: name of its folder.
        kept: number of frames written.
        static: number of frames left out because they hardly differ from the last frame kept.
        intrinsics: intrinsics of the images written.
        breaks: index of the first frame after each gap in the footage; samples must not reach over
            a gap.
    """

    name: str
    kept: int
    static: int
    intrinsics: Intrinsics
    breaks: list[int]


def folder_name(views: Sequence[Footage], taken: Sequence[str]) -> str:
    """Return a folder name for a sequence that split lines can hold and that is not taken."""
    path = Path(os.path.abspath(views[0].name))
    name = path.name if len(views) == 1 else path.parent.name  # the parent of left/ and right/
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "sequence"
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if name not in (*taken, LISTS))


def write_sequence(folder: Path, views: Sequence[Footage], size: tuple[int, int],
                   intrinsics: Intrinsics, fps: float, min_flow: float) -> PreparedSequence:
    """Write the moving frames of footage, their intrinsics and a video's times into a folder.

    Args:
        folder: new folder, named as the sequence.
        views: the footage: one view, or the left and the right view of a stereo pair.
        size: (height, width) of all frames of the footage.
        intrinsics: intrinsics of the images to write; frames are resized to their size.
        fps: frames a second to keep of a video.
        min_flow: mean optical flow from the last frame kept, in pixels of
            `optical_flow.WIDTH`, below which a frame is left out.

    Raises:
        DataError: a frame cannot be read, the views do not match, or too few frames move.
    """
    places = [folder] if len(views) == 1 else [folder / "left", folder / "right"]
    for place in places:
        place.mkdir(parents=True)
    write_intrinsics(folder / FILE_NAME, intrinsics)
    seen, times = 0, []  # seconds of each frame kept
    last_kept, gaps, breaks, is_after_gap = None, frames_after_gaps(views[0]), [], False
    with _JpegWriter() as writer:
        for stills in tqdm(_synchronise(views, fps), unit="frame", desc=folder.name,
                           dynamic_ncols=True):
            images = [_read_frame(still, size, intrinsics) for still in stills]
            seen += 1
            is_after_gap |= stills[0].name in gaps
            gray = small_gray(images[0])
            if last_kept is not None and mean_flow(last_kept, gray) < min_flow:
                continue
            if is_after_gap and times:
                breaks.append(len(times))
            last_kept, is_after_gap = gray, False
            for place, image in zip(places, images, strict=True):
                writer.write(image, place / f"{len(times):010d}.jpg")
            times.append(stills[0].time)
    kept = len(times)
    if views[0].is_video:
        write_atomically(folder / TIMES, "".join(f"{time:.6f}\n" for time in times).encode())
    if kept < 2 * MIN_STRETCH:
        raise DataError(f"{views[0].source}: {kept} of {seen} frames move, and {2 * MIN_STRETCH} "
                        "are needed; take longer footage, a higher --fps, or a lower --min_flow")
    return PreparedSequence(folder.name, kept, seen - kept, intrinsics, breaks)


def frames_after_gaps(view: Footage) -> set[Path]:
    """Return the names of the images in a folder that come after missing images.

    Gaps show in the numbers at the end of file names: a step clearly longer than the median step
    (numbers may be times, which jitter), or a step back. A video has no gaps.
    """
    if view.is_video:
        return set()
    stills = list(view)
    numbers = [_frame_number(still) for still in stills]
    if None in numbers:
        return set()
    steps = np.diff(numbers)
    return {still.name for still, step in zip(stills[1:], steps, strict=True)
            if step < 0 or step > GAP * np.median(steps)}


def _synchronise(views: Sequence[Footage], fps: float) -> Iterator[list[Still]]:
    """Yield the frames that all views took at the same time, `fps` of them a second.

    Raises:
        DataError: the views differ in frame rate, length or frame numbers.
    """
    rates = {view.fps for view in views}
    if len(rates) > 1:
        raise DataError(f"{views[0].source} has {views[0].fps} frames a second, {views[1].source} "
                        f"{views[1].fps}; convert both to one rate")
    number, end = 0, object()
    iterators = [iter(view) for view in views]
    pace = Pace(fps, EARLY / views[0].fps) if views[0].is_video else None
    while True:
        stills = [next(iterator, end) for iterator in iterators]
        if all(still is end for still in stills):
            return
        if end in stills:
            raise DataError(f"{views[stills.index(end)].source} ends after "
                            f"{counted(number, 'frame')}, the other camera's footage is "
                            "longer; cut both to one length")
        if len({_frame_number(still) for still in stills}) > 1:
            raise DataError(f"{stills[0].label} and {stills[1].label} would be a pair, but have "
                            "different numbers; a frame of one side is missing")
        number += 1
        if pace is None or pace.keeps(stills[0].time):
            yield stills


class Pace:
    """Choose frames of a video by their times, `fps` of them a second.

    Args:
        fps: frames a second to keep.
        early: seconds by which a frame may come too early; time stamps jitter.
    """

    def __init__(self, fps: float, early: float):
        self.fps, self.early, self._last_slot, self._last_time = fps, early, -1, -math.inf

    def keeps(self, time: float) -> bool:
        """Return whether the frame at `time`, seconds, is kept; call this once for each frame."""
        slot = int((time + self.early) * self.fps)
        is_due = slot > self._last_slot or (time - self._last_time) * self.fps >= 1
        if is_due:
            self._last_slot, self._last_time = slot, time
        return is_due


def _frame_number(still: Still) -> int | None:
    """Return the number at the end of a frame's name."""
    found = re.search("[0-9]+$", still.name.name)
    return int(found[0]) if found else None


def _read_frame(still: Still, size: tuple[int, int], intrinsics: Intrinsics) -> Tensor:
    """Return a frame resized to the size of the intrinsics, (3, H, W) uint8.

    Raises:
        DataError: the frame cannot be read, or is not of `size`.
    """
    image = torch.from_numpy(still.read())
    found = tuple(image.shape[1:])
    if found != size:
        raise DataError(f"{still.label} has {found[1]}x{found[0]} pixels, the first frame "
                        f"{size[1]}x{size[0]}; give footage of one size and one camera")
    if found == (intrinsics.height, intrinsics.width):
        return image
    return resize(image, intrinsics.height, intrinsics.width, exact=True)


class _JpegWriter:
    """Write images as JPEGs in threads, with a limited number of images waiting."""

    def __init__(self):
        self.pool, self.pending = ThreadPoolExecutor(), deque()

    def __enter__(self) -> _JpegWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.pool.shutdown()
        if kind is None:
            self._wait_for(len(self.pending))

    def write(self, image: Tensor, path: Path) -> None:
        """Write an image (3, H, W) uint8; errors of earlier images may be raised here."""
        self.pending.append(self.pool.submit(_write_jpeg, image, path))
        self._wait_for(len(self.pending) - MAX_PENDING)

    def _wait_for(self, count: int) -> None:
        """Wait for the first `count` pending images, and raise their errors."""
        for _ in range(count):
            self.pending.popleft().result()


def _write_jpeg(image: Tensor, path: Path) -> None:
    """Write an image (3, H, W) uint8 as a JPEG."""
    jpeg = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(jpeg, "JPEG", quality=QUALITY)
    path.write_bytes(jpeg.getvalue())


def write_lists(folder: Path, sequences: Sequence[PreparedSequence], sides: str) -> dict[str, int]:
    """Write train_files.txt and val_files.txt, and return the number of lines of each.

    Whole stretches of frames are held out: no frame belongs to samples of both lists.

    Args:
        folder: folder for the lists.
        sequences: the sequences that were written.
        sides: "lr" for stereo pairs, "" for single images.
    """
    lines = {"train": [], "val": []}
    for sequence in sequences:
        for name, frames in stretches(sequence.kept, sequence.breaks):
            lines[name] += [f"{sequence.name} {frame} {side}".rstrip() for side in sides or [""]
                            for frame in frames]
    for name, wanted in lines.items():
        write_atomically(folder / f"{name}_files.txt", compact(wanted).encode())
    return {name: len(wanted) for name, wanted in lines.items()}


def stretches(length: int, breaks: Iterable[int] = ()) -> Iterator[tuple[str, range]]:
    """Divide the frames of a sequence into stretches for training and validation.

    Args:
        length: number of frames.
        breaks: index of the first frame after each gap.

    Yields:
        "train" or "val", and the target frames: those with both neighbours in the same stretch.
    """
    for first, last in pairwise([0, *breaks, length]):
        parts = max(1, (last - first) // STRETCH)
        for part in range(parts):
            start, stop = (first + (last - first) * end // parts for end in (part, part + 1))
            held_out = max(MIN_STRETCH, round(VAL_SHARE * (stop - start)))
            is_long_enough = stop - start >= 2 * MIN_STRETCH  # for both lists
            cut = stop - held_out if is_long_enough else stop
            yield "train", range(start + 1, cut - 1)
            yield "val", range(cut + 1, stop - 1)
