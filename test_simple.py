"""Predict depth of an image, or of every image in a folder, with any weights folder."""
from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from downloads import PRETRAINED_MODELS, download_model_if_doesnt_exist
from options import MAX_DEPTH, MIN_DEPTH, OneLineParser, positive
from utils import DataError, run


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--image_path", required=True, help="an image, or a folder of images")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model_name", choices=PRETRAINED_MODELS,
                       help="a published model, downloaded on first use")
    which.add_argument("--load_weights_folder", help="a folder with encoder.pth and depth.pth")
    parser.add_argument("--ext", default="jpg",
                        help="extension of the images in a folder (%(default)s)")
    parser.add_argument("--batch_size", type=positive(int), default=16,
                        help="images that the network takes at once (%(default)s)")
    parser.add_argument("--no_cuda", action="store_true", help="use the CPU")
    parser.add_argument("--min_depth", type=positive(float), default=MIN_DEPTH,
                        help="as in training (%(default)s)")
    parser.add_argument("--max_depth", type=positive(float), default=MAX_DEPTH,
                        help="as in training (%(default)s)")
    parser.add_argument("--pred_metric_depth", action="store_true",
                        help="write metres instead of disparity; for models trained with KITTI's "
                             "stereo pairs")
    args = parser.parse_args()
    if args.min_depth >= args.max_depth:
        parser.error(f"--min_depth {args.min_depth} is not below --max_depth {args.max_depth}")
    return args


def find_images(path: Path, ext: str) -> list[Path]:
    """Return the image, or those in the folder, without pictures that this script made.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"--image_path {path} does not exist; give an image or a folder of images")
    found = sorted(p for p in path.glob(f"*.{ext.lstrip('.')}") if not p.stem.endswith("_disp"))
    if not found:
        raise DataError(f"{path} has no *.{ext.lstrip('.')}; name their extension with --ext")
    return found


def main() -> None:
    """Predict as the command line says."""
    args = parse_args()
    images = find_images(Path(args.image_path), args.ext)
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from checkpoints import load_model
    from distributed import get_device
    from prediction import predict_images, save_prediction
    folder = args.load_weights_folder or download_model_if_doesnt_exist(args.model_name)
    model, (height, width, use_stereo) = load_model(folder, device=get_device(args.no_cuda))
    if args.pred_metric_depth and not use_stereo:
        print(f"warning: {folder} was trained without stereo; its depth has an unknown scale")
    save = partial(save_prediction, min_depth=args.min_depth, max_depth=args.max_depth,
                   metric=args.pred_metric_depth)
    with ThreadPoolExecutor() as pool:
        for batch in predict_images(model, images, height, width, args.batch_size, pool):
            for line in pool.map(save, batch):
                print(line)


if __name__ == "__main__":
    run(main)
