"""Write a rendered street drive in KITTI's folders: `python -m synthetic.render OUT`.

One street is for training, another one for validation and test; the second is there in the odometry
layout too. The scans are points of the left camera's depth, so they agree with its images exactly.
All of that depth is there as improved ground truth (proj_depth) and, of the test frames, as that of
the split `dense`.
"""
from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
from functools import partial
from itertools import chain
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.kitti_dataset import annotated_path
from datasets.splits import compact
from kitti_utils import DEPTH_PNG_SCALE
from options import OneLineParser
from runtime.errors import DataError, run
from synthetic.street import BASELINE, Drive, intrinsics

DATE = "2011_01_01"
TRAIN, HELD_OUT = (f"{DATE}/{DATE}_drive_{i:04d}_sync" for i in (1, 2))
SEQUENCE = 9        # the odometry sequence that the held-out drive plays
TRAIN_SHARE = 0.75  # of all frames
VAL_SHARE = 0.33    # of the held-out frames
MIN_FRAMES = 16     # fewer leave a list empty
SIZE_STEP = 32      # pixels; the networks take multiples of it, from twice it on

AXES = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # velodyne (forward, left, up) to camera
# m, velodyne to camera: 8 cm above it as on KITTI's car, but not behind it, so that the forward
# distance, which `eigen` ground truth takes for depth, is depth.
OFFSET = np.array([0, -0.08, 0])
SCAN_TOP = np.tan(np.radians(2.0))  # the highest beam of KITTI's velodyne
SCAN_RANGE = 80.0   # m, the farthest depth that KITTI's evaluation counts
SCAN_STEP = 5       # one point for so many pixels
REFLECTANCE = 0.3
LEFT_CAMERA = 2     # whose depth is written


def numbers(values: np.ndarray) -> str:
    """Write an array's numbers as KITTI's text files do."""
    return " ".join(f"{value:.9e}" for value in np.ravel(values))


def projections(height: int, width: int) -> list[np.ndarray]:
    """Return P_rect (3, 4) of cameras 0 to 3; the grey pair (0, 1) is where the colour pair is."""
    K = intrinsics(height, width)
    K[:2, 2] += 1  # KITTI counts pixels from 1; its readers subtract it after projecting
    left = np.hstack([K, np.zeros((3, 1))])
    right = np.hstack([K, -BASELINE * K[:, :1]])
    return [left, right, left, right]


def write_calibration(folder: Path, height: int, width: int) -> None:
    """Write the calibration of a day."""
    cameras = "calib_time: 01-Jan-2011 00:00:00\n"
    for i, projection in enumerate(projections(height, width)):
        cameras += (f"S_rect_{i:02d}: {numbers([width, height])}\n"
                    f"R_rect_{i:02d}: {numbers(np.eye(3))}\n"
                    f"P_rect_{i:02d}: {numbers(projection)}\n")
    (folder / "calib_cam_to_cam.txt").write_text(cameras)
    (folder / "calib_velo_to_cam.txt").write_text(
        f"calib_time: 01-Jan-2011 00:00:00\nR: {numbers(AXES)}\nT: {numbers(OFFSET)}\n")


def scan(depth: np.ndarray) -> np.ndarray:
    """Return velodyne points (N, 4), forward, left, up and reflectance, on a depth map (H, W)."""
    v, u = np.indices(depth.shape)
    pixels = np.stack([u, v, np.ones_like(u)])
    rays = np.tensordot(np.linalg.inv(intrinsics(*depth.shape)), pixels, 1)
    chosen = (rays[1] > -SCAN_TOP) & ((u + 2 * v) % SCAN_STEP == 0) & (depth < SCAN_RANGE)
    points = (depth[chosen] * rays[:, chosen] - OFFSET[:, None]).T @ AXES
    return np.pad(points, ((0, 0), (0, 1)), constant_values=REFLECTANCE).astype("<f4")


def write_frame(drive: Drive, folder: Path, height: int, width: int, frame: int) -> None:
    """Write both images, the scan and the depth of a frame."""
    for side, camera in ("r", "image_03"), ("l", "image_02"):
        image, depth = drive.render(frame, side, height, width)
        Image.fromarray(image).save(folder / camera / "data" / f"{frame:010d}.jpg", quality=95,
                                    subsampling=0)
    scan(depth).tofile(folder / "velodyne_points" / "data" / f"{frame:010d}.bin")
    png = np.where(depth < SCAN_RANGE, depth * DEPTH_PNG_SCALE, 0).round().astype(np.uint16)
    Image.fromarray(png).save(annotated_path(folder, ".", frame, LEFT_CAMERA))


def link_or_copy(source: Path, to: Path) -> None:
    """Give a file a second name, or its content where the file system knows no second names."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy(source, to)


def write_odometry(out: Path, drive: Drive, height: int, width: int) -> None:
    """Write the held-out drive in the odometry layout, with links to its images if possible."""
    sequence = out / "sequences" / f"{SEQUENCE:02d}"
    for kind, source in ("image_2", "image_02"), ("image_3", "image_03"):
        (sequence / kind).mkdir(parents=True)
        for frame in range(drive.frames):
            link_or_copy(out / HELD_OUT / source / "data" / f"{frame:010d}.jpg",
                         sequence / kind / f"{frame:06d}.jpg")
    calibration = [*projections(height, width), np.column_stack([AXES, OFFSET])]
    (sequence / "calib.txt").write_text("".join(
        f"{name}: {numbers(matrix)}\n"
        for name, matrix in zip(("P0", "P1", "P2", "P3", "Tr"), calibration, strict=True)))
    (out / "poses").mkdir()
    poses = np.linalg.inv(drive.pose(0)) @ [drive.pose(i) for i in range(drive.frames)]
    (out / "poses" / f"{SEQUENCE:02d}.txt").write_text(
        "".join(f"{numbers(pose[:3])}\n" for pose in poses))


def write_splits(out: Path, train: int, held_out: int) -> None:
    """Write the split lists of drives that have so many frames, and their dense ground truth."""
    val = 1 + max(1, round(VAL_SHARE * (held_out - 2)))
    lists = {
        "drive/train_files": [(TRAIN, i, side) for side in "lr" for i in range(1, train - 1)],
        "drive/val_files": [(HELD_OUT, i, side) for side in "lr" for i in range(1, val)],
        "drive/test_files": [(HELD_OUT, i, "l") for i in range(val, held_out - 1)],
        f"odom/test_files_{SEQUENCE:02d}": [(SEQUENCE, i, "l") for i in range(held_out - 1)],
    }
    lists["dense/test_files"] = lists["drive/test_files"]
    for name, rows in lists.items():
        path = out / "splits" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(compact(f"{folder} {frame} {side}" for folder, frame, side in rows))
    dense = out / "splits/dense/gt_depths"
    dense.mkdir()
    for _, frame, _ in lists["dense/test_files"]:
        depth = annotated_path(out, HELD_OUT, frame, LEFT_CAMERA)
        link_or_copy(depth, dense / depth.name)


def write(out: Path, frames: int, height: int, width: int, seed: int, workers: int) -> None:
    """Render both drives and write everything that belongs to them into a new folder."""
    train = round(TRAIN_SHARE * frames)
    drives = {TRAIN: Drive(2 * seed, train), HELD_OUT: Drive(2 * seed + 1, frames - train)}
    for name in drives:
        for kind in ("image_02", "image_03", "velodyne_points"):
            (out / name / kind / "data").mkdir(parents=True)
        annotated_path(out, name, 0, LEFT_CAMERA).parent.mkdir(parents=True)
    write_calibration(out / DATE, height, width)
    # Ctrl-C is for the parent, which then ends its workers and clears away what they wrote.
    with Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        done = chain.from_iterable(
            pool.imap_unordered(partial(write_frame, drive, out / name, height, width),
                                range(drive.frames)) for name, drive in drives.items())
        for _ in tqdm(done, total=frames, unit="frame"):
            pass
    write_odometry(out, drives[HELD_OUT], height, width)
    write_splits(out, train, frames - train)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(
        prog="python -m synthetic.render",
        description="Render a street drive with known depth and motion, in KITTI's folders.")
    parser.add_argument("out", type=Path, help="folder to write; must be new or empty")
    parser.add_argument("--frames", type=int, default=300, help="stereo frames in all (300)")
    parser.add_argument("--height", type=int, default=96, help="of the images, in pixels (96)")
    parser.add_argument("--width", type=int, default=320, help="of the images, in pixels (320)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another town (0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(),
                        help="processes that render (one for each core)")
    args = parser.parse_args()
    for name, least in zip(("frames", "height", "width", "seed", "workers"),
                           (MIN_FRAMES, 2 * SIZE_STEP, 2 * SIZE_STEP, 0, 1), strict=True):
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    for name in ("height", "width"):
        if getattr(args, name) % SIZE_STEP:
            parser.error(f"--{name} is {getattr(args, name)}; to train on it, it must be a "
                         f"multiple of {SIZE_STEP}")
    return args


def main() -> None:
    """Render as the command line says; a folder is written as a whole or not at all."""
    args = parse()
    out = args.out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{args.out} exists; remove it or choose another folder")
    unfinished = out.with_name(f"{out.name}.unfinished-{os.getpid()}")
    try:
        write(unfinished, args.frames, args.height, args.width, args.seed, args.workers)
        unfinished.replace(out)
    except OSError as error:
        raise DataError(f"{args.out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    data, split = (shlex.quote(str(path)) for path in (args.out, args.out / "splits" / "drive"))
    print(f"{args.frames} stereo frames of {args.width} x {args.height} are in {args.out}. Next:\n"
          f"python train.py --data_path {data} --split {split} --height {args.height} "
          f"--width {args.width} --frame_ids 0 -1 1 --use_stereo --weights_init scratch")


if __name__ == "__main__":
    run(main)
