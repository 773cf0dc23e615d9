"""Train, export and time networks with encoders of many kinds: `python -m benchmarks.encoders`.

Each encoder is trained for a few steps on a rendered drive by train.py, loaded from its weights
folder, exported to ONNX, and timed with PyTorch and with ONNX Runtime, one image at a time.
"""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from networks import Monodepth2
from options import PROJECT, input_size
from prediction.onnx import INPUT, OUTPUTS, differences_from_pytorch, onnx_bytes
from prediction.predictor import Predictor
from runtime.arguments import OneLineParser, positive
from runtime.errors import DataError, counted, run
from synthetic.render import HELD_OUT, TRAIN

ENCODERS = (  # from 3 to 90 million parameters
    "tf_efficientnet_lite0", "fastvit_t8", "efficientvit_b1", "edgenext_small", "repvit_m1_0",
    "mobilenetv4_conv_medium", "regnety_016", "resnet18", "pvt_v2_b1", "convnextv2_nano",
    "resnet50", "vit_small_patch14_dinov2", "swin_tiny_patch4_window7_224", "convnext_tiny",
    "maxvit_tiny_tf_224", "swin_base_patch4_window7_224", "convnext_base",
    "vit_base_patch14_dinov2")
OPSET = 18
HEAD = ("encoder", "parameters, M", "GFLOPs", "PyTorch, images/s", "ONNX Runtime, images/s")


class Figures(NamedTuple):
    """Hold a row of the table.

    Attributes:
        name: of the encoder.
        parameters: of the encoder, millions.
        gflops: of the depth network for one image; a multiplication and an addition are two.
        pytorch: images per second in float32, with the threads of this process.
        onnxruntime: the same with ONNX Runtime.
    """

    name: str
    parameters: float
    gflops: float
    pytorch: float
    onnxruntime: float


def render(folder: Path, height: int, width: int, steps: int) -> None:
    """Render a drive with a split of as many training frames as there are steps."""
    subprocess.run([sys.executable, "-m", "synthetic.render", folder, "--frames", "24", "--height",
                    str(height), "--width", str(width)], cwd=PROJECT, check=True,
                   capture_output=True)
    split = folder / "splits" / "few"
    split.mkdir()
    lines = [f"{TRAIN} {1 + i % 10} l\n" for i in range(steps)]
    (split / "train_files.txt").write_text("".join(lines))
    (split / "val_files.txt").write_text(f"{HELD_OUT} 1 l\n")


def train(name: str, drive: Path, opts: Namespace) -> Path:
    """Train an encoder with train.py, and return its weights folder.

    Raises:
        DataError: the training fails.
    """
    flags = {"data_path": drive, "split": drive / "splits" / "few", "log_dir": drive / "log",
             "model_name": name, "encoder": name, "height": opts.height, "width": opts.width,
             "batch_size": 1, "num_epochs": 1, "num_workers": 0, "weights_init": "scratch"}
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    done = subprocess.run([sys.executable, "train.py", *words, "--no_cuda", "--overwrite"],
                          cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"training fails: {done.stderr.strip().splitlines()[-1]}")
    return drive / "log" / name / "models" / "weights_0"


def count_gflops(name: str, height: int, width: int) -> float:
    """Count the operations of convolutions and matrix products for one image."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = Monodepth2(frame_ids=[0], encoder=name, image_size=(height, width)).eval()
        before = counter.get_total_flops()  # building an encoder may try an image
        model.disparity(torch.empty(1, 3, height, width))
    return (counter.get_total_flops() - before) / 1e9


def images_per_second(work: Callable[[], object], seconds: float) -> float:
    """Return the reciprocal of the shortest time that `work` takes, of many in a few seconds."""
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1 / min(times)


def measure(name: str, drive: Path, opts: Namespace) -> Figures:
    """Train, export and time one encoder.

    Raises:
        DataError: it cannot be trained, or the exported file differs from PyTorch.
    """
    import onnxruntime
    predictor = Predictor(train(name, drive, opts))
    content = onnx_bytes(predictor, OPSET)
    differences_from_pytorch(content, predictor)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, opts.height, opts.width)
    encoder = predictor.model.encoder
    return Figures(
        name, sum(x.numel() for x in encoder.parameters() if x.requires_grad) / 1e6,
        count_gflops(name, opts.height, opts.width),
        images_per_second(lambda: predictor.disparity(image), opts.seconds),
        images_per_second(lambda: session.run(OUTPUTS, {INPUT: image.numpy()}), opts.seconds))


def markdown_line(row: Figures) -> str:
    """Format a row of the table."""
    return (f"| `{row.name}` | {row.parameters:.1f} | {row.gflops:.1f} | {row.pytorch:.1f} | "
            f"{row.onnxruntime:.1f} |")


def parse(argv: list[str] | None = None) -> Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m benchmarks.encoders",
                           description=__doc__.partition(":")[0] + ".")
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", default=ENCODERS,
        help=f"encoders to measure (default: {len(ENCODERS)} of them)")
    add("--steps", type=positive(int), default=5, help="training steps (%(default)s)")
    add("--seconds", type=positive(float), default=5, help="time of a measurement (%(default)s)")
    add("--height", type=input_size, default=192, help="height of the images (%(default)s)")
    add("--width", type=input_size, default=640, help="width of the images (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    """Measure the encoders and print a Markdown table, from the smallest encoder to the largest."""
    opts, rows, failed = parse(), [], []
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder) / "drive"
        render(drive, opts.height, opts.width, opts.steps)
        for name in tqdm(opts.only, unit="encoder"):
            try:
                rows.append(measure(name, drive, opts))
                tqdm.write(markdown_line(rows[-1]))
            except DataError as error:  # the others are measured all the same
                failed.append(name)
                tqdm.write(f"{name}: {error}")
            shutil.rmtree(drive / "log", ignore_errors=True)  # up to a GB
    rows.sort(key=lambda row: row.parameters)
    print(f"\n{opts.width}x{opts.height}, one image at a time, the fastest of many, "
          f"{counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}\n")
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|")
    print("\n".join(map(markdown_line, rows)))
    if failed:
        raise DataError(f"{len(failed)} of {len(opts.only)} encoders failed: {', '.join(failed)}")


if __name__ == "__main__":
    run(main)
