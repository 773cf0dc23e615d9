"""Predict the depth of an image, a folder, a video or a webcam with any weights folder."""
from __future__ import annotations

import argparse

from prediction.choices import COLORMAPS, KINDS, RUNTIMES
from runtime.arguments import OneLineParser, path, positive, whole_path
from runtime.downloads import PRETRAINED_MODELS
from runtime.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line (default: of this program)."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add("--image_path", type=path, required=True, help="an image, a folder of images, a video "
        "file, or the number of a webcam (Ctrl-C stops it)")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--model_name", choices=PRETRAINED_MODELS, help="a published model")
    weights.add_argument("--load_weights_folder", type=path,
                         help="a folder with the networks encoder and depth, or hf:user/name")
    weights.add_argument("--load_onnx", type=path, help="a file of export_onnx.py, without PyTorch")
    add("--runtime", choices=RUNTIMES, default=RUNTIMES[0], help="of --load_onnx (%(default)s)")
    add("--ext", default="jpg", help="extension of the images in a folder (%(default)s)")
    add("--batch_size", type=positive(int), default=16, help="images per batch (%(default)s)")
    add("--no_cuda", action="store_true", help="use the CPU")
    for name in ("min", "max"):
        add(f"--{name}_depth", type=positive(float),
            help=f"{name}imum depth (default: the value used in training)")
    add("--pred_metric_depth", action="store_true", help="--output depth picture; depth is in "
        "metres for models trained with stereo pairs")
    add("--output", nargs="+", choices=KINDS,
        help="disp and depth: .npy; png: depth x 256 in 16 bits; picture: coloured disparity; "
             "video: frames beside their disparities (default: disp picture; for a video: video)")
    add("--ply", action="store_true", help="also write a point cloud of each image")
    add("--scene", action="store_true", help="fuse all frames to one cloud with the camera's path")
    add("--size", choices=["network", "image"], default="network",
        help="size of .npy maps (%(default)s)")
    add("--output_dir", type=whole_path, help="folder of all outputs (default: beside the input)")
    add("--disp_range", nargs=2, type=float, metavar=("DARK", "BRIGHT"),
        help="disparities in (0, 1) painted black and white (default: the image's or video's own)")
    add("--colormap", default="magma", choices=COLORMAPS, help="colours of pictures (%(default)s)")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--scale", type=positive(float), help="factor of the network's depth")
    scale.add_argument("--scale_from", type=path, metavar="GT_DEPTHS.npz", help="fit that factor "
                       "to ground truth: one depth map for each image, in the same order")
    add("--intrinsics", nargs=4, type=float, metavar=("FX", "FY", "CX", "CY"),
        help="intrinsics of the images in pixels, for clouds (default: an intrinsics.json beside "
             "the images, else the intrinsics of training)")
    add("--max_frames", type=positive(int), help="stop a video or a webcam after this many frames")
    args = parser.parse_args(argv)
    if args.min_depth and args.max_depth and args.min_depth >= args.max_depth:
        parser.error(f"--min_depth {args.min_depth} is not below --max_depth {args.max_depth}")
    if args.pred_metric_depth and args.output:
        parser.error("--pred_metric_depth is --output depth picture; leave one out")
    if args.disp_range and not 0 <= args.disp_range[0] < args.disp_range[1] <= 1:
        parser.error(f"--disp_range is {args.disp_range[0]:g} {args.disp_range[1]:g}; it must "
                     "ascend, between 0 and 1")
    return args


def test_simple(args: argparse.Namespace) -> None:
    """Predict and write everything that the options ask for."""
    # code written for Monodepth2 may build options by hand, with only the flags of the original
    defaults = parse_args(["--image_path", "", "--load_weights_folder", ""])
    from prediction.predict import predict_footage
    predict_footage(argparse.Namespace(**vars(defaults) | vars(args)))


def main() -> None:
    """Predict as the command line says."""
    test_simple(parse_args())


if __name__ == "__main__":
    run(main)
