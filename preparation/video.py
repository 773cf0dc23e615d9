"""Prepare own footage as a dataset: the command `prepare_data.py video`."""
from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datasets.footage import Footage
from datasets.intrinsics import (
    Intrinsics,
    find_intrinsics,
    from_field_of_view,
    from_numbers,
    read_intrinsics,
    warn_of_long_baseline,
)
from options import nearest_input_size
from preparation.optical_flow import MIN_FLOW, WIDTH
from preparation.sequences import (
    LISTS,
    PreparedSequence,
    folder_name,
    write_lists,
    write_sequence,
)
from runtime.errors import DataError, counted
from runtime.files import new_folder

DEFAULT_FOV = 60.0    # degrees, assumed if the camera's field of view is unknown
SHOWN_BREAKS = 5
TRAIN_WIDTH = 640     # pixels, width of the proposed training


def prepare_video(opts: Namespace) -> None:
    """Write footage as a dataset for `--dataset folder`, and print the next commands.

    Args:
        opts: options of `prepare_data.py video`.

    Raises:
        DataError: the footage cannot be read or used, or the folder cannot be written.
    """
    sources = [[opts.left, opts.right]] if opts.left else [[source] for source in opts.sources]
    footage = [[Footage(source, opts.ext) for source in group] for group in sources]
    if webcams := [view.source for views in footage for view in views if view.is_webcam]:
        raise DataError(f"{webcams[0]} is a webcam, whose footage never ends; record a video first")
    sizes = [tuple(next(iter(views[0])).read().shape[1:]) for views in footage]
    if opts.intrinsics is not None and len(set(sizes)) > 1:
        raise DataError("--intrinsics is in pixels of one size, and the inputs have several; "
                        "prepare the inputs of each size separately, or give --fov")
    min_flow = MIN_FLOW if opts.min_flow is None else opts.min_flow
    sequences: list[PreparedSequence] = []
    with new_folder(opts.out) as folder:
        for views, (height, width) in zip(footage, sizes, strict=True):
            intrinsics = choose_intrinsics(opts, views[0], width, height)
            if opts.size is not None:
                intrinsics = intrinsics.resized(*opts.size)
            name = folder_name(views, [sequence.name for sequence in sequences])
            sequences.append(write_sequence(folder / name, views, (height, width), intrinsics,
                                            opts.fps, min_flow))
        counts = write_lists(folder / LISTS, sequences, "lr" if opts.left else "")
        if not all(counts.values()):
            raise DataError("between the gaps in the footage's numbers there are too few frames to "
                            "train and validate on; give footage without gaps")
    print_sequences(sequences, "pairs" if opts.left else "frames", min_flow)
    print_next_commands(opts.out, sequences[0].intrinsics, counts,
                        ["--use_stereo"] if opts.left else [])


def choose_intrinsics(opts: Namespace, view: Footage, width: int, height: int) -> Intrinsics:
    """Return the intrinsics of footage: from the flags, a file beside the footage, or a guess.

    Args:
        opts: options with intrinsics, fov and baseline.
        view: the footage.
        width: width of its frames, pixels.
        height: height of its frames, pixels.

    Raises:
        DataError: the intrinsics are impossible, or for images of another size.
    """
    path = None if opts.fov else _find_intrinsics_beside(Path(view.source))
    if opts.intrinsics is not None:
        intrinsics = from_numbers(opts.intrinsics, width, height)
    elif path is not None:
        intrinsics = read_intrinsics(path)
        if (intrinsics.width, intrinsics.height) != (width, height):
            raise DataError(f"{path} is for images of {intrinsics.width}x{intrinsics.height}, but "
                            f"{view.source} has {width}x{height}; give --intrinsics or --fov")
    else:
        if opts.fov is None:
            print(f"warning: {view.source}: the camera's field of view is unknown; "
                  f"{DEFAULT_FOV:g} degrees are assumed. A wrong value bends depth: give "
                  "--intrinsics FX FY CX CY or --fov DEG", file=sys.stderr)
        intrinsics = from_field_of_view(opts.fov or DEFAULT_FOV, width, height)
    warn_of_long_baseline("--baseline", opts.baseline)
    return intrinsics._replace(baseline=opts.baseline)


def _find_intrinsics_beside(source: Path) -> Path | None:
    """Return the intrinsics file in a folder of images, in the folder above it, or by a video."""
    folder = source if source.is_dir() else source.parent
    with suppress(DataError):
        return find_intrinsics(folder, folder.parent if source.is_dir() else folder)
    return None


def print_sequences(sequences: Sequence[PreparedSequence], unit: str, min_flow: float) -> None:
    """Print a line for each sequence: frames written, frames left out, gaps.

    Args:
        sequences: the sequences that were written.
        unit: "frames" or "pairs".
        min_flow: mean flow below which frames were left out, pixels.
    """
    for name, kept, static, _, breaks in sequences:
        line = f"{name}: {kept} {unit} written"
        if static:
            line += (f"; {static} left out, which move less than {min_flow:g} px (of {WIDTH}) from "
                     "the last frame kept: static frames teach the network nothing")
        if breaks:
            shown = [str(index) for index in breaks[:SHOWN_BREAKS]]
            if len(breaks) > SHOWN_BREAKS:
                shown.append("...")
            line += (f"; no sample reaches over the gaps before {', '.join(shown)}: frames are "
                     "missing there")
        print(line)


def print_next_commands(out: Path, intrinsics: Intrinsics, counts: dict[str, int],
                        more: Sequence[object]) -> None:
    """Print the commands that check the dataset and train on it.

    Args:
        out: folder of the dataset.
        intrinsics: intrinsics of the first sequence, for the size of the training.
        counts: number of samples for "train" and "val".
        more: further words of both commands.
    """
    width = min(TRAIN_WIDTH, nearest_input_size(intrinsics.width))
    height = nearest_input_size(width * intrinsics.height / intrinsics.width)
    words = ["--dataset", "folder", "--data_path", out, "--split", out / LISTS,
             "--height", height, "--width", width, *more]
    flags = shlex.join(map(str, words))
    name = shlex.quote(os.path.basename(os.path.abspath(out)))
    print(f"{out}: {counted(counts['train'], 'sample')} to train on, "
          f"{counts['val']} to validate. Next:\n"
          f"python prepare_data.py check {flags}\npython train.py {flags} --model_name {name}")
