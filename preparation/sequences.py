"""Sequences made of footage: the frames that move, their camera, and lists to train on."""
from __future__ import annotations

import io
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.footage import Footage, Still
from datasets.images import resize
from datasets.intrinsics import FILE_NAME, Intrinsics, write_intrinsics
from datasets.splits import compact
from preparation.optical_flow import mean_flow, small_gray
from runtime.errors import DataError
from runtime.files import write_atomically

QUALITY = 95       # of the JPEGs
STRETCH = 500      # frames, of which the last tenth is for validation
VAL_SHARE = 0.1
LISTS = "splits"   # the folder of the lists
GAP = 1.5          # usual steps between frames' numbers: a longer one leaves frames out
LEAST = 3          # frames of a stretch: one with both its neighbours
WAITING = 8        # frames that wait to be written


class Prepared(NamedTuple):
    """A sequence that was written.

    Attributes:
        name: of its folder.
        kept: frames written.
        static: frames left out because they hardly differ from the last one that was kept.
        camera: of the images written.
        breaks: the first frames after gaps in the footage; no item reaches over one.
    """

    name: str
    kept: int
    static: int
    camera: Intrinsics
    breaks: list[int]


@contextmanager
def new_folder(out: Path, number: int) -> Iterator[Path]:
    """Give a folder to write, which becomes `out` as a whole or not at all.

    Args:
        out: must be new or empty.
        number: of this process.

    Raises:
        DataError: it is not, or the disk is full.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"--out {out} exists; remove it or choose another folder")
    unfinished = out.with_name(f"{out.name}.unfinished-{number}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(out)
    except OSError as error:
        raise DataError(f"--out {out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def folder_name(views: Sequence[Footage], taken: Sequence[str]) -> str:
    """Return a name for a sequence that split lines can hold and no other one has."""
    path = Path(os.path.abspath(views[0].name))
    name = path.name if len(views) == 1 else path.parent.name  # which holds left/ and right/
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "sequence"
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if name not in (*taken, LISTS))


def write_sequence(folder: Path, views: Sequence[Footage], size: tuple[int, int],
                   camera: Intrinsics, fps: float, min_flow: float) -> Prepared:
    """Write the frames that move, and their camera, into a folder.

    Args:
        folder: new; its name is the sequence's.
        views: the footage; of a stereo pair that of the left and that of the right camera.
        size: height and width of all its frames.
        camera: of the images to write: they are resized to its size.
        fps: frames a second to keep of a video.
        min_flow: mean flow, in pixels of `motion.WIDTH`, below which a frame is left out.

    Raises:
        DataError: a frame cannot be read, the views differ, or too few frames move.
    """
    places = [folder] if len(views) == 1 else [folder / "left", folder / "right"]
    for place in places:
        place.mkdir(parents=True)
    write_intrinsics(folder / FILE_NAME, camera)
    kept = seen = 0
    last, pending = None, deque()
    gaps, breaks, is_after_gap = after_gaps(views[0]), [], False
    with ThreadPoolExecutor() as pool:
        for stills in tqdm(_together(views, fps), unit="frame", desc=folder.name,
                           dynamic_ncols=True):
            images = [_read(still, size, camera) for still in stills]
            seen += 1
            is_after_gap |= stills[0].name in gaps
            now = small_gray(images[0])
            if last is not None and mean_flow(last, now) < min_flow:
                continue
            last = now
            if is_after_gap and kept:
                breaks.append(kept)
            is_after_gap = False
            for place, image in zip(places, images, strict=True):
                pending.append(pool.submit(_write, image, place / f"{kept:010d}.jpg"))
            kept += 1
            while len(pending) > WAITING:
                pending.popleft().result()
        for writing in pending:
            writing.result()
    if kept < 2 * LEAST:
        raise DataError(f"{views[0].source}: {kept} of {seen} frames move, and {2 * LEAST} are "
                        "needed; take longer footage, a higher --fps, or a lower --min_flow")
    return Prepared(folder.name, kept, seen - kept, camera, breaks)


def after_gaps(view: Footage) -> set[Path]:
    """Return the names of a folder's images that come after missing ones.

    The numbers that names end with tell: a step to the next that is clearly larger than most (they
    may be times, which jitter), or back to a smaller one.
    """
    if view.is_video:
        return set()
    stills = list(view)
    numbers = [_number(still) for still in stills]
    if None in numbers:
        return set()
    steps = np.diff(numbers)
    return {still.name for still, step in zip(stills[1:], steps, strict=True)
            if step < 0 or step > GAP * np.median(steps)}


def _together(views: Sequence[Footage], fps: float) -> Iterator[list[Still]]:
    """Yield the views' frames of the same time, `fps` of them a second."""
    rates = {view.fps for view in views}
    if len(rates) > 1:
        raise DataError(f"{views[0].source} has {views[0].fps} frames a second, {views[1].source} "
                        f"{views[1].fps}; convert both to one rate")
    number, ends = 0, object()
    iterators = [iter(view) for view in views]
    share = min(1.0, fps / views[0].fps) if views[0].is_video else 1.0
    while True:
        stills = [next(one, ends) for one in iterators]
        if all(still is ends for still in stills):
            return
        if ends in stills:
            raise DataError(f"{views[stills.index(ends)].source} ends after {number} frames, the "
                            "other camera's footage does not; cut them to one length")
        if len({_number(still) for still in stills}) > 1:
            raise DataError(f"{stills[0].label} and {stills[1].label} would be a pair, but have "
                            "other numbers; a frame of one side is missing")
        if number == 0 or int(number * share) > int((number - 1) * share):
            yield stills
        number += 1


def _number(still: Still) -> int | None:
    """Return the number that a frame's name ends with."""
    found = re.search("[0-9]+$", still.name.name)
    return int(found[0]) if found else None


def _read(still: Still, size: tuple[int, int], camera: Intrinsics) -> Tensor:
    """Return a frame at the camera's size, (3, H, W) uint8."""
    image = still.read()
    found = tuple(image.shape[1:])
    if found != size:
        raise DataError(f"{still.label} has {found[1]}x{found[0]} pixels, the first frame "
                        f"{size[1]}x{size[0]}; give footage of one size and one camera")
    if found == (camera.height, camera.width):
        return image
    return resize(image, camera.height, camera.width, exact=True)


def _write(image: Tensor, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(
        buffer, "JPEG", quality=QUALITY)
    path.write_bytes(buffer.getvalue())


def write_lists(folder: Path, sequences: Sequence[Prepared], sides: str) -> dict[str, int]:
    """Write train_files.txt and val_files.txt; return how many lines each has.

    Whole stretches are held out, and no frame is in an item of both lists.

    Args:
        folder: for the lists.
        sequences: that were written.
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
    """Yield ("train" or "val", frames that have both neighbours in their own stretch)."""
    for first, last in pairwise([0, *breaks, length]):
        parts = max(1, (last - first) // STRETCH)
        for part in range(parts):
            start, stop = (first + (last - first) * end // parts for end in (part, part + 1))
            held_out = max(LEAST, round(VAL_SHARE * (stop - start)))
            cut = stop - held_out if stop - start >= 2 * LEAST else stop  # too short for both
            yield "train", range(start + 1, cut - 1)
            yield "val", range(cut + 1, stop - 1)
