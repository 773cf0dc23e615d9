"""Import sequences of TUM RGB-D: linked frames, intrinsics, times, camera path and depth."""
from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from datasets.intrinsics import FILE_NAME, Intrinsics, write_intrinsics
from datasets.kitti_dataset import read_depth_png
from datasets.odometer import TIMES
from kitti_utils import DEPTH_PNG_SCALE
from preparation.imported import link_file, print_evaluation, write_test_list
from preparation.sequences import GAP, LISTS, PreparedSequence, write_lists
from preparation.video import print_next_commands
from runtime.errors import DataError, UsageError, counted
from runtime.files import new_folder, readlines

TOLERANCE = 0.02  # seconds between an image and its depth or pose
SCALE = 5000      # of a depth PNG, per metre
TRAJECTORY = "trajectory.txt"
PREFIX = "rgbd_dataset_"
# fx, fy, cx, cy of the three cameras, pixels of 640 x 480, as published with the data set
CAMERAS = {"1": (517.3, 516.5, 318.6, 255.3), "2": (520.9, 521.0, 325.1, 249.7),
           "3": (535.4, 539.2, 320.1, 247.6)}
SIZE = (640, 480)
DOWNLOAD = ("expected a sequence of cvg.cit.tum.de/data/datasets/rgbd-dataset (0.3 to 2 GB each), "
            "or a folder of sequences, with rgb.txt, depth.txt and groundtruth.txt in each")


class TumSequence(NamedTuple):
    """Hold what the text files of a sequence list.

    Attributes:
        name: of the folder, without "rgbd_dataset_".
        intrinsics: of its camera.
        times: (N,) seconds of the images.
        images: N paths.
        depths: path of the depth PNG of each image; None without one in 0.02 s.
        poses: words `tx ty tz qx qy qz qw` of each image; None without one in 0.02 s.
    """

    name: str
    intrinsics: Intrinsics
    times: np.ndarray
    images: list[Path]
    depths: list[Path | None]
    poses: list[str | None]


def import_tum(source: Path, out: Path, test: Sequence[str] | None) -> None:
    """Write sequences as a dataset for `--dataset folder`, and print the next commands.

    Args:
        source: folder of a sequence, or of sequences.
        out: folder to make.
        test: names of the sequences of the test list, the others are for training; None: all.

    Raises:
        DataError: files are missing or broken, or the folder cannot be written.
        UsageError: a sequence to test is not there.
    """
    sequences = {each.name: each for each in map(read_sequence, find_sequences(source))}
    tested = [name.removeprefix(PREFIX) for name in test] if test else list(sequences)
    if unknown := [name for name in tested if name not in sequences]:
        raise UsageError(f"--test {unknown[0]} is no sequence of {source}; expected some of "
                         f"{', '.join(sequences)}")
    trained = [name for name in sequences if name not in tested]
    with new_folder(out) as folder:
        for sequence in sequences.values():
            write_sequence(folder / sequence.name, sequence)
        counts = {}
        if trained:
            described = [describe(sequences[name]) for name in trained]
            counts = write_lists(folder / LISTS, described, sides="")
            if not all(counts.values()):
                raise DataError(f"{', '.join(trained)}: too few frames to train and validate on; "
                                "name fewer sequences with --test")
        lines = [(f"{name} {i}", path) for name in tested
                 for i, path in enumerate(sequences[name].depths) if path]
        if not lines:
            raise DataError(f"{', '.join(tested)}: no image has a depth within {TOLERANCE} s; "
                            f"{DOWNLOAD}")
        write_test_list(folder, [line for line, _ in lines],
                        (read_depth(path) for _, path in lines))
    for name, each in sequences.items():
        found = [sum(x is not None for x in listed) for listed in (each.depths, each.poses)]
        print(f"{name}: {counted(len(each.images), 'frame')}, {found[0]} with depth, {found[1]} "
              "with a pose")
    if trained:
        print_next_commands(out, sequences[trained[0]].intrinsics, counts, [])
    print_evaluation(out, len(lines))


def find_sequences(source: Path) -> list[Path]:
    """Return the folder if it is a sequence, or else the sequences in it, by name.

    Raises:
        DataError: there is none.
    """
    found = [path.parent for path in (source / "rgb.txt", *sorted(source.glob("*/rgb.txt")))
             if path.is_file()]
    if not found:
        raise DataError(f"{source} has no rgb.txt, nor has a folder in it; {DOWNLOAD}")
    return found[:1] if found[0] == source else found


def read_sequence(folder: Path) -> TumSequence:
    """Read the text files of a sequence, and pair images with depth and poses by their times.

    Raises:
        DataError: a file is missing or malformed, or the folder does not name its camera.
    """
    camera = re.fullmatch(r"[\w.-]*freiburg([123])[\w.-]*", folder.resolve().name)
    if not camera:
        raise DataError(f"{folder} does not name its camera; expected freiburg1, freiburg2 or "
                        "freiburg3 in the name of the folder, and no spaces: rename it")
    times, images = read_listing(folder / "rgb.txt")
    depths = pick(times, *read_listing(folder / "depth.txt"))
    poses: list[str | None] = [None] * len(times)
    if (folder / "groundtruth.txt").is_file():  # a few sequences are published without
        poses = pick(times, *read_listing(folder / "groundtruth.txt", words=7))
    return TumSequence(camera[0].removeprefix(PREFIX), Intrinsics(*CAMERAS[camera[1]], *SIZE),
                       times, [folder / name for name in images],
                       [name and folder / name for name in depths], poses)


def read_listing(path: Path, words: int = 1) -> tuple[np.ndarray, list[str]]:
    """Read lines `seconds word ...`, sorted by their times; # starts a comment.

    Args:
        path: of the file.
        words: number of words after the seconds: 1, the name of a file; 7, a pose.

    Returns:
        (N,) seconds and N texts.

    Raises:
        DataError: the file is missing or empty, or a line is malformed.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; {DOWNLOAD}")
    rows = []
    for number, line in enumerate(readlines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        time, *rest = line.split()
        leads_out = words == 1 and rest and (
            PureWindowsPath(rest[0]).anchor or ".." in PureWindowsPath(rest[0]).parts)
        if len(rest) != words or not re.fullmatch(r"[0-9]+(\.[0-9]*)?", time) or leads_out:
            raise DataError(f"{path}, line {number}: found {line[:60]!r}; expected seconds and "
                            f"{'7 numbers, tx ty tz qx qy qz qw' if words == 7 else 'a file'}")
        rows.append((float(time), " ".join(rest)))
    if not rows:
        raise DataError(f"{path} lists nothing; {DOWNLOAD}")
    rows.sort()
    return np.array([time for time, _ in rows]), [text for _, text in rows]


def pick(times: np.ndarray, other_times: np.ndarray, others: Sequence[str]) -> list[str | None]:
    """Return for each time the text whose time is nearest; None if that is 0.02 s away or more.

    No text is returned twice: the nearest pairs are made first, as by TUM's `associate.py`.

    Args:
        times: (N,) seconds, rising.
        other_times: (M,) seconds, rising.
        others: M texts.
    """
    first = np.searchsorted(other_times, times - TOLERANCE, "right")
    end = np.searchsorted(other_times, times + TOLERANCE, "left")
    pairs = sorted((abs(other_times[j] - time), i, j) for i, time in enumerate(times)
                   for j in range(first[i], end[i]))
    found: list[str | None] = [None] * len(times)
    taken = set()
    for _, i, j in pairs:
        if found[i] is None and j not in taken:
            found[i] = others[j]
            taken.add(j)
    return found


def write_sequence(place: Path, sequence: TumSequence) -> None:
    """Write the frames, the intrinsics, the times, and the poses of the frames that have one.

    Times count from the first frame; the poses are lines `time tx ty tz qx qy qz qw`.

    Raises:
        DataError: an image is missing.
    """
    place.mkdir()
    write_intrinsics(place / FILE_NAME, sequence.intrinsics)
    for i, image in enumerate(sequence.images):
        link_file(image, place / f"{i:010d}{image.suffix}")
    times = [f"{time:.6f}" for time in sequence.times - sequence.times[0]]
    (place / TIMES).write_text("".join(f"{time}\n" for time in times))
    if any(sequence.poses):
        (place / TRAJECTORY).write_text("".join(
            f"{time} {pose}\n" for time, pose in zip(times, sequence.poses, strict=True) if pose))


def describe(sequence: TumSequence) -> PreparedSequence:
    """Return what the lists need to know of a sequence: its length, and where images are missing.

    An image is missing where the time to the next one is clearly longer than the median.
    """
    steps = np.diff(sequence.times)
    breaks = np.flatnonzero(steps > GAP * np.median(steps)) + 1
    return PreparedSequence(sequence.name, len(sequence.times), 0, sequence.intrinsics,
                            breaks.tolist())


def read_depth(path: Path) -> np.ndarray:
    """Read a depth PNG of metres x 5000: (H, W) float32 metres, 0 = no ground truth.

    Raises:
        DataError: the file is missing or broken.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; extract its archive again")
    return read_depth_png(path) * np.float32(DEPTH_PNG_SCALE / SCALE)
