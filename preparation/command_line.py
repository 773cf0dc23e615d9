"""Parse the command line of prepare_data.py, without importing PyTorch."""
from __future__ import annotations

import argparse
import os

from options import MIN_SIZE, SIZE_STEP, nearest_input_size
from runtime.arguments import OneLineParser, non_negative_int, path, positive, whole_path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of one command; `command` is "video", "import", "check" or "kitti".

    A wrong flag ends the program with status 2 and one line.

    Args:
        argv: words of the command line (default: those of this program).
    """
    parser = OneLineParser(
        description="Prepare data for training and evaluation: COMMAND -h shows the flags.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add_command in (_add_video, _add_import, _add_check, _add_kitti):
        add_command(commands)
    opts = parser.parse_args(argv)
    {"video": _check_video, "import": _check_import, "check": _check_split_flags,
     "kitti": _check_kitti}[opts.command](opts, commands.choices[opts.command])
    return opts


def image_size(text: str) -> tuple[int, int]:
    """Parse the image size WxH of the networks' input to (width, height): an argparse type."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected WxH, as in 640x192")
    size = int(width), int(height)
    nearest = nearest_input_size(size[0]), nearest_input_size(size[1])
    if size != nearest:
        raise argparse.ArgumentTypeError(f"{text} is not in multiples of {SIZE_STEP} from "
                                         f"{MIN_SIZE} on; for example {nearest[0]}x{nearest[1]}")
    return size


def _add_video(commands: argparse._SubParsersAction) -> None:
    """Add the flags of the command `video`."""
    about = "turn videos, or folders of images, into a dataset for --dataset folder"
    parser = commands.add_parser("video", help=about, description=about)
    add = parser.add_argument
    add("sources", type=path, nargs="*", metavar="SOURCE",
        help="video files or folders of images; each becomes a sequence")
    add("--left", type=path, help="left view of a rectified stereo pair: a video or a folder")
    add("--right", type=path, help="right view, with the same frames as the left view")
    add("--baseline", type=positive(float), metavar="METRES",
        help="distance between the two cameras")
    add("--out", type=whole_path, required=True, help="folder to make; must be new or empty")
    add("--fps", type=positive(float), default=10.0,
        help="frames a second to keep of a video; of a folder all are kept (%(default)s)")
    add("--size", type=image_size, metavar="WxH",
        help="size of the images written, multiples of 32 (default: size of the footage)")
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--intrinsics", nargs=4, type=float, metavar=("FX", "FY", "CX", "CY"),
                        help="in pixels of the footage (default: intrinsics.json in its folder)")
    camera.add_argument("--fov", type=positive(float), metavar="DEG",
                        help="horizontal field of view; assumes square pixels and a principal "
                             "point in the centre")
    add("--min_flow", type=float, metavar="PIXELS",
        help="leave out frames with a smaller mean optical flow, measured on images 416 pixels "
             "wide; 0 keeps all frames (1)")
    add("--ext", help="extension of a folder's images (default: every known one)")


def _check_video(opts: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if flags of `video` contradict each other."""
    is_stereo = opts.left is not None or opts.right is not None
    if is_stereo and None in (opts.left, opts.right, opts.baseline):
        parser.error("a stereo pair needs --left, --right and --baseline METRES")
    if is_stereo == bool(opts.sources):
        parser.error("give videos or folders, or --left DIR --right DIR --baseline METRES")
    if not is_stereo and opts.baseline is not None:
        parser.error("--baseline belongs to a stereo pair; give --left and --right too")
    if opts.fov is not None and opts.fov >= 180:
        parser.error(f"--fov is {opts.fov:g}; a pinhole camera sees less than 180 degrees")


def _add_import(commands: argparse._SubParsersAction) -> None:
    """Add the flags of the command `import`."""
    about = "bring Cityscapes or TUM RGB-D into the layout of --dataset folder"
    parser = commands.add_parser("import", help=about, description=about)
    add = parser.add_argument
    add("layout", choices=["cityscapes", "tum"], help="published layout of the files")
    add("source", type=whole_path, metavar="SOURCE",
        help="folder that Cityscapes' archives were extracted into; a sequence of TUM, or a folder "
             "of sequences")
    add("--out", type=whole_path, required=True,
        help="folder to make; must be new or empty. Images are linked if it is on the same disk")
    add("--crop_bonnet", action="store_true",
        help="cityscapes: write images without their lower quarter, which shows the bonnet "
             "(default: link the images, and write a mask for --mask_dir)")
    add("--test", nargs="+", metavar="SEQUENCE",
        help="tum: sequences for the test list; the others are for training (default: all)")


def _check_import(opts: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if a flag belongs to the other layout."""
    if opts.crop_bonnet and opts.layout != "cityscapes":
        parser.error("--crop_bonnet belongs to cityscapes; leave it out")
    if opts.test and opts.layout != "tum":
        parser.error("--test belongs to tum; Cityscapes has its own lists: leave it out")


def _add_check(commands: argparse._SubParsersAction) -> None:
    """Add the flags of the command `check`."""
    about = "read every file of a split, and show whether the data is right"
    parser = commands.add_parser("check", help=about, description=about)
    add = parser.add_argument
    add("--data_path", type=path, required=True, help="as for train.py")
    add("--split", type=path, required=True, help="as for train.py")
    add("--list", default="train", choices=["train", "val", "test"],
        help="which list of the split (%(default)s)")
    add("--dataset", default="kitti", help="as for train.py (%(default)s)")
    add("--png", action="store_true", help="read .png instead of .jpg")
    add("--height", type=positive(int), default=192, help="as for train.py (%(default)s)")
    add("--width", type=positive(int), default=640, help="as for train.py (%(default)s)")
    add("--frame_ids", nargs="+", type=int, default=[0, -1, 1], help="as for train.py (0 -1 1)")
    add("--use_stereo", action="store_true", help="read the other stereo view too")
    add("--mask_dir", type=path, help="as for train.py; the masks are shown, too")
    add("--speeds", action="store_true",
        help="read the speeds that train.py --velocity_weight needs, and draw them beside the flow")
    add("--load_weights_folder", type=path,
        help="show what these weights predict for some samples, too")
    add("--num_workers", type=non_negative_int, default=os.cpu_count(),
        help="processes that read images (default: one for each core)")
    add("--no_cuda", action="store_true", help="use the CPU even where there is a GPU")
    add("--out", type=path, default="check.png", help="picture to write (%(default)s)")


def _check_split_flags(opts: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if flags of `check` have impossible values."""
    if opts.frame_ids[0] != 0 or len(opts.frame_ids) + opts.use_stereo < 2:
        parser.error(f"--frame_ids is {' '.join(map(str, opts.frame_ids))}; it must start with 0, "
                     "and name a source frame unless there is --use_stereo")
    if opts.speeds and len(opts.frame_ids) < 2:
        parser.error("--speeds compares frames in time; name some, as in --frame_ids 0 -1 1")
    for name in ("height", "width"):
        size = getattr(opts, name)
        if size != nearest_input_size(size):
            parser.error(f"--{name} is {size}; it must be a multiple of {SIZE_STEP}, for example "
                         f"--{name} {nearest_input_size(size)}")


def _add_kitti(commands: argparse._SubParsersAction) -> None:
    """Add the flags of the command `kitti`."""
    about = "fetch and unpack KITTI, convert its PNGs, and list what is missing for each split"
    parser = commands.add_parser("kitti", help=about, description=about)
    add = parser.add_argument
    add("--data_path", type=path, required=True, help="KITTI's folder")
    add("--download", action="store_true",
        help="fetch the missing archives (175 GB in all) and unpack them")
    add("--convert", action="store_true",
        help="convert PNG images to JPEG on all cores; each PNG is deleted afterwards")
    add("--odometry", action="store_true",
        help="use the archives (65 GB) and splits of odometry instead of raw drives")
    add("--split",
        help="look at one split only: eigen_zhou, eigen_full, eigen, eigen_benchmark, benchmark, "
             "odom, odom_9 or odom_10 (default: all)")


def _check_kitti(opts: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if --odometry contradicts --split; a split of odometry implies --odometry."""
    is_odometry = (opts.split or "").startswith("odom")
    if opts.odometry and opts.split and not is_odometry:
        parser.error(f"--split {opts.split} is not a split of odometry; leave --odometry or "
                     "--split out")
    opts.odometry = opts.odometry or is_odometry
