"""Demonstrate the project on a rendered street, without a GPU: `python -m synthetic.demo OUT`."""
from __future__ import annotations

import argparse
import os
import shutil
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
from runtime.arguments import OneLineParser, whole_path
from runtime.errors import DataError, run
from runtime.files import save_array, write_atomically
from synthetic.render import HELD_OUT
from synthetic.training import MIN_DEPTH, Training, run_command
from utils import sec_to_hm_str

TRAINING = Training(frames=300, height=96, width=320, stereo_epochs=5, video_epochs=1)
SEED = 0
FAR = 80.0        # metres, for pixels that no training scan reaches
SHOWN_FRAME = 40  # test frame in the picture


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line.

    Args:
        argv: words of the command line (default: those of this program).
    """
    parser = OneLineParser(
        prog="python -m synthetic.demo",
        description="Render a street, train on it, evaluate, predict: a few minutes on a CPU.")
    parser.add_argument("out", type=whole_path,
                        help="folder for all files; a rendered drive is reused")
    return parser.parse_args(argv)


def main() -> None:
    """Render, train, export, evaluate and predict; print the errors of the trained network.

    Raises:
        DataError: a command failed, or the network did not learn.
    """
    out = Path(os.path.relpath(parse_args().out, PROJECT))
    os.chdir(PROJECT)
    started = time.monotonic()
    drive, weights = TRAINING.run(out, "--overwrite")
    errors = compare_errors(out, drive, weights)
    if errors["trained network"] > errors["untrained network"] / 2:
        raise DataError(f"the network did not learn: abs_rel is {errors['trained network']}, "
                        f"untrained {errors['untrained network']}; run make test")
    picture = predict_picture(out, drive, weights)
    print("\nerror of depth on a street never seen (abs_rel, lower is better)")
    for name, error in errors.items():
        print(f"  {name:<20}{error:8.3f}")
    print(f"picture (input beside disparity): {picture}\n"
          f"done in {sec_to_hm_str(time.monotonic() - started)}")


def compare_errors(out: Path, drive: Path, weights: Path) -> dict[str, float]:
    """Return the abs_rel of each compared depth, and print the errors of the camera's motion.

    Args:
        out: folder for what the trained network is compared with.
        drive: folder of the rendered drive.
        weights: folder of the trained weights.
    """
    split, flags = drive / "splits/drive", ["--load_weights_folder", weights]
    save_untrained_weights(out / "untrained")
    run_command("export_gt_depth.py", "--data_path", drive, "--split", split)
    save_constant_disparities(drive, split, out / "constant.npy")
    errors = {
        "untrained network": measure_abs_rel(drive, split, "--load_weights_folder",
                                             out / "untrained", "--eval_mono"),
        "best constant map": measure_abs_rel(drive, split, "--ext_disp_to_eval",
                                             out / "constant.npy", "--eval_mono"),
        "trained network": measure_abs_rel(drive, split, *flags, "--eval_mono"),
        "the same, in metres": measure_abs_rel(drive, split, *flags, "--eval_stereo"),
    }
    run_command("evaluate_pose.py", "--data_path", drive, "--eval_split",
                drive / "splits/odom/test_files_09.txt", "--num_workers", 0, *flags)
    return errors


def measure_abs_rel(drive: Path, split: Path, *words: object) -> float:
    """Run evaluate_depth.py on the drive's test frames, and return abs_rel."""
    return parse_abs_rel(run_command("evaluate_depth.py", "--data_path", drive, "--eval_split",
                                     split, "--num_workers", 0, "--min_depth", MIN_DEPTH, *words))


def parse_abs_rel(output: str) -> float:
    """Return abs_rel, the first number of the table that evaluate_depth.py prints."""
    (row,) = [line for line in output.splitlines() if line.startswith("&")]
    return float(row.split("&")[1])


def save_untrained_weights(folder: Path) -> None:
    """Write the weights of an untrained network."""
    torch.manual_seed(SEED)
    model = Monodepth2(frame_ids=[0])
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(TRAINING.height, TRAINING.width, True))


def save_constant_disparities(drive: Path, split: Path, path: Path) -> None:
    """Write one disparity map for all test images: the per-pixel median of the training scans.

    Args:
        drive: folder of the rendered drive.
        split: folder of the split lists.
        path: .npy file to write, (N, H, W) 1 / metres.
    """
    depths = []
    for line in read_split(split / "train_files.txt"):
        folder, frame, side = parse_line(line)
        if side == "l":
            scan = drive / folder / f"velodyne_points/data/{frame:010d}.bin"
            depths.append(generate_depth_map((drive / folder).parent, scan, vel_depth=True))
    known = np.ma.masked_equal(depths, 0)
    median = np.ma.median(known, 0).filled(FAR).astype(np.float32)         # (H, W)
    count = len(read_split(split / "test_files.txt"))
    save_array(path, np.broadcast_to(1 / median, (count, *median.shape)))


def predict_picture(out: Path, drive: Path, weights: Path) -> Path:
    """Run test_simple.py on a test frame, and return the picture of frame and disparity."""
    image, picture = out / "street.jpg", out / "demo.png"
    shutil.copy(drive / HELD_OUT / f"image_02/data/{SHOWN_FRAME:010d}.jpg", image)
    run_command("test_simple.py", "--image_path", image, "--load_weights_folder", weights)
    save_picture(image, picture)
    return picture


def save_picture(image: Path, path: Path) -> None:
    """Write an image and the disparity that test_simple.py drew for it, side by side."""
    pair = [cv2.imread(str(p)) for p in (image, image.with_name(f"{image.stem}_disp.jpeg"))]
    png = cv2.imencode(".png", cv2.resize(np.hstack(pair), None, fx=2, fy=2))[1]
    write_atomically(path, png.tobytes())


if __name__ == "__main__":
    run(main)
