"""Compare runtimes of the depth network on this CPU: `python -m benchmarks.runtimes`.

The network of a weights folder predicts one image at a time with PyTorch, ONNX Runtime and
OpenVINO, in all precisions, and a Markdown table is printed. Times are taken in turns, the fastest
of many; errors are of depth, relative to PyTorch in float32, on images that did not calibrate int8.
"""
from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from options import input_size
from prediction.onnx import onnx_bytes
from prediction.onnx_runtime import OnnxPredictor
from prediction.predictor import Predictor
from prediction.quantise import (
    read_calibration_images,
    with_half_weights,
    with_int8_convolutions,
)
from runtime.arguments import OneLineParser, positive, whole_path
from runtime.errors import DataError, counted, run
from runtime.timing import time_in_turns

OPSET = 18
REFERENCE = "PyTorch, float32"
HEAD = ("runtime", "file, MB", "images/s", "error of depth, %")
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
Disparity = Callable[[np.ndarray], np.ndarray]  # of (1, 3, h, w) uint8


def write_files(folder: Path, predictor: Predictor, calibrating: list[np.ndarray]) -> list[Path]:
    """Export the network to float32.onnx, half.onnx and int8.onnx; return their paths."""
    float32 = onnx_bytes(predictor, OPSET)
    contents = {"float32": float32, "half": with_half_weights(float32),
                "int8": with_int8_convolutions(float32, calibrating)}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return [folder / f"{name}.onnx" for name in contents]


def in_bfloat16(predictor: Predictor) -> Disparity:
    """Return a function that predicts in bfloat16, as autocast chooses."""
    def disparity(image: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return predictor.disparity(torch.from_numpy(image)).float().numpy()
    return disparity


def find_runtimes(predictor: Predictor, files: list[Path]) -> Iterator[tuple[str, str, Disparity]]:
    """Yield name, size of the file in MB and function of each runtime that is installed."""
    yield REFERENCE, "", predictor.disparity_array
    yield "PyTorch, bfloat16", "", in_bfloat16(predictor)
    for runtime, name in NAMES.items():
        if find_spec(runtime) is None:
            print(f"{name} is not installed, and not in the table")
            continue
        for path in files:
            yield (f"{name}, {path.stem}", f"{path.stat().st_size / 1e6:.0f}",
                   OnnxPredictor(path, runtime=runtime).disparity_array)


def depth_error(depths: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the mean over pixels and images of |depth - expected| / expected."""
    return float(np.mean([np.abs(found - depth) / depth
                          for found, depth in zip(depths, expected, strict=True)]))


def parse(argv: list[str] | None = None) -> Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m benchmarks.runtimes",
                           description=__doc__.partition(":")[0] + ".")
    add = parser.add_argument
    add("--load_weights_folder", required=True, type=whole_path,
        help="trained weights, of any input size")
    add("--calibrate", required=True, metavar="FOLDER", type=whole_path,
        help="20 or more images; a third of them measures the errors")
    add("--rounds", type=positive(int), default=50, help="calls of each runtime (%(default)s)")
    add("--height", type=input_size, default=192, help="height of the input (%(default)s)")
    add("--width", type=input_size, default=640, help="width of the input (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    """Measure the runtimes and print a Markdown table."""
    opts = parse()
    predictor = Predictor(opts.load_weights_folder)
    predictor.height, predictor.width = opts.height, opts.width  # convolutions take any size
    images = read_calibration_images(opts.calibrate, opts.height, opts.width)
    held_out = [(255 * image).round().astype(np.uint8) for image in images.held_out]
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), predictor, images.calibrating)
        runtimes = list(find_runtimes(predictor, files))
        seconds = time_in_turns({name: lambda predict=predict: predict(held_out[0])
                                 for name, _, predict in runtimes}, opts.rounds)
        depths = {name: [predictor.training_camera.disp_to_depth(predict(image))[1]
                         for image in held_out] for name, _, predict in tqdm(runtimes)}
    errors = {name: depth_error(found, depths[REFERENCE]) for name, found in depths.items()}
    if not np.isfinite(list(errors.values())).all():
        raise DataError("a runtime predicts depths that are not finite; are all weights finite?")
    print(f"\n{opts.width}x{opts.height}, one image at a time, the fastest of {opts.rounds} in "
          f"turns, {counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}; errors "
          f"on {counted(len(held_out), 'image')}\n")
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|")
    for name, size, _ in runtimes:
        print(f"| {name} | {size} | {1 / seconds[name]:.1f} | {100 * errors[name]:.2g} |")


if __name__ == "__main__":
    run(main)
