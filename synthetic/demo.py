"""The demo: a user's day on a rendered street drive, in a few minutes without a GPU."""
from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from checkpoints.weights import InputFormat, save_weights
from datasets.splits import parse_line, read_split
from kitti_utils import generate_depth_map
from networks import Monodepth2
from options import PROJECT
from runtime.errors import DataError, run
from runtime.files import save_array, write_atomically
from synthetic.render import HELD_OUT
from utils import sec_to_hm_str

HEIGHT, WIDTH = 64, 224
EPOCHS, BATCH_SIZE = 6, 4
LEARNING_RATE = 2e-4   # twice the paper's: the run is a thousandth of its length
# In the network's unit: 2.2 m, and hardly anything on the street is nearer. The default of 0.1 has
# the network start at 1 m everywhere, so far off that frames in time, which leave the scale open,
# may win every pixel before the stereo view has set it.
MIN_DEPTH = 0.4
SEED = 0
FAR = 80.0             # metres, where no training scan ever reaches
SHOWN = 40             # the test frame in the picture


def call(script: str, *words: object) -> str:
    """Run one of the project's command lines, shown as a user would type it; return its output.

    Raises:
        DataError: it failed; it has said why itself.
    """
    line = [script, *map(str, words)]
    print("\n$ python " + shlex.join(line), flush=True)
    done = subprocess.run([sys.executable, *line], text=True, stdout=subprocess.PIPE)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise DataError(f"{script} ended with status {done.returncode}; see above")
    return done.stdout


def first_error(out: str) -> float:
    """Return abs_rel, the first number of the table that evaluate_depth.py printed."""
    (row,) = [line for line in out.splitlines() if line.startswith("&")]
    return float(row.split("&")[1])


def save_untrained(folder: Path) -> None:
    """Write the weights of a network that has seen nothing."""
    torch.manual_seed(SEED)
    model = Monodepth2(frame_ids=[0])
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, True))


def save_constant_map(drive: Path, split: Path, path: Path) -> None:
    """Write, for every test image, the per-pixel median of the training scans' depths."""
    depths = []
    for line in read_split(split / "train_files.txt"):
        folder, frame, side = parse_line(line)
        if side == "l":
            scan = drive / folder / f"velodyne_points/data/{frame:010d}.bin"
            depths.append(generate_depth_map((drive / folder).parent, scan, vel_depth=True))
    seen = np.ma.masked_equal(depths, 0)
    constant = np.ma.median(seen, 0).filled(FAR).astype(np.float32)
    tests = len(read_split(split / "test_files.txt"))
    save_array(path, np.broadcast_to(1 / constant, (tests, *constant.shape)))


def save_picture(image: Path, path: Path) -> None:
    """Write an image beside the disparity that test_simple.py made of it."""
    pair = [cv2.imread(str(p)) for p in (image, image.with_name(f"{image.stem}_disp.jpeg"))]
    png = cv2.imencode(".png", cv2.resize(np.hstack(pair), None, fx=2, fy=2))[1]
    write_atomically(path, png.tobytes())


def evaluate(drive: Path, split: Path, *words: object) -> float:
    """Run evaluate_depth.py on the drive's test frames; return abs_rel."""
    return first_error(call("evaluate_depth.py", "--data_path", drive, "--eval_split", split,
                            "--num_workers", 0, "--min_depth", MIN_DEPTH, *words))


def learn(out: Path, drive: Path, split: Path) -> dict[str, float]:
    """Train, export and evaluate; return abs_rel of each depth that is compared."""
    call("train.py", "--data_path", drive, "--split", split, "--height", HEIGHT, "--width", WIDTH,
         "--use_stereo", "--weights_init", "scratch", "--batch_size", BATCH_SIZE, "--num_epochs",
         EPOCHS, "--scheduler_step_size", EPOCHS - 1, "--learning_rate", LEARNING_RATE,
         "--num_workers", 1, "--log_dir", out, "--model_name", "model", "--save_frequency", EPOCHS,
         "--min_depth", MIN_DEPTH, "--overwrite")
    save_untrained(out / "untrained")
    call("export_gt_depth.py", "--data_path", drive, "--split", split)
    save_constant_map(drive, split, out / "constant.npy")
    weights = "--load_weights_folder", out / f"model/models/weights_{EPOCHS - 1}"
    errors = {
        "untrained network": evaluate(drive, split, "--load_weights_folder", out / "untrained",
                                      "--eval_mono"),
        "best constant map": evaluate(drive, split, "--ext_disp_to_eval", out / "constant.npy",
                                      "--eval_mono"),
        "trained network": evaluate(drive, split, *weights, "--eval_mono"),
        "the same, in metres": evaluate(drive, split, *weights, "--eval_stereo"),
    }
    call("evaluate_pose.py", "--data_path", drive, "--eval_split",
         drive / "splits/odom/test_files_09.txt", "--num_workers", 0, *weights)
    image = out / "street.jpg"
    shutil.copy(drive / HELD_OUT / f"image_02/data/{SHOWN:010d}.jpg", image)
    call("test_simple.py", "--image_path", image, "--min_depth", MIN_DEPTH, *weights)
    return errors


def main() -> None:
    """Render, train, export, evaluate, predict; print what was learned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for all that is made")
    out = Path(os.path.relpath(parser.parse_args().out, PROJECT))
    os.chdir(PROJECT)
    started = time.monotonic()
    drive = out / "drive"
    if not drive.exists():
        call("-m", "synthetic.render", drive, "--height", HEIGHT, "--width", WIDTH)
    errors = learn(out, drive, drive / "splits/drive")
    if errors["trained network"] > errors["untrained network"] / 2:
        raise DataError(f"the network did not learn: abs_rel is {errors['trained network']}, "
                        f"untrained {errors['untrained network']}; run make test")
    save_picture(out / "street.jpg", out / "demo.png")
    print("\nerror of depth on a street never seen (abs_rel, lower is better)")
    for name, error in errors.items():
        print(f"  {name:<20}{error:8.3f}")
    print(f"picture (input beside disparity): {out / 'demo.png'}\n"
          f"done in {sec_to_hm_str(time.monotonic() - started)}")


if __name__ == "__main__":
    run(main)
