"""Predict an image, a folder, a video or a webcam and write the results, as test_simple.py does."""
from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from checkpoints.training_camera import Unit
from datasets.footage import DEFAULT_FPS, Footage
from prediction.choices import RUNTIMES
from prediction.images import ArrayPredictor, Frame, fit_scale, predict_images
from prediction.onnx_runtime import OnnxPredictor
from prediction.video import VideoFile
from prediction.write import FrameWriter, OutputOptions
from runtime.downloads import download_model_if_doesnt_exist
from runtime.errors import DataError, UsageError, counted


def predict_footage(args: Namespace) -> None:
    """Predict all frames of --image_path, write their outputs and print the unit of depth.

    Args:
        args: the flags of test_simple.py.

    Raises:
        DataError: the images, the weights or the flags are wrong, or a file cannot be written.
    """
    check_weights_flags(args)
    footage = Footage(args.image_path, args.ext, args.max_frames)
    weights = named_weights(args)
    predictor = load_predictor(weights, args)
    scale_is_given = args.scale is not None or args.scale_from is not None
    if args.pred_metric_depth and predictor.training_camera.metres is None and not scale_is_given:
        print(f"warning: {weights} was trained without stereo; its depth has an unknown scale")
    with ThreadPoolExecutor() as pool:
        unit = choose_unit(args, predictor, footage, pool)
        writer = FrameWriter(output_options(args, footage.is_video), predictor, unit,
                             footage.is_video)
        scene = None
        if args.scene:
            from prediction.scene import SceneWriter  # needs PyTorch
            scene = SceneWriter(predictor, writer)
        started = time.monotonic()
        batches = predict_images(predictor, footage, args.batch_size, pool)
        count = write_batches(footage, scene.follow(batches) if scene else batches, writer, pool)
    if scene:
        print(f"{footage.source}: wrote {scene.write(writer.path_stem(footage.name))}")
    seconds = time.monotonic() - started
    print(f"{counted(count, 'frame')} in {seconds:.1f} s, {count / seconds:.1f} frames/s; depth is "
          f"{unit.words}")


def check_weights_flags(args: Namespace) -> None:
    """Raise a UsageError if flags do not go with the kind of weights that is named."""
    if args.load_onnx and args.scene:
        raise UsageError("--scene needs the pose network of a weights folder, and --load_onnx has "
                         "none; give --load_weights_folder")
    if args.load_onnx and args.scale_from:
        raise UsageError("--scale_from needs PyTorch, and --load_onnx runs without it; fit the "
                         "factor with --load_weights_folder, and give it as --scale")
    if args.runtime != RUNTIMES[0] and not args.load_onnx:
        raise UsageError(f"--runtime {args.runtime} runs a file of --load_onnx; give one, or leave "
                         "it out")


def named_weights(args: Namespace) -> str | Path:
    """Return the weights folder or the ONNX file that the flags name; download a published model.

    Raises:
        UsageError: the flags name none.
    """
    if args.load_onnx or args.load_weights_folder:
        return args.load_onnx or args.load_weights_folder
    if args.model_name:
        return download_model_if_doesnt_exist(args.model_name)
    raise UsageError("no weights are named; give --load_weights_folder, or --model_name of a "
                     "published model")


def load_predictor(weights: str | Path, args: Namespace) -> ArrayPredictor:
    """Load the network: an ONNX file without PyTorch, a weights folder with it."""
    if args.load_onnx:
        return OnnxPredictor(weights, args.min_depth, args.max_depth, args.runtime)
    # imported here, because machines that run an ONNX file may lack PyTorch
    from prediction.predictor import Predictor
    from runtime.distributed import get_device
    return Predictor(weights, get_device(args.no_cuda), args.min_depth, args.max_depth,
                     with_pose=args.scene)


def choose_unit(args: Namespace, predictor: ArrayPredictor, footage: Footage,
                pool: Executor) -> Unit:
    """Return the unit of depth; --scale_from predicts all frames once to fit the scale."""
    scale = args.scale
    if args.scale_from:
        batches = predict_images(predictor, footage, args.batch_size, pool)
        scale = fit_scale(batches, args.scale_from, predictor)
    return predictor.training_camera.unit(scale, args.scale_from, args.pred_metric_depth)


def output_options(args: Namespace, is_video: bool) -> OutputOptions:
    """Return the outputs that the flags choose, and create --output_dir.

    Raises:
        DataError: the folder cannot be created.
    """
    if args.output_dir is not None:
        try:
            args.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--output_dir {args.output_dir} cannot be created: "
                            f"{error.strerror}") from None
    if args.output:
        kinds = set(args.output)
    elif args.scene:
        kinds = set()
    elif args.pred_metric_depth:
        kinds = {"depth", "picture"}
    else:
        kinds = {"video"} if is_video else {"disp", "picture"}
    if args.ply:
        kinds.add("ply")
    return OutputOptions(kinds, args.output_dir, args.size == "image",
                         tuple(args.disp_range) if args.disp_range else None, args.intrinsics,
                         args.colormap)


def write_batches(footage: Footage, batches: Iterable[list[Frame]], writer: FrameWriter,
                  pool: Executor) -> int:
    """Write the outputs of each batch as soon as it is predicted; return the number of frames.

    Ctrl-C ends the frames of a webcam; the outputs are kept.
    """
    count, video = 0, None
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=footage.count, unit="frame", dynamic_ncols=True))
        if "video" in writer.options.kinds:
            path = Path(f"{writer.path_stem(footage.name)}_disp.mp4")
            video = stack.enter_context(VideoFile(path, footage.fps or DEFAULT_FPS))
        try:
            for batch in batches:
                if writer.disp_range is None and (footage.is_video or video):
                    writer.fix_disp_range(batch)
                for frame, paths in zip(batch, pool.map(writer.write, batch), strict=True):
                    if paths and not footage.is_video:
                        bar.write(f"{frame.label}: wrote {enumerate_in_words(paths)}")
                    if video:
                        video.write(writer.paint_beside(frame), frame.time)
                count += len(batch)
                bar.update(len(batch))
        except KeyboardInterrupt:
            if not footage.is_webcam:
                raise
    if count:
        print_video_outputs(footage, writer, video)
    return count


def print_video_outputs(footage: Footage, writer: FrameWriter, video: VideoFile | None) -> None:
    """Print the path of the video, and the folder of the files of a video's frames."""
    frame_kinds = writer.options.kinds - {"video"}
    if video:
        print(f"{footage.source}: wrote {video.path}")
    if footage.is_video and frame_kinds:
        print(f"{footage.source}: wrote {', '.join(sorted(frame_kinds))} of each frame to "
              f"{writer.path_stem(footage.name)}")


def enumerate_in_words(words: list[str]) -> str:
    """Join words as in "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
