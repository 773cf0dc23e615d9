"""Prepare data: footage of your own, KITTI's archives, and a check of what training will read."""
from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from options import MIN_SIZE, SIZE_STEP, OneLineParser, natural, positive
from utils import DataError, run

DEFAULT_VIEW = 60.0   # degrees, where nobody says what the camera sees
TRAIN_WIDTH = 640     # pixels, of the training that is proposed


def image_size(text: str) -> tuple[int, int]:
    """Return the (width, height) of a WxH that networks take: an argparse type."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected WxH, as in 640x192")
    sizes = int(width), int(height)
    if any(size < MIN_SIZE or size % SIZE_STEP for size in sizes):
        near = "x".join(str(_network_size(size)) for size in sizes)
        raise argparse.ArgumentTypeError(f"{text} is not of multiples of {SIZE_STEP}, from "
                                         f"{MIN_SIZE} on; for example {near}")
    return sizes


def _network_size(size: float) -> int:
    return max(MIN_SIZE, round(size / SIZE_STEP) * SIZE_STEP)


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND",
                                     parser_class=OneLineParser)
    for name, add_flags, words in (
            ("video", add_video, "turn videos, or folders of images, into a dataset"),
            ("check", add_check, "read all that a split needs, and show whether it is right")):
        add_flags(commands.add_parser(name, help=words, description=words))
    args = parser.parse_args()
    if args.command == "video":
        check_video(parser, args)
    return args


def add_video(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `video`."""
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE",
        help="video files or folders of images; each becomes a sequence")
    add("--left", help="of a rectified stereo pair: a video or a folder")
    add("--right", help="the other camera's, frame by frame of the same time")
    add("--baseline", type=positive(float), metavar="METRES", help="between the two cameras")
    add("--out", type=Path, required=True, help="folder to make; must be new or empty")
    add("--fps", type=positive(float), default=10.0,
        help="frames a second to keep of a video; folders keep all (%(default)s)")
    add("--size", type=image_size, metavar="WxH",
        help="of the images written, multiples of 32 (default: as they are)")
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--intrinsics", nargs=4, type=float, metavar=("FX", "FY", "CX", "CY"),
                        help="in pixels of the footage (default: its folder's intrinsics.json)")
    camera.add_argument("--fov", type=positive(float), metavar="DEG",
                        help="horizontal field of view; square pixels, centre in the middle")
    add("--min_flow", type=float, default=1.0, metavar="PIXELS",
        help="leave out frames that move less, on average, at 416 pixels' width; 0 keeps all "
             "(%(default)s)")
    add("--ext", help="extension of a folder's images (default: all that are known)")


def check_video(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where flags of `video` contradict each other."""
    is_stereo = args.left is not None or args.right is not None
    if is_stereo and None in (args.left, args.right, args.baseline):
        parser.error("a stereo pair needs --left, --right and --baseline METRES")
    if is_stereo == bool(args.sources):
        parser.error("give videos or folders, or --left DIR --right DIR --baseline METRES")
    if not is_stereo and args.baseline is not None:
        parser.error("--baseline is of a stereo pair; give --left and --right too")
    if args.fov is not None and args.fov >= 180:
        parser.error(f"--fov is {args.fov:g}; a pinhole camera sees less than 180 degrees")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`, which are train.py's."""
    add = parser.add_argument
    add("--data_path", required=True, help="as for train.py")
    add("--split", required=True, help="as for train.py")
    add("--list", default="train", choices=["train", "val", "test"],
        help="which of its lists (%(default)s)")
    add("--dataset", default="kitti", help="as for train.py (%(default)s)")
    add("--png", action="store_true", help="read .png")
    add("--height", type=positive(int), default=192, help="(%(default)s)")
    add("--width", type=positive(int), default=640, help="(%(default)s)")
    add("--frame_ids", nargs="+", type=int, default=[0, -1, 1], help="(0 -1 1)")
    add("--use_stereo", action="store_true", help="read the other view too")
    add("--load_weights_folder", help="show what these weights make of the samples, too")
    add("--num_workers", type=natural, default=os.cpu_count(),
        help="processes that read (one a core)")
    add("--no_cuda", action="store_true", help="use the CPU")
    add("--out", default="check.png", help="the picture (%(default)s)")


def camera_of(args: argparse.Namespace, source, width: int, height: int):
    """Return the camera of footage of this size, as it is."""
    from datasets.intrinsics import (
        FILE_NAME,
        Intrinsics,
        from_field_of_view,
        parse_intrinsics,
        read_intrinsics,
    )
    beside = (source.name if source.name.is_dir() else source.name.parent) / FILE_NAME
    if args.intrinsics is not None:
        fields = dict(zip(Intrinsics._fields, [*args.intrinsics, width, height], strict=False))
        import json
        camera = parse_intrinsics(json.dumps(fields).encode(), "--intrinsics")
    elif args.fov is None and beside.is_file():
        camera = read_intrinsics(beside)
        if (camera.width, camera.height) != (width, height):
            raise DataError(f"{beside} is for images of {camera.width}x{camera.height}, those of "
                            f"{source.source} have {width}x{height}; give --intrinsics or --fov")
    else:
        if args.fov is None:
            print(f"warning: {source.source}: nothing says what the camera sees; it is taken for "
                  f"{DEFAULT_VIEW:g} degrees wide. Depth will be bent if it is not: give "
                  "--intrinsics FX FY CX CY or --fov DEG", file=sys.stderr)
        camera = from_field_of_view(args.fov or DEFAULT_VIEW, width, height)
    return camera._replace(baseline=args.baseline)


def prepare_video(args: argparse.Namespace) -> None:
    """Turn footage into a dataset for `--dataset folder`."""
    from footage import Footage
    from preparation.sequences import folder_name, new_folder, write_lists, write_sequence
    groups = [[args.left, args.right]] if args.left else [[source] for source in args.sources]
    groups = [[Footage(source, args.ext) for source in group] for group in groups]
    written = []
    with new_folder(args.out, os.getpid()) as folder:
        for views in groups:
            height, width = next(iter(views[0])).read().shape[1:]
            camera = camera_of(args, views[0], width, height)
            if args.size is not None:
                camera = camera.resized(*args.size)
            name = folder_name(views[0], [sequence.name for sequence in written])
            written.append(write_sequence(folder / name, views, camera, args.fps, args.min_flow))
        counts = write_lists(folder / "splits", written, "lr" if args.left else "")
    for name, kept, static, _ in written:
        print(f"{name}: {kept} frames written; {static} left out, which move less than "
              f"{args.min_flow:g} pixels of 416 from the last one kept: they teach nothing")
    camera = written[0].camera
    width = min(TRAIN_WIDTH, camera.width // SIZE_STEP * SIZE_STEP)
    size = ["--height", _network_size(width * camera.height / camera.width), "--width", width]
    words = ["--dataset", "folder", "--data_path", args.out, "--split", args.out / "splits", *size,
             *["--use_stereo"] * bool(args.left)]
    line = shlex.join(map(str, words))
    print(f"{args.out}: {counts['train']} samples to train on, {counts['val']} to validate. Next:\n"
          f"python prepare_data.py check {line}\npython train.py {line}")


def check_data(args: argparse.Namespace) -> None:
    """Read a split's files and show what they are like."""
    from datasets import dataset_class
    from datasets.splits import read_split, split_path
    from preparation.check import check
    from utils import check_data_path
    check_data_path(args.data_path)
    frames = args.frame_ids + ["s"] * args.use_stereo
    if frames[0] != 0 or len(frames) < 2:
        raise DataError(f"--frame_ids is {' '.join(map(str, args.frame_ids))}; it must start with "
                        "0, and name a source frame unless there is --use_stereo")
    lines = read_split(split_path(args.split, f"{args.list}_files.txt"))
    dataset = dataset_class(args.dataset)(
        args.data_path, lines, args.height, args.width, frames, 1, is_train=True,
        img_ext=".png" if args.png else ".jpg", load_depth=False)
    if not check(dataset, args):
        sys.exit(1)


def main() -> None:
    """Prepare as the command line says."""
    args = parse_args()
    {"video": prepare_video, "check": check_data}[args.command](args)


if __name__ == "__main__":
    run(main)
