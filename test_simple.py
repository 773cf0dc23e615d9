"""Predict depth of an image, a folder, a video or a camera's view, with any weights folder."""
from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from options import OneLineParser, positive
from runtime.downloads import PRETRAINED_MODELS, download_model_if_doesnt_exist
from runtime.errors import run

if TYPE_CHECKING:
    from checkpoints.training_camera import TrainingCamera
    from datasets.footage import Footage
    from prediction.write import Outputs

COLORMAPS = ("magma", "inferno", "plasma", "viridis", "turbo", "jet")
KINDS = ("disp", "depth", "png", "picture", "video")


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add("--image_path", required=True,
        help="an image, a folder of images, a video file, or the number of a camera (Ctrl-C ends)")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model_name", choices=PRETRAINED_MODELS,
                       help="a published model, downloaded on first use")
    which.add_argument("--load_weights_folder", help="a folder with encoder.pth and depth.pth")
    add("--ext", default="jpg", help="extension of the images in a folder (%(default)s)")
    add("--batch_size", type=positive(int), default=16,
        help="images that the network takes at once (%(default)s)")
    add("--no_cuda", action="store_true", help="use the CPU")
    for name in ("min", "max"):
        add(f"--{name}_depth", type=positive(float), help="of training (read from the weights)")
    add("--pred_metric_depth", action="store_true",
        help="--output depth picture; metres, for models that were trained with stereo pairs")
    add("--output", nargs="+", choices=KINDS,
        help="disp and depth: .npy; png: depth x 256 in 16 bits; picture: coloured disparity; "
             "video: frames beside their disparities (disp picture; of a video: video)")
    add("--ply", action="store_true", help="write a point cloud of each image too")
    add("--size", choices=["network", "image"], default="network", help="of .npy (%(default)s)")
    add("--output_dir", type=Path, help="for all that is written (beside the input)")
    add("--disp_range", nargs=2, type=float, metavar=("DARK", "BRIGHT"),
        help="disparities between 0 and 1 that are painted black and white (each image's own; of "
             "a video: those of its first frames)")
    add("--colormap", default="magma", choices=COLORMAPS, help="of pictures (%(default)s)")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--scale", type=positive(float),
                       help="multiply the network's depth by this")
    scale.add_argument("--scale_from", metavar="GT_DEPTHS.npz",
                       help="fit that factor to ground truth, a map for each image in their order")
    add("--intrinsics", nargs=4, type=float, metavar=("FX", "FY", "CX", "CY"),
        help="of the images, in pixels, for --ply (an intrinsics.json beside them, or training's)")
    add("--max_frames", type=positive(int), help="end a video or a camera after so many frames")
    args = parser.parse_args()
    if args.min_depth and args.max_depth and args.min_depth >= args.max_depth:
        parser.error(f"--min_depth {args.min_depth} is not below --max_depth {args.max_depth}")
    if args.pred_metric_depth and args.output:
        parser.error("--pred_metric_depth is --output depth picture; leave one out")
    if args.disp_range and not 0 <= args.disp_range[0] < args.disp_range[1] <= 1:
        parser.error(f"--disp_range is {args.disp_range[0]:g} {args.disp_range[1]:g}; it must "
                     "ascend, between 0 and 1")
    return args


def kinds_of(args: argparse.Namespace, is_video: bool) -> set[str]:
    """Return what is to be written: what was asked for, or what such a source usually gets."""
    usual = ["depth", "picture"] if args.pred_metric_depth else (
        ["video"] if is_video else ["disp", "picture"])
    return set(args.output or usual) | ({"ply"} if args.ply else set())


def training_camera(args: argparse.Namespace, folder: str | Path,
                    use_stereo: bool) -> TrainingCamera:
    """Return the camera of the weights, with the depth range that the command line gives."""
    from checkpoints.training_camera import read_training_camera
    camera = read_training_camera(folder, use_stereo).with_range(args.min_depth, args.max_depth)
    if args.pred_metric_depth and camera.metres is None and not (args.scale or args.scale_from):
        print(f"warning: {folder} was trained without stereo; its depth has an unknown scale")
    return camera


def write_all(footage: Footage, batches, outputs: Outputs, pool: ThreadPoolExecutor) -> int:
    """Write what is wanted of each frame as it comes; return how many there were."""
    from tqdm import tqdm

    from datasets.footage import DEFAULT_FPS
    from prediction.video import VideoFile
    count, singles = 0, outputs.kinds - {"video"}
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=footage.count, unit="frame", dynamic_ncols=True))
        video = None
        if "video" in outputs.kinds:
            path = Path(f"{outputs.stem(footage.name)}_disp.mp4")
            video = stack.enter_context(VideoFile(path, footage.fps or DEFAULT_FPS))
        try:
            for batch in batches:
                if outputs.disp_range is None and (footage.is_video or video):
                    outputs.fix_range(batch)
                for line in pool.map(outputs.save, batch) if singles else ():
                    if not footage.is_video:
                        bar.write(line)
                if video:
                    outputs.append(batch, video)
                count += len(batch)
                bar.update(len(batch))
        except KeyboardInterrupt:
            if not footage.is_camera:
                raise
    if video and count:
        print(f"{footage.source}: wrote {video.path}")
    if footage.is_video and singles and count:
        print(f"{footage.source}: wrote {', '.join(sorted(singles))} of each frame to "
              f"{outputs.stem(footage.name)}")
    return count


def main() -> None:
    """Predict as the command line says."""
    args = parse_args()
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from checkpoints.architecture import load_model
    from datasets.footage import Footage
    from prediction.images import fit_scale, predict_images
    from prediction.write import outputs_of, unit_of
    from runtime.distributed import get_device
    footage = Footage(args.image_path, args.ext, args.max_frames)
    folder = args.load_weights_folder or download_model_if_doesnt_exist(args.model_name)
    model, (height, width, use_stereo) = load_model(folder, device=get_device(args.no_cuda))
    camera = training_camera(args, folder, use_stereo)
    with ThreadPoolExecutor() as pool:
        def batches():
            return predict_images(model, footage, height, width, args.batch_size, pool)

        scale = fit_scale(batches(), args.scale_from, camera) if args.scale_from else args.scale
        outputs = outputs_of(args, kinds_of(args, footage.is_video), camera, unit_of(
            camera, scale, args.scale_from, args.pred_metric_depth), footage.is_video)
        started = time.monotonic()
        count = write_all(footage, batches(), outputs, pool)
    seconds = time.monotonic() - started
    print(f"{count} frames in {seconds:.1f} s, {count / seconds:.1f} frames/s; depth is "
          f"{outputs.unit.words}")


if __name__ == "__main__":
    run(main)
