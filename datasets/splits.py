"""Read and write split lists, which name the frames of a training or evaluation.

A line holds one frame, or many frames of one folder and side; both kinds may be mixed:

    2011_09_26/2011_09_26_drive_0001_sync 5 l
    2011_09_26/2011_09_26_drive_0001_sync l: 1-5 7 9-20

The side may be left out (`image 0`, `image: 0-499`). Frames keep their order and their leading
zeros. Several lines may have the same folder and side. A comment line starts with #. The
backslashes of Windows are read as /.

Lists come from other people, so a folder that leads out of the data path by its name is refused.
Links in the data path are its owner's, and are followed.
"""
from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from options import PROJECT
from runtime.errors import DataError, counted
from runtime.files import readlines

SPLITS = PROJECT / "splits"
SIDES = ("l", "r", "2", "3")  # left and right; 2 and 3 are KITTI's left and right colour cameras
MAX_LINES = 1_000_000  # a typing error such as 0-99999999 must not fill the memory

COMPACT = re.compile(r"(\S+)(?:\s+(\S+))?:\s+(.+)")
RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")  # KITTI's file names have ten digits
EXPECTED = "expected `folder frame side` as in `drive_0001 5 l`, or `drive_0001 l: 1-5 7`"


class SplitLine(str):
    """A line `folder frame side`; the attribute `where` names its file and line number."""

    __slots__ = ("where",)

    def __new__(cls, text: str, where: str = "") -> SplitLine:
        line = super().__new__(cls, text)
        line.where = where
        return line


def split_path(split: str, name: str) -> Path:
    """Return the path of the list `name` of a split.

    Args:
        split: one of the project's splits, or the path of a folder.
        name: file name of the list, such as train_files.txt.

    Raises:
        DataError: the split or the list is missing.
    """
    own = own_splits("*.txt")
    folder = SPLITS / split if split in own else Path(split)
    if folder.is_file():
        raise DataError(f"{split} is a file; give its folder, {folder.parent}, which must hold "
                        f"{name}")
    if not split or not folder.is_dir():
        raise DataError(f"found no split and no folder named {split!r}; expected one of "
                        f"{', '.join(own)}, or the path of a folder that holds {name}")
    if not (folder / name).is_file():
        others = ", ".join(own_splits(name)) or "none of this project"
        raise DataError(f"{_shown(folder / name)} is missing; splits that have {name}: {others}; "
                        "choose another split, or put the file there")
    return folder / name


def read_split(path: str | Path) -> list[SplitLine]:
    """Return the lines of a split list in their order, expanded to one frame a line.

    Raises:
        DataError: the file is missing or empty, or a line is malformed.
    """
    lines = expand(readlines(path), str(_shown(Path(path))))
    if not lines:
        raise DataError(f"{_shown(Path(path))}: found no frames; {EXPECTED}")
    return lines


def expand(texts: Iterable[str], source: str = "split list") -> list[SplitLine]:
    """Expand the lines of a split list to one frame a line.

    Args:
        texts: lines as in a file.
        source: file of the lines, for messages.

    Raises:
        DataError: a line is malformed.
    """
    blocks: list[_Block] = []
    total = 0
    for number, text in enumerate(map(str.strip, texts), start=1):
        if not text or text.startswith("#"):
            continue
        line = SplitLine(text, f"{source}, line {number}")
        blocks.append(_parse_block(line))
        total += blocks[-1].count()
        if total > MAX_LINES:  # before any line is expanded
            raise _line_error(line, f"more than {MAX_LINES:,} frames up to here")
    return [line for block in blocks for line in block.expand()]


def parse_line(line: str) -> tuple[str, int, str | None]:
    """Split `folder frame side` into folder, frame index and side; a missing side is None.

    Raises:
        DataError: the line is malformed; for a `SplitLine` the message names file and line number.
    """
    folder, frame, side = _split_words(line)
    return folder, int(frame), side


def compact(lines: Iterable[str]) -> str:
    """Write split lines in the compact form that `read_split` expands; their order is kept.

    Raises:
        DataError: a line is not of the form `folder frame side` or `folder frame`.
    """
    rows: list[str] = []
    for (folder, side), group in groupby(map(_split_words, lines), key=itemgetter(0, 2)):
        head = f"{folder} {side}: " if side else f"{folder}: "
        rows += textwrap.wrap(" ".join(_join_ranges(frame for _, frame, _ in group)), width=100,
                              initial_indent=head, subsequent_indent=head,
                              break_long_words=False, break_on_hyphens=False)
    return "".join(row + "\n" for row in rows)


def eigen_to_benchmark_ids() -> list[int]:
    """Return the positions of eigen_benchmark's 652 test images among eigen's 697."""
    eigen, benchmark = (
        # parsed, because one list writes frame 69 and the other 0000000069
        [parse_line(line) for line in read_split(split_path(split, "test_files.txt"))]
        for split in ("eigen", "eigen_benchmark")
    )
    index = {line: i for i, line in enumerate(eigen)}
    return [index[line] for line in benchmark]


def own_splits(pattern: str) -> list[str]:
    """Return the names of the project's splits that have a file matching `pattern`."""
    return sorted({path.parent.name for path in SPLITS.glob(f"*/{pattern}")})


def _shown(path: Path) -> Path:
    """Return a path as messages show it: relative to the project if it is inside."""
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def _line_error(line: str, found: str) -> DataError:
    """Return the error for a malformed line: where, what was found, what is expected."""
    return DataError(f"{getattr(line, 'where', '') or 'split line'}: found {found}; {EXPECTED}")


class _Block(NamedTuple):
    """The frames of one line of a list file.

    Attributes:
        folder: folder of the frames.
        side: side of the frames, or None.
        ranges: first and last frame of each range, with their leading zeros.
        where: file and line number.
    """

    folder: str
    side: str | None
    ranges: list[tuple[str, str]]
    where: str

    def count(self) -> int:
        """Return the number of frames."""
        return sum(int(last) - int(first) + 1 for first, last in self.ranges)

    def expand(self) -> Iterator[SplitLine]:
        """Yield one line for each frame."""
        tail = f" {self.side}" if self.side else ""
        for first, last in self.ranges:
            for frame in range(int(first), int(last) + 1):
                yield SplitLine(f"{self.folder} {frame:0{len(first)}d}{tail}", self.where)


def _parse_block(line: SplitLine) -> _Block:
    """Parse a line of a list file, compact or plain."""
    match = COMPACT.fullmatch(line)
    folder, tokens, side = match.group(1, 3, 2) if match else _split_words(line)
    folder = _checked_folder(line, folder, side)
    ranges = [_parse_range(line, token) for token in tokens.split()]
    return _Block(folder, side, ranges, line.where)


def _split_words(line: str) -> tuple[str, str, str | None]:
    """Split `folder frame side` into its words; the frame keeps its leading zeros."""
    words = line.split()
    if len(words) not in (2, 3):
        raise _line_error(line, f"{counted(len(words), 'word')}, {textwrap.shorten(line, 80)!r}")
    folder, frame, side = (*words, None)[:3]
    folder = _checked_folder(line, folder, side)
    if not re.fullmatch("[0-9]{1,10}", frame):
        raise _line_error(line, f"the frame {frame[:40]!r}")
    return folder, frame, side


def _checked_folder(line: str, folder: str, side: str | None) -> str:
    """Return the folder, with / in place of the backslashes of Windows.

    Raises:
        DataError: the folder leads out of the data path, or the side is unknown.
    """
    path = PureWindowsPath(folder)  # splits at both / and \, so a list is the same everywhere
    if path.anchor or ".." in path.parts or folder.startswith("#") or folder.endswith(":"):
        raise _line_error(line, f"the folder {folder!r}, which is not below the data path")
    if side is not None and side not in SIDES:
        raise _line_error(line, f"the side {side!r}, which is not one of {', '.join(SIDES)}")
    return folder.replace("\\", "/")


def _parse_range(line: str, token: str) -> tuple[str, str]:
    """Return first and last frame of a range `5-9`; a single frame `5` is both."""
    match = RANGE.fullmatch(token)
    if not match:
        raise _line_error(line, f"the frames {token[:40]!r}")
    first, last = match[1], match[2] or match[1]
    if int(last) < int(first) or last != str(int(last)).zfill(len(first)):
        raise _line_error(line, f"the range {token!r}, which descends or mixes digit counts")
    return first, last


def _join_ranges(frames: Iterable[str]) -> list[str]:
    """Join consecutive frames: 1 2 3 7 -> 1-3 7."""
    runs: list[list[str]] = []
    for frame in frames:
        if runs and frame == str(int(runs[-1][-1]) + 1).zfill(len(runs[-1][-1])):
            runs[-1][1:] = [frame]
        else:
            runs.append([frame])
    return ["-".join(run) for run in runs]
