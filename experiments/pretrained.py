"""Compare ImageNet's weights with random ones: `python -m experiments.pretrained DATA --out OUT`.

Each data folder has KITTI's raw layout with both colour cameras. The depth network has the encoder
EfficientNet-Lite0, and learns from stereo pairs alone: without a pose network, the start of the
encoder is all that differs. The table has the losses of the first and the last third of the steps:
means over seeds, and standard deviations.
"""
from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import mean

from checkpoints.weights import save_state_dict
from datasets.image_files import list_files
from experiments.lite0_weights import NAME, convert
from experiments.table import mean_and_spread
from options import PROJECT
from runtime.arguments import OneLineParser, non_negative_int, positive, whole_path
from runtime.errors import DataError, run

VAL_SHARE = 8  # the last eighth of the frames is for validation
LOGS = 30      # logged steps of a run
HEAD = ("data", "start", "seeds", "train, first third", "train, last third", "val, first third",
        "val, last third")


def write_split(data: Path, folder: Path, samples: int) -> None:
    """Write a list of `samples` training samples of a data folder, and one of validation frames.

    Raises:
        DataError: the folder has no drive with enough stereo frames.
    """
    lines = []
    for camera in sorted(data.glob("*/*/image_02/data")):
        frames = [int(path.stem) for path in list_files(camera)][1:-1]  # those with neighbours
        lines += [f"{camera.parents[1].relative_to(data)} {frame} l" for frame in frames]
    held_out = len(lines) // VAL_SHARE
    if not held_out:
        raise DataError(f"{data} has {len(lines)} frames with neighbours; expected KITTI's raw "
                        f"layout with at least {VAL_SHARE}")
    train, val = lines[:-held_out], lines[-held_out:]
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [train[i * 7 % len(train)] for i in range(samples)]  # spread over the drive
    (folder / "train_files.txt").write_text("\n".join(chosen) + "\n")
    (folder / "val_files.txt").write_text("\n".join(val) + "\n")


def train(data: Path, start: str, seed: int, opts: Namespace) -> Path:
    """Train from one kind of start with one seed; return the run's metrics.jsonl.

    Raises:
        DataError: the training fails.
    """
    split, name = opts.out / f"split_{data.name}", f"{data.name}_{start}_{seed}"
    flags = {"data_path": data, "split": split, "log_dir": opts.out, "model_name": name,
             "encoder": NAME, "height": opts.height, "width": opts.width, "frame_ids": 0,
             "batch_size": opts.batch_size, "num_epochs": 1, "num_workers": 0, "seed": seed,
             "weights_init": "scratch", "log_frequency": max(1, opts.steps // LOGS),
             "resume": "auto",
             "cache_dir": opts.out / "cache"}
    if start == "pretrained":
        flags["encoder_weights"] = opts.out / "lite0.pth"
    if any(data.glob("*/*/image_02/data/*.png")):
        flags["png"] = ""
    words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value)) if word]
    with (opts.out / f"{name}.log").open("w") as log:
        done = subprocess.run([sys.executable, "train.py", *words, "--use_stereo"], cwd=PROJECT,
                              stdout=log, stderr=log)
    if done.returncode:
        raise DataError(f"{name} ended with status {done.returncode}; see {opts.out / name}.log")
    return opts.out / name / "metrics.jsonl"


def thirds(path: Path) -> list[float]:
    """Return the mean losses of a run: train and val, first and last third of the steps."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = []
    for mode in ("train", "val"):
        losses = [row["loss"] for row in rows if row["mode"] == mode]
        third = max(1, len(losses) // 3)
        found += [mean(losses[:third]), mean(losses[-third:])]
    return found


def parse(argv: list[str] | None = None) -> Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m experiments.pretrained",
                           description=__doc__.partition(":")[0] + ".")
    add = parser.add_argument
    add("data", nargs="+", type=whole_path, help="folders in KITTI's raw layout")
    add("--out", type=whole_path, required=True, help="folder for runs and lists")
    add("--seeds", nargs="+", type=non_negative_int, default=[0, 1, 2], help="seeds (0 1 2)")
    add("--steps", type=positive(int), default=200, help="steps of a run (%(default)s)")
    add("--batch_size", type=positive(int), default=4, help="samples in a step (%(default)s)")
    add("--height", type=int, default=128, help="height of the images (%(default)s)")
    add("--width", type=int, default=416, help="width of the images (%(default)s)")
    opts = parser.parse_args(argv)
    opts.out, opts.data = opts.out.resolve(), [path.resolve() for path in opts.data]
    return opts


def main() -> None:
    """Train every combination, one after the other, and print the table."""
    opts = parse()
    opts.out.mkdir(parents=True, exist_ok=True)
    save_state_dict(opts.out / "lite0.pth", convert())
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|")
    for data, start in product(opts.data, ("pretrained", "scratch")):
        write_split(data, opts.out / f"split_{data.name}", opts.steps * opts.batch_size)
        runs = [thirds(train(data, start, seed, opts)) for seed in opts.seeds]
        cells = [mean_and_spread(list(values), len(runs)) for values in zip(*runs, strict=True)]
        print("| " + " | ".join([data.name, start, str(len(runs)), *cells]) + " |", flush=True)


if __name__ == "__main__":
    run(main)
