"""What each split needs of KITTI, what of it is there, and which archives have the rest."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from datasets.kitti_dataset import KITTIDataset
from datasets.splits import SPLITS, read_split
from runtime.errors import DataError, UsageError

NAMED = 3  # archives of a line that are named, the rest is counted


class Kind(NamedTuple):
    """A kind of file that splits need.

    Attributes:
        what: the files are.
        folder: below the data path, for a split line's fields (see `_fields`).
        name: of a file, the same, without its ending.
        endings: of which any will do.
        archive: of KITTI's that has the files.
        elsewhere: other folders that may have them.
    """

    what: str
    folder: str
    name: str
    endings: tuple[str, ...]
    archive: str
    elsewhere: tuple[str, ...] = ()


IMAGES = Kind("images", "{folder}/image_0{camera}/data", "{frame:010d}", (".jpg", ".png"),
              "{drive}.zip")
SCANS = Kind("velodyne scans", "{folder}/velodyne_points/data", "{frame:010d}", (".bin",),
             "{drive}.zip")
CALIBRATION = Kind("calibration", "{date}", "calib_cam_to_cam", (".txt",), "{date}_calib.zip")
DEPTH_MAPS = Kind("depth maps", "{folder}/proj_depth/groundtruth/image_0{camera}", "{frame:010d}",
                  (".png",), "data_depth_annotated.zip",
                  ("train/{drive}/proj_depth/groundtruth/image_0{camera}",
                   "val/{drive}/proj_depth/groundtruth/image_0{camera}"))
TEST_IMAGES = Kind("test images", "{folder}", "{frame:010d}", (".png",), "data_depth_selection.zip")
ODOM_IMAGES = Kind("images", "sequences/{folder:0>2}/image_{camera}", "{frame:06d}",
                   (".jpg", ".png"), "data_odometry_color.zip")
ODOM_CALIBRATION = Kind("calibration", "sequences/{folder:0>2}", "calib", (".txt",),
                        "data_odometry_calib.zip")
POSES = Kind("poses", "poses", "{folder:0>2}", (".txt",), "data_odometry_poses.zip")

TRAINING = ("train_files.txt", "val_files.txt")
TEST = ("test_files.txt",)
NEEDS = (  # split, the folder of its lists, the lists, the kinds of files that each line needs
    ("eigen_zhou", "eigen_zhou", TRAINING, (IMAGES, CALIBRATION)),
    ("eigen_full", "eigen_full", TRAINING, (IMAGES, CALIBRATION)),
    ("eigen", "eigen", TEST, (IMAGES, SCANS, CALIBRATION)),
    ("eigen_benchmark", "eigen_benchmark", TEST, (IMAGES, DEPTH_MAPS)),
    ("benchmark", "benchmark", TRAINING, (IMAGES, CALIBRATION)),
    ("benchmark", "benchmark", TEST, (TEST_IMAGES,)),
    ("odom", "odom", TRAINING, (ODOM_IMAGES, ODOM_CALIBRATION, POSES)),
    ("odom_9", "odom", ("test_files_09.txt",), (ODOM_IMAGES, POSES)),
    ("odom_10", "odom", ("test_files_10.txt",), (ODOM_IMAGES, POSES)),
)


class Need(NamedTuple):
    """Files of one kind that a split needs.

    Attributes:
        split: that needs them.
        kind: of file.
        names: {folder below the data path: names without ending}.
        archives: {folder: the archive that has it}.
        elsewhere: {folder: others that may have its files}.
    """

    split: str
    kind: Kind
    names: dict[str, set[str]]
    archives: dict[str, str]
    elsewhere: dict[str, list[str]]


class Found(NamedTuple):
    """What there is of a need.

    Attributes:
        need: the need.
        endings: how many files have each ending.
        missing: archives that have the rest.
    """

    need: Need
    endings: Counter[str]
    missing: list[str]


def read_needs(split: str | None = None, odometry: bool = False) -> list[Need]:
    """Return what splits need.

    Args:
        split: the only one that is asked for.
        odometry: those of odometry are.

    Raises:
        UsageError: there is no such split.
    """
    rows = [row for row in NEEDS if split in (None, row[0]) and (not odometry or row[1] == "odom")]
    if not rows:
        names = ", ".join(dict.fromkeys(row[0] for row in NEEDS))
        raise UsageError(f"--split {split} is none of KITTI's; choose one of {names}")
    needs = []
    for name, folder, lists, kinds in rows:
        lines = [line for file in lists for line in read_split(SPLITS / folder / file)]
        needs += _needs(name, kinds, lines)
    return needs


def _needs(split: str, kinds: Iterable[Kind], lines: list[str]) -> list[Need]:
    needs = [Need(split, kind, {}, {}, {}) for kind in kinds]
    for (folder, side), group in groupby(map(_fields, lines), key=lambda fields: fields[::2]):
        frames = [int(frame) for _, frame, _ in group]
        fields = {"folder": folder, "date": folder.split("/")[0], "drive": folder.split("/")[-1],
                  "camera": KITTIDataset.side_map.get(side)}
        for _, kind, names, archives, elsewhere in needs:
            place = kind.folder.format(**fields)
            names.setdefault(place, set()).update(
                kind.name.format(frame=frame, **fields) for frame in frames)
            archives[place] = kind.archive.format(**fields)
            elsewhere[place] = [other.format(**fields) for other in kind.elsewhere]
    return needs


def _fields(line: str) -> tuple[str, str, str | None]:
    """Return folder, frame and side of a line that `read_split` has checked."""
    folder, frame, side = (*line.split(), None)[:3]
    return folder, frame, side


def look(data_path: str | Path, needs: Iterable[Need]) -> list[Found]:
    """Return what there is of each need; each folder is listed once.

    Raises:
        DataError: a folder cannot be listed.
    """
    listing = lru_cache(maxsize=None)(_listing)
    return [_look(need, lambda folder: listing(os.path.join(data_path, folder))) for need in needs]


def _look(need: Need, listing) -> Found:
    endings, missing = Counter(), {}
    for folder, names in need.names.items():
        there = listing(folder).union(*map(listing, need.elsewhere[folder]))
        for ending in need.kind.endings:
            found = {name for name in names if name + ending in there}
            endings[ending] += len(found)
            names = names - found
        if names:
            missing[need.archives[folder]] = True
    return Found(need, endings, list(missing))


def _listing(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from None


def report(data_path: str | Path, found: Iterable[Found]) -> str:
    """Return the lines that say what is there, what is missing, and what to type."""
    found = list(found)
    lines = [f"{data_path} has, of what each split needs:", *map(_row, found)]
    if any(row.endings[".png"] and ".jpg" in row.need.kind.endings for row in found):
        lines.append("PNG images are read with --png; --convert makes JPEGs of them")
    if any(row.missing for row in found):
        lines.append("--download fetches archives of raw drives, --download --odometry those of "
                     "odometry; data_depth_*.zip are on KITTI's site (README, 'KITTI data')")
    else:
        lines.append("nothing is missing")
    return "\n".join(lines)


def _row(found: Found) -> str:
    need, endings = found.need, found.endings
    wanted = sum(map(len, need.names.values()))
    text = (f"  {need.split:15}  {need.kind.what:14}  {endings.total():6,} of {wanted:6,}"
            f"  {_formats(found)}").rstrip()
    if found.missing:
        more = len(found.missing) - NAMED
        text += f"\n      get {', '.join(found.missing[:NAMED])}"
        text += f" and {more} more" if more > 0 else ""
    return text


def _formats(found: Found) -> str:
    """Return in which formats a need is met that may be met in several: `jpg`, `3 jpg, 5 png`."""
    if len(found.need.kind.endings) == 1:
        return ""
    counts = {ending.lstrip("."): n for ending, n in found.endings.items() if n}
    return ", ".join(counts if len(counts) == 1 else (f"{n:,} {e}" for e, n in counts.items()))
