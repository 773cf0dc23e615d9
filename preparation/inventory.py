"""List the KITTI files that each split needs, the ones that are there, and the missing archives."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from datasets.kitti_dataset import KITTIDataset
from datasets.splits import SPLITS, read_split
from runtime.errors import DataError, UsageError

SHOWN_ARCHIVES = 3  # archives named in a line of the report; the others are counted


class FileKind(NamedTuple):
    """A kind of KITTI file.

    Attributes:
        title: name of the kind in the report.
        folder: folder below the data path; a template for the fields of a split line.
        name: file name without its ending; a template too.
        endings: accepted endings.
        archive: KITTI's archive that contains the file; a template too.
        elsewhere: other folders where the file may lie; templates too.
    """

    title: str
    folder: str
    name: str
    endings: tuple[str, ...]
    archive: str
    elsewhere: tuple[str, ...] = ()


IMAGES = FileKind("images", "{folder}/image_0{camera_number}/data", "{frame:010d}",
                  (".jpg", ".png"), "{drive}.zip")
SCANS = FileKind("velodyne scans", "{folder}/velodyne_points/data", "{frame:010d}", (".bin",),
                 "{drive}.zip")
CALIBRATION = FileKind("calibration", "{date}", "calib_cam_to_cam", (".txt",), "{date}_calib.zip")
DEPTH_MAPS = FileKind("depth maps", "{folder}/proj_depth/groundtruth/image_0{camera_number}",
                      "{frame:010d}", (".png",), "data_depth_annotated.zip",
                      ("train/{drive}/proj_depth/groundtruth/image_0{camera_number}",
                       "val/{drive}/proj_depth/groundtruth/image_0{camera_number}"))
TEST_IMAGES = FileKind("test images", "{folder}", "{frame:010d}", (".png",),
                       "data_depth_selection.zip")
ODOM_IMAGES = FileKind("images", "sequences/{folder:0>2}/image_{camera_number}", "{frame:06d}",
                       (".jpg", ".png"), "data_odometry_color.zip")
ODOM_CALIBRATION = FileKind("calibration", "sequences/{folder:0>2}", "calib", (".txt",),
                            "data_odometry_calib.zip")
POSES = FileKind("poses", "poses", "{folder:0>2}", (".txt",), "data_odometry_poses.zip")

TRAINING = ("train_files.txt", "val_files.txt")
TEST = ("test_files.txt",)
SPLIT_NEEDS = (  # split, folder of its lists, its lists, kinds of files that each line needs
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


class NeededFiles(NamedTuple):
    """The files of one kind that a split needs.

    Attributes:
        split: name of the split.
        kind: kind of the files.
        names: {folder below the data path: file names without ending}.
        archives: {folder: archive that contains it}.
        elsewhere: {folder: other folders where its files may lie}.
    """

    split: str
    kind: FileKind
    names: dict[str, set[str]]
    archives: dict[str, str]
    elsewhere: dict[str, list[str]]


class FoundFiles(NamedTuple):
    """The files that were found of one kind that a split needs.

    Attributes:
        needed: the files that the split needs.
        endings: number of files found with each ending.
        missing_archives: archives that contain the missing files.
    """

    needed: NeededFiles
    endings: Counter[str]
    missing_archives: list[str]


def list_needed_files(split: str | None = None, odometry: bool = False) -> list[NeededFiles]:
    """List the files that splits need.

    Args:
        split: name of a single split; None: all splits.
        odometry: only the splits of odometry.

    Raises:
        UsageError: `split` is not a split of KITTI.
    """
    rows = [row for row in SPLIT_NEEDS
            if split in (None, row[0]) and (not odometry or row[1] == "odom")]
    if not rows:
        names = ", ".join(dict.fromkeys(row[0] for row in SPLIT_NEEDS))
        raise UsageError(f"--split {split} is not a split of KITTI; choose one of {names}")
    needed = []
    for name, folder, lists, kinds in rows:
        lines = [line for file in lists for line in read_split(SPLITS / folder / file)]
        needed += _expand_templates(name, kinds, lines)
    return needed


def _expand_templates(split: str, kinds: Iterable[FileKind],
                      lines: list[str]) -> list[NeededFiles]:
    """Fill the templates of file kinds with the fields of split lines."""
    needed = [NeededFiles(split, kind, {}, {}, {}) for kind in kinds]
    for (folder, side), group in groupby(map(_split_line, lines), key=lambda words: words[::2]):
        frames = [int(frame) for _, frame, _ in group]
        fields = {"folder": folder, "date": folder.split("/")[0], "drive": folder.split("/")[-1],
                  "camera_number": KITTIDataset.side_map.get(side)}
        for _, kind, names, archives, elsewhere in needed:
            place = kind.folder.format(**fields)
            names.setdefault(place, set()).update(
                kind.name.format(frame=frame, **fields) for frame in frames)
            archives[place] = kind.archive.format(**fields)
            elsewhere[place] = [other.format(**fields) for other in kind.elsewhere]
    return needed


def _split_line(line: str) -> tuple[str, str, str | None]:
    """Split a line that `read_split` has checked into folder, frame and side."""
    folder, frame, side = (*line.split(), None)[:3]
    return folder, frame, side


def find_files(data_path: str | Path, needed: Iterable[NeededFiles]) -> list[FoundFiles]:
    """Look for needed files below the data path; each folder is listed once.

    Raises:
        DataError: a folder cannot be listed.
    """
    @cache
    def list_below_data_path(folder: str) -> frozenset[str]:
        return _list_folder(os.path.join(data_path, folder))
    return [_find_files_of_kind(one, list_below_data_path) for one in needed]


def _find_files_of_kind(needed: NeededFiles,
                        list_folder: Callable[[str], frozenset[str]]) -> FoundFiles:
    """Count the files found with each ending, and collect the archives of missing files."""
    endings, missing_archives = Counter(), {}
    for folder, names in needed.names.items():
        there = list_folder(folder).union(*map(list_folder, needed.elsewhere[folder]))
        for ending in needed.kind.endings:
            found = {name for name in names if name + ending in there}
            endings[ending] += len(found)
            names = names - found
        if names:
            missing_archives[needed.archives[folder]] = True
    return FoundFiles(needed, endings, list(missing_archives))


def _list_folder(folder: str) -> frozenset[str]:
    """Return the file names in a folder; empty if the folder is missing."""
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from None


def format_report(data_path: str | Path, found: list[FoundFiles]) -> str:
    """Return the report: files found, files missing, and how to get them."""
    lines = [f"{data_path} has, of what each split needs:", *map(_format_files, found)]
    if any(one.endings[".png"] and ".jpg" in one.needed.kind.endings for one in found):
        lines.append("PNG images are read with --png; --convert makes JPEGs of them")
    if any(one.missing_archives for one in found):
        lines.append("--download fetches archives of raw drives, --download --odometry those of "
                     "odometry; data_depth_*.zip are on KITTI's site (docs/kitti.md)")
    else:
        lines.append("nothing is missing")
    return "\n".join(lines)


def _format_files(found: FoundFiles) -> str:
    """Return the lines of the report on one kind of file of one split."""
    needed = found.needed
    count = sum(map(len, needed.names.values()))
    text = (f"  {needed.split:15}  {needed.kind.title:14}  {found.endings.total():6,} of {count:6,}"
            f"  {_format_endings(found)}").rstrip()
    if found.missing_archives:
        text += f"\n      get {', '.join(found.missing_archives[:SHOWN_ARCHIVES])}"
        more = len(found.missing_archives) - SHOWN_ARCHIVES
        if more > 0:
            text += f" and {more} more"
    return text


def _format_endings(found: FoundFiles) -> str:
    """Return the endings found, as in `jpg` or `3 jpg, 5 png`; empty if only one is accepted."""
    if len(found.needed.kind.endings) == 1:
        return ""
    counts = {ending.lstrip("."): n for ending, n in found.endings.items() if n}
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{n:,} {ending}" for ending, n in counts.items())
