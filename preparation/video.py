"""Footage of one's own, made into a dataset: what `prepare_data.py video` does."""
from __future__ import annotations

import json
import os
import shlex
import sys
from argparse import Namespace

from datasets.intrinsics import (
    FILE_NAME,
    Intrinsics,
    from_field_of_view,
    parse_intrinsics,
    read_intrinsics,
)
from footage import Footage
from options import MIN_SIZE, SIZE_STEP
from preparation.sequences import folder_name, new_folder, write_lists, write_sequence
from utils import DataError

DEFAULT_VIEW = 60.0   # degrees, where nobody says what the camera sees
TRAIN_WIDTH = 640     # pixels, of the training that is proposed


def camera_of(opts: Namespace, source: Footage, width: int, height: int) -> Intrinsics:
    """Return the camera of footage of this size, as it is."""
    beside = (source.name if source.name.is_dir() else source.name.parent) / FILE_NAME
    if opts.intrinsics is not None:
        fields = dict(zip(Intrinsics._fields, [*opts.intrinsics, width, height], strict=False))
        camera = parse_intrinsics(json.dumps(fields).encode(), "--intrinsics")
    elif opts.fov is None and beside.is_file():
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


def prepare_video(opts: Namespace) -> None:
    """Turn footage into a dataset for `--dataset folder`."""
    groups = [[opts.left, opts.right]] if opts.left else [[source] for source in opts.sources]
    groups = [[Footage(source, opts.ext) for source in group] for group in groups]
    written = []
    with new_folder(opts.out, os.getpid()) as folder:
        for views in groups:
            height, width = next(iter(views[0])).read().shape[1:]
            camera = camera_of(opts, views[0], width, height)
            if opts.size is not None:
                camera = camera.resized(*opts.size)
            name = folder_name(views[0], [sequence.name for sequence in written])
            written.append(write_sequence(folder / name, views, camera, opts.fps, opts.min_flow))
        counts = write_lists(folder / "splits", written, "lr" if opts.left else "")
    for name, kept, static, _ in written:
        print(f"{name}: {kept} frames written; {static} left out, which move less than "
              f"{opts.min_flow:g} pixels of 416 from the last one kept: they teach nothing")
    camera = written[0].camera
    width = min(TRAIN_WIDTH, camera.width // SIZE_STEP * SIZE_STEP)
    height = width * camera.height / camera.width
    size = ["--height", max(MIN_SIZE, round(height / SIZE_STEP) * SIZE_STEP), "--width", width]
    words = ["--dataset", "folder", "--data_path", opts.out, "--split", opts.out / "splits", *size,
             *["--use_stereo"] * bool(opts.left)]
    line = shlex.join(map(str, words))
    print(f"{opts.out}: {counts['train']} samples to train on, {counts['val']} to validate. Next:\n"
          f"python prepare_data.py check {line}\npython train.py {line}")
