"""Name the moment that a frame of KITTI shows, in whichever of its layouts the frame lies."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from datasets.splits import parse_line

# Raw drives of the odometry sequences, and the drive's frame that is frame 0 of the sequence
# (KITTI's odometry development kit)
ODOMETRY_DRIVES = {
    0: ("2011_10_03_drive_0027", 0), 1: ("2011_10_03_drive_0042", 0),
    2: ("2011_10_03_drive_0034", 0), 3: ("2011_09_26_drive_0067", 0),
    4: ("2011_09_30_drive_0016", 0), 5: ("2011_09_30_drive_0018", 0),
    6: ("2011_09_30_drive_0020", 0), 7: ("2011_09_30_drive_0027", 0),
    8: ("2011_09_30_drive_0028", 1100), 9: ("2011_09_30_drive_0033", 0),
    10: ("2011_09_30_drive_0034", 0)}
DATES = ("2011_09_26", "2011_09_28", "2011_09_29", "2011_09_30", "2011_10_03")  # of all raw drives
UNNAMED = ("kitti_test", "kitti_2015")  # layouts whose frames KITTI does not trace to drives
DRIVE = re.compile(r"([0-9]{4}_[0-9]{2}_[0-9]{2}_drive_[0-9]{4})(?:_sync|_extract)?")

Instant = tuple[str, int]  # drive and frame; both cameras of a pair share it


def instant(dataset: str, folder: str, frame: int) -> Instant:
    """Return the drive and the frame of that drive that a split line names.

    Args:
        dataset: value of --dataset.
        folder: folder of the split line.
        frame: frame of the split line.
    """
    if dataset == "kitti_odom" and folder.isdecimal() and int(folder) in ODOMETRY_DRIVES:
        drive, first = ODOMETRY_DRIVES[int(folder)]
        return drive, first + frame
    match = DRIVE.fullmatch(folder.rpartition("/")[2])
    return (match[1] if match else folder), frame


def is_kittis(drive: str) -> bool:
    """Return whether a drive of `instant` has a name of KITTI, which no other drive has."""
    return drive.startswith(DATES) and DRIVE.fullmatch(drive) is not None


def instants(dataset: str, lines: Iterable[str],
             frame_ids: Sequence[int | str] = (0,)) -> set[Instant]:
    """Return the moments of all frames that the samples of split lines read.

    Args:
        dataset: value of --dataset.
        lines: split lines.
        frame_ids: frames of a sample: 0, offsets in time, "s" (the same moment as 0).
    """
    offsets = [f for f in frame_ids if f != "s"]
    return {instant(dataset, folder, frame + f)
            for folder, frame, _ in map(parse_line, lines) for f in offsets}
