"""Record the frames that a network was trained on, and find test images among them."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from checkpoints.training_flags import read_training_flags
from datasets.instants import UNNAMED, Instant, instant, instants, is_kittis
from datasets.splits import compact, expand, own_splits, parse_line, read_split, split_path
from runtime.errors import DataError, counted
from runtime.files import write_atomically

FILE_NAME = "frames_seen.json"
TRAIN_LIST = "train_files.txt"
SHOWN_DRIVES = 3


class FramesSeen(NamedTuple):
    """Hold the moments that training read: both cameras of a pair, and neighbouring frames, count.

    Attributes:
        instants: drive and frame of each moment.
        lists: "split", "sha256" (of the expanded lines) and "data" (name of the data path) of each
            training list: that of the run, then those of the runs that it was fine-tuned from.
        is_complete: whether the lists of all these runs are known.
    """

    instants: set[Instant]
    lists: list[dict[str, str]]
    is_complete: bool = True


class Leak(NamedTuple):
    """Count the test images that were seen in training.

    Attributes:
        seen: number of these images; None if the training list or the drives of the test images
            are unknown.
        images: number of test images.
        drives: drives of the images that were seen.
    """

    seen: int | None
    images: int
    drives: list[str]

    def describe(self) -> str:
        """Return the count in one line; a leak makes a result incomparable."""
        if self.seen is None:
            return (f"unknown whether any of the {counted(self.images, 'test image')} was seen in "
                    "training: the training list, or the drive of an image, is unknown")
        line = f"{self.seen} of {counted(self.images, 'test image')} were seen in training"
        if not self.seen:
            return line
        more = len(self.drives) - SHOWN_DRIVES
        shown = ", ".join(self.drives[:SHOWN_DRIVES]) + (f" and {more} more" if more > 0 else "")
        return (f"warning: {line}, in {counted(len(self.drives), 'drive')} ({shown}): errors are "
                "too small, and cannot be compared with those of other weights")


def describe_list(split: str, lines: Sequence[str]) -> dict[str, str]:
    """Return the name of a split and the SHA-256 of its expanded lines."""
    return {"split": split, "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def frames_of_training(dataset: str, split: str, lines: Sequence[str],
                       frame_ids: Sequence[int | str],
                       parent: str | Path | None = None,
                       data_path: str | Path | None = None) -> FramesSeen:
    """Return what a run reads, and what the weights that it starts from have read.

    Args:
        dataset: value of --dataset.
        split: value of --split.
        lines: of the training list.
        frame_ids: frames of a sample.
        parent: weights folder that the run starts from.
        data_path: value of --data_path; None if it is unknown.
    """
    described = describe_list(split, lines) | {"data": _name_of_data(data_path)}
    own = FramesSeen(instants(dataset, lines, frame_ids), [described])
    if parent is None:
        return own
    before = read_frames_seen(parent)
    if before is None:
        return own._replace(is_complete=False)
    return FramesSeen(own.instants | before.instants, own.lists + before.lists, before.is_complete)


def write_frames_seen(folder: str | Path, seen: FramesSeen) -> None:
    """Write frames_seen.json into a weights folder, with the frames as in a split list."""
    lines = (f"{drive} {frame}" for drive, frame in sorted(seen.instants))
    fields = {"is_complete": seen.is_complete, "lists": seen.lists,
              "frames": compact(lines).splitlines()}
    write_atomically(Path(folder, FILE_NAME), (json.dumps(fields, indent=1) + "\n").encode())


def read_frames_seen(folder: str | Path) -> FramesSeen | None:
    """Read frames_seen.json of a weights folder, or the project's list that training's flags name.

    Returns:
        None if the training list is unknown.

    Raises:
        DataError: frames_seen.json is broken.
    """
    path = Path(folder, FILE_NAME)
    try:
        content = path.read_bytes()
    except OSError:
        return _of_own_split(Path(folder))
    try:
        fields = json.loads(content)
        found = {parse_line(line)[:2] for line in expand(fields["frames"])}
        lists = [{name: str(entry[name]) for name in ("split", "sha256")}
                 | {"data": str(entry.get("data", ""))} for entry in fields["lists"]]
        return FramesSeen(found, lists, bool(fields["is_complete"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        raise DataError(f"{path} is broken; copy it again, or delete it: whether test images were "
                        "seen in training is then unknown") from None


def _of_own_split(folder: Path) -> FramesSeen | None:
    """Return the frames of the project's split that the flags of a weights folder's training name.

    Weights of Monodepth2 have an opt.json and nothing else. It may come from a stranger, so no
    other list is read.
    """
    flags = read_training_flags(folder)
    try:
        split, dataset = flags["split"], flags.get("dataset", "kitti")
        frame_ids = [f for f in flags.get("frame_ids", [0]) if isinstance(f, int)]
    except (KeyError, TypeError):
        return None
    if split not in own_splits(TRAIN_LIST) or flags.get("load_weights_folder"):
        return None
    lines = read_split(split_path(split, TRAIN_LIST))
    return frames_of_training(dataset, split, lines, frame_ids)


def _name_of_data(data_path: str | Path | None) -> str:
    """Return the name of a data path, which stays when its disk changes; "" if it is unknown."""
    return "" if data_path is None else Path(os.path.abspath(data_path)).name


def find_leak(seen: FramesSeen | None, dataset: str, lines: Sequence[str],
              data_path: str | Path | None = None) -> Leak:
    """Count the test images whose moment was seen in training.

    KITTI's drives have names of their own. Of other folders, those of one name are one drive if
    their data paths have one name too, or are unknown; otherwise nobody can tell.

    Args:
        seen: what training read; None if unknown.
        dataset: value of --dataset of the test images.
        lines: split lines of the test images.
        data_path: value of --data_path of the test images; None if it is unknown.
    """
    if seen is None or dataset in UNNAMED:
        return Leak(None, len(lines), [])
    drives = [drive for drive, frame in
              (instant(dataset, *parse_line(line)[:2]) for line in lines)
              if (drive, frame) in seen.instants]
    own, names = _name_of_data(data_path), {entry["data"] for entry in seen.lists}
    is_same = own in names or "" in (own, *names)
    certain = [drive for drive in drives if is_same or is_kittis(drive)]
    if not certain and (drives or not seen.is_complete):
        return Leak(None, len(lines), [])
    return Leak(len(certain), len(lines), sorted(set(certain)))
