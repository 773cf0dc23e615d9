"""Render a street drive into KITTI's folders: `python -m synthetic.render OUT`.

One street is for training; a second street is for validation and test, and is written in the
odometry layout too. Velodyne scans are points of the left camera's depth map, so they agree with
its images exactly. The whole depth map is written as improved ground truth (proj_depth) and, for
the test frames, as the ground truth of the split `dense`.
"""
from __future__ import annotations

import argparse
import os
import shlex
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.kitti_dataset import annotated_path
from datasets.odometer import FORWARD, OXTS_VALUES, UP
from datasets.splits import compact
from kitti_utils import DEPTH_PNG_SCALE
from options import MIN_SIZE, SIZE_STEP
from runtime.arguments import OneLineParser, whole_path
from runtime.errors import ENLARGE_SHM, run
from runtime.files import link_or_copy, new_folder
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent
from synthetic.street import BASELINE, Drive, kitti_K

DATE = "2011_01_01"
TRAIN, HELD_OUT = (f"{DATE}/{DATE}_drive_{i:04d}_sync" for i in (1, 2))
SEQUENCE = 9        # number of the held-out drive as an odometry sequence
TRAIN_SHARE = 0.75  # of all frames
VAL_SHARE = 0.33    # of the held-out frames
MIN_FRAMES = 16     # with fewer frames, a split list would be empty

AXES = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # velodyne (forward, left, up) to camera
# m, velodyne to camera: 8 cm above the camera as on KITTI's car, but not behind it. Therefore the
# forward distance, which is the ground truth of `eigen`, equals depth.
OFFSET = np.array([0, -0.08, 0])
SCAN_TOP = np.tan(np.radians(2.0))  # slope of the highest beam of KITTI's velodyne
SCAN_RANGE = 80.0   # m, the largest depth in KITTI's evaluation
SCAN_STEP = 5       # pixels for each point of a scan
REFLECTANCE = 0.3
FPS = 10            # frames per second, as KITTI's
LEFT_CAMERA = 2     # KITTI's number of the camera whose depth is written


def format_numbers(values: np.ndarray) -> str:
    """Format the numbers of an array as in KITTI's text files."""
    return " ".join(f"{value:.9e}" for value in np.ravel(values))


def projection_matrices(height: int, width: int) -> list[np.ndarray]:
    """Return P_rect (3, 4) of cameras 0 to 3; the gray pair 0, 1 equals the colour pair 2, 3."""
    K = kitti_K(height, width)
    K[:2, 2] += 1  # KITTI counts pixels from 1; readers subtract 1 after the projection
    left = np.hstack([K, np.zeros((3, 1))])
    right = np.hstack([K, -BASELINE * K[:, :1]])
    return [left, right, left, right]


def write_calibration(folder: Path, height: int, width: int) -> None:
    """Write the calibration files of a date."""
    cameras = "calib_time: 01-Jan-2011 00:00:00\n"
    for i, projection in enumerate(projection_matrices(height, width)):
        cameras += (f"S_rect_{i:02d}: {format_numbers([width, height])}\n"
                    f"R_rect_{i:02d}: {format_numbers(np.eye(3))}\n"
                    f"P_rect_{i:02d}: {format_numbers(projection)}\n")
    (folder / "calib_cam_to_cam.txt").write_text(cameras)
    (folder / "calib_velo_to_cam.txt").write_text(
        "calib_time: 01-Jan-2011 00:00:00\n"
        f"R: {format_numbers(AXES)}\nT: {format_numbers(OFFSET)}\n")


def scan_points(depth: np.ndarray) -> np.ndarray:
    """Sample a depth map (H, W) as velodyne points (N, 4): forward, left, up, reflectance."""
    v, u = np.indices(depth.shape)
    pixels = np.stack([u, v, np.ones_like(u)])
    rays = np.tensordot(np.linalg.inv(kitti_K(*depth.shape)), pixels, 1)
    chosen = (rays[1] > -SCAN_TOP) & ((u + 2 * v) % SCAN_STEP == 0) & (depth < SCAN_RANGE)
    points = (depth[chosen] * rays[:, chosen] - OFFSET[:, None]).T @ AXES
    return np.pad(points, ((0, 0), (0, 1)), constant_values=REFLECTANCE).astype("<f4")


def write_frame(drive: Drive, folder: Path, height: int, width: int, frame: int) -> None:
    """Write both images, the scan and the depth map of a frame."""
    for side, camera in ("r", "image_03"), ("l", "image_02"):
        image, depth = drive.render(frame, side, height, width)
        Image.fromarray(image).save(folder / camera / "data" / f"{frame:010d}.jpg", quality=95,
                                    subsampling=0)
    scan_points(depth).tofile(folder / "velodyne_points" / "data" / f"{frame:010d}.bin")
    png = np.where(depth < SCAN_RANGE, depth * DEPTH_PNG_SCALE, 0).round().astype(np.uint16)
    Image.fromarray(png).save(annotated_path(folder, ".", frame, LEFT_CAMERA))


def write_oxts(drive: Drive, folder: Path) -> None:
    """Write the time and the velocity of each frame as KITTI's oxts: forward, left, up, in m/s."""
    poses = np.array([drive.pose(i) for i in range(drive.frames)])
    moved = np.gradient(poses[:, :3, 3], 1 / FPS, axis=0)                  # (N, 3) m/s, world
    velocities = np.einsum("nij,ni->nj", poses[:, :3, :3], moved) @ AXES
    start = datetime(2011, 1, 1)
    (folder / "oxts/data").mkdir(parents=True)
    for i, velocity in enumerate(velocities):
        values = np.zeros(OXTS_VALUES)
        values[FORWARD:UP + 1] = velocity
        (folder / "oxts/data" / f"{i:010d}.txt").write_text(format_numbers(values) + "\n")
    stamps = (f"{start + timedelta(seconds=i / FPS)}\n" for i in range(drive.frames))
    (folder / "oxts/timestamps.txt").write_text("".join(stamps))


def write_odometry(out: Path, drive: Drive, height: int, width: int) -> None:
    """Write the held-out drive in the odometry layout: images, calibration and poses."""
    sequence = out / "sequences" / f"{SEQUENCE:02d}"
    for kind, source in ("image_2", "image_02"), ("image_3", "image_03"):
        (sequence / kind).mkdir(parents=True)
        for frame in range(drive.frames):
            link_or_copy(out / HELD_OUT / source / "data" / f"{frame:010d}.jpg",
                         sequence / kind / f"{frame:06d}.jpg")
    calibration = [*projection_matrices(height, width), np.column_stack([AXES, OFFSET])]
    (sequence / "calib.txt").write_text("".join(
        f"{name}: {format_numbers(matrix)}\n"
        for name, matrix in zip(("P0", "P1", "P2", "P3", "Tr"), calibration, strict=True)))
    (out / "poses").mkdir()
    poses = np.linalg.inv(drive.pose(0)) @ [drive.pose(i) for i in range(drive.frames)]
    (out / "poses" / f"{SEQUENCE:02d}.txt").write_text(
        "".join(f"{format_numbers(pose[:3])}\n" for pose in poses))


def write_splits(out: Path, train: int, held_out: int) -> None:
    """Write the split lists and the ground truth of `dense`.

    Args:
        out: folder of the drives.
        train: number of frames of the training drive.
        held_out: number of frames of the held-out drive.
    """
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


def write_drives(out: Path, frames: int, height: int, width: int, seed: int,
                 workers: int, turns: bool = False) -> None:
    """Render both drives and write all their files into a new folder.

    Args:
        out: new folder.
        frames: number of stereo frames of both drives together.
        height: height of the images, pixels.
        width: width of the images, pixels.
        seed: seed of both streets.
        workers: number of processes that render.
        turns: let the road turn left and right.
    """
    train = round(TRAIN_SHARE * frames)
    drives = {TRAIN: Drive(2 * seed, train, turns),
              HELD_OUT: Drive(2 * seed + 1, frames - train, turns)}
    for name in drives:
        for kind in ("image_02", "image_03", "velodyne_points"):
            (out / name / kind / "data").mkdir(parents=True)
        annotated_path(out, name, 0, LEFT_CAMERA).parent.mkdir(parents=True)
        write_oxts(drives[name], out / name)
    write_calibration(out / DATE, height, width)
    # workers ignore Ctrl-C: the parent ends them and removes their files
    with Pool(checked_workers(workers, ENLARGE_SHM), leave_interrupts_to_parent) as pool:
        done = chain.from_iterable(
            pool.imap_unordered(partial(write_frame, drive, out / name, height, width),
                                range(drive.frames)) for name, drive in drives.items())
        for _ in tqdm(done, total=frames, unit="frame"):
            pass
    write_odometry(out, drives[HELD_OUT], height, width)
    write_splits(out, train, frames - train)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line.

    Args:
        argv: words of the command line (default: those of this program).
    """
    parser = OneLineParser(
        prog="python -m synthetic.render",
        description="Render a street drive with known depth and motion, in KITTI's folders.")
    parser.add_argument("out", type=whole_path, help="folder to write; must be new or empty")
    parser.add_argument("--frames", type=int, default=300, help="number of stereo frames (300)")
    parser.add_argument("--height", type=int, default=96, help="image height, pixels (96)")
    parser.add_argument("--width", type=int, default=320, help="image width, pixels (320)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the street (0)")
    parser.add_argument("--turns", action="store_true",
                        help="turn left and right all the time (default: slight bends)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(),
                        help="processes that render (default: one for each core)")
    args = parser.parse_args(argv)
    for name, least in zip(("frames", "height", "width", "seed", "workers"),
                           (MIN_FRAMES, MIN_SIZE, MIN_SIZE, 0, 1), strict=True):
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}; it must be at least {least}")
    for name in ("height", "width"):
        if getattr(args, name) % SIZE_STEP:
            parser.error(f"--{name} is {getattr(args, name)}; to train on it, it must be a "
                         f"multiple of {SIZE_STEP}")
    return args


def main() -> None:
    """Render a drive; the folder appears as a whole or not at all."""
    args = parse_args()
    with new_folder(args.out) as folder:
        write_drives(folder, args.frames, args.height, args.width, args.seed, args.workers,
                     args.turns)
    data, split = (shlex.quote(str(path)) for path in (args.out, args.out / "splits" / "drive"))
    print(f"{args.frames} stereo frames of {args.width} x {args.height} are in {args.out}. Next:\n"
          f"python train.py --data_path {data} --split {split} --height {args.height} "
          f"--width {args.width} --frame_ids 0 -1 1 --use_stereo --weights_init scratch")


if __name__ == "__main__":
    run(main)
