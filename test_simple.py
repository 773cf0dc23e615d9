"""Predict depth of an image, or of every image in a folder, with any weights folder."""
from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from checkpoints import load_model
from datasets import as_float
from layers import disp_to_depth, resize_disp
from metrics import STEREO_SCALE_FACTOR
from networks import Monodepth2
from options import MAX_DEPTH, MIN_DEPTH, OneLineParser, positive
from utils import (
    PRETRAINED_MODELS,
    DataError,
    colorize,
    download_model_if_doesnt_exist,
    get_device,
    run,
    save_array,
    write_atomically,
)


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


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB.

    Raises:
        DataError: it is not one.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


@torch.no_grad()
def predict(model: Monodepth2, image: Image.Image, height: int, width: int) -> torch.Tensor:
    """Return the (1, 1, height, width) disparity in (0, 1) of an image of any size."""
    resized = np.array(image.resize((width, height), Image.Resampling.LANCZOS))
    device = next(model.parameters()).device
    tensor = torch.from_numpy(resized).to(device).permute(2, 0, 1)[None]
    return model.disparity(as_float(tensor)).cpu()


def main() -> None:
    """Predict as the command line says."""
    args = parse_args()
    images = find_images(Path(args.image_path), args.ext)
    folder = args.load_weights_folder or download_model_if_doesnt_exist(args.model_name)
    model, (height, width, use_stereo) = load_model(folder, device=get_device(args.no_cuda))
    if args.pred_metric_depth and not use_stereo:
        print(f"warning: {folder} was trained without stereo; its depth has an unknown scale")
    for path in images:
        image = read_image(path)
        disp = predict(model, image, height, width)
        scaled_disp, depth = disp_to_depth(disp, args.min_depth, args.max_depth)
        stem = path.with_suffix("")
        if args.pred_metric_depth:
            npy, values = f"{stem}_depth.npy", STEREO_SCALE_FACTOR * depth
        else:
            npy, values = f"{stem}_disp.npy", scaled_disp
        save_array(npy, values.numpy())
        buffer = io.BytesIO()
        full_size = resize_disp(disp, image.height, image.width)[0, 0].numpy()
        Image.fromarray(colorize(full_size)).save(buffer, "JPEG")
        write_atomically(f"{stem}_disp.jpeg", buffer.getvalue())
        print(f"{path}: wrote {npy} and {stem}_disp.jpeg")


if __name__ == "__main__":
    run(main)
