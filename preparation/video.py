"""Footage of one's own, made into a dataset: what `prepare_data.py video` does."""
from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from datasets.footage import Footage
from datasets.intrinsics import (
    Intrinsics,
    find_intrinsics,
    from_field_of_view,
    from_numbers,
    read_intrinsics,
)
from options import nearest_input_size
from preparation.optical_flow import MIN_FLOW, WIDTH
from preparation.sequences import LISTS, folder_name, new_folder, write_lists, write_sequence
from runtime.errors import DataError

DEFAULT_VIEW = 60.0   # degrees, where nobody says what the camera sees
SHOWN = 5             # gaps that are named
TRAIN_WIDTH = 640     # pixels, of the training that is proposed


def camera_of(opts: Namespace, source: Footage, width: int, height: int) -> Intrinsics:
    """Return the camera of footage of this size, as it is."""
    beside = None if opts.fov else _beside(Path(source.source))
    if opts.intrinsics is not None:
        camera = from_numbers(opts.intrinsics, width, height)
    elif beside is not None:
        camera = read_intrinsics(beside)
        if (camera.width, camera.height) != (width, height):
            raise DataError(f"{beside} is for images of {camera.width}x{camera.height}, those of "
                            f"{source.source} have {width}x{height}; give --intrinsics or --fov")
    else:
        if opts.fov is None:
            print(f"warning: {source.source}: nothing says what the camera sees; it is taken for "
                  f"{DEFAULT_VIEW:g} degrees wide. Depth will be bent if it is not: give "
                  "--intrinsics FX FY CX CY or --fov DEG", file=sys.stderr)
        camera = from_field_of_view(opts.fov or DEFAULT_VIEW, width, height)
    return camera._replace(baseline=opts.baseline)


def _beside(source: Path) -> Path | None:
    """Return the intrinsics file of footage: in its folder or the one above, or beside a video."""
    folder = source if source.is_dir() else source.parent
    with suppress(DataError):
        return find_intrinsics(folder, folder.parent if source.is_dir() else folder)
    return None


def prepare_video(opts: Namespace) -> None:
    """Turn footage into a dataset for `--dataset folder`."""
    groups = [[opts.left, opts.right]] if opts.left else [[source] for source in opts.sources]
    groups = [[Footage(source, opts.ext) for source in group] for group in groups]
    if cameras := [view.source for views in groups for view in views if view.is_webcam]:
        raise DataError(f"{cameras[0]} is a camera, which never ends; record a video first")
    sizes = [tuple(next(iter(views[0])).read().shape[1:]) for views in groups]
    if opts.intrinsics is not None and len(set(sizes)) > 1:
        raise DataError("--intrinsics is in pixels of one size, and the inputs have several; "
                        "prepare those of each size alone, or give --fov")
    least, written = MIN_FLOW if opts.min_flow is None else opts.min_flow, []
    with new_folder(opts.out, os.getpid()) as folder:
        for views, (height, width) in zip(groups, sizes, strict=True):
            camera = camera_of(opts, views[0], width, height)
            if opts.size is not None:
                camera = camera.resized(*opts.size)
            name = folder_name(views, [sequence.name for sequence in written])
            written.append(write_sequence(folder / name, views, (height, width), camera, opts.fps,
                                          least))
        counts = write_lists(folder / LISTS, written, "lr" if opts.left else "")
        if not all(counts.values()):
            raise DataError("between the gaps in the footage's numbers there are too few frames to "
                            "train and validate on; give footage without gaps")
    for name, kept, static, _, breaks in written:
        print(f"{name}: {kept} {'pairs' if opts.left else 'frames'} written"
              + f"; {static} left out, which move less than {least:g} px (of {WIDTH}) from the "
              "last one kept: they teach nothing" * bool(static)
              + f"; no sample reaches over the gaps before {', '.join(map(str, breaks[:SHOWN]))}"
              f"{', ...' * (len(breaks) > SHOWN)}: frames are missing there" * bool(breaks))
    _propose(opts, written[0].camera, counts)


def _propose(opts: Namespace, camera: Intrinsics, counts: dict[str, int]) -> None:
    """Print the commands that go on from here."""
    width = min(TRAIN_WIDTH, nearest_input_size(camera.width))
    size = ["--height", nearest_input_size(width * camera.height / camera.width), "--width", width]
    words = ["--dataset", "folder", "--data_path", opts.out, "--split", opts.out / LISTS, *size,
             *["--use_stereo"] * bool(opts.left)]
    name = shlex.quote(os.path.basename(os.path.abspath(opts.out)))
    line = shlex.join(map(str, words))
    print(f"{opts.out}: {counts['train']} samples to train on, {counts['val']} to validate. Next:\n"
          f"python prepare_data.py check {line}\npython train.py {line} --model_name {name}")
