"""Split lists: which frames a run reads.

A list holds one frame a line, or many frames of one folder and side a line; both may be mixed:

    2011_09_26/2011_09_26_drive_0001_sync 5 l
    2011_09_26/2011_09_26_drive_0001_sync l: 1-5 7 9-20

The side may be left out (`image 0`, `image: 0-499`). Frames come in the order they are written and
keep their leading zeros. A head may repeat on several lines; a comment line starts with #.
"""
from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PureWindowsPath

from runtime.errors import DataError
from runtime.files import readlines

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ROOT / "splits"
SIDES = ("l", "r", "2", "3")  # KITTI's colour cameras: 2 is the left one, 3 the right one
MAX_LINES = 1_000_000  # a slip such as 0-99999999 must not fill the memory

COMPACT = re.compile(r"(\S+)(?:\s+(\S+))?:\s+(.+)")
RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")  # KITTI's file names have ten digits
EXPECTED = "expected `folder frame side` as in `drive_0001 5 l`, or `drive_0001 l: 1-5 7`"


class SplitLine(str):
    """One line `folder frame side` that remembers, in `where`, the file and line it came from."""

    __slots__ = ("where",)

    def __new__(cls, text: str, where: str = "") -> SplitLine:
        line = super().__new__(cls, text)
        line.where = where
        return line


def split_path(split: str, name: str) -> Path:
    """Return the file `name` of one of the project's splits or, failing that, of a folder.

    Raises:
        DataError: there is no such split or folder, or it has no such file.
    """
    own = _splits_with("*.txt")
    folder = SPLITS / split if split in own else Path(split)
    if folder.is_file():
        raise DataError(f"{split} is a file; give the folder that it is in, {folder.parent}, where "
                        f"{name} is looked for")
    if not split or not folder.is_dir():
        raise DataError(f"found no split and no folder named {split!r}; expected one of "
                        f"{', '.join(own)}, or the path of a folder that holds {name}")
    if not (folder / name).is_file():
        others = ", ".join(_splits_with(name)) or "none of the project's"
        raise DataError(f"{_shown(folder / name)} is missing; splits that have {name}: {others}; "
                        "choose another split, or put the file there")
    return folder / name


def read_split(path: str | Path) -> list[SplitLine]:
    """Return every line of a split list, expanded, in the order of the file.

    Raises:
        DataError: the file is missing or empty, or one of its lines is malformed.
    """
    lines: list[SplitLine] = []
    for number, text in enumerate(readlines(path), start=1):
        text = text.lstrip("\ufeff").strip()  # Windows editors start a file with U+FEFF
        if text and not text.startswith("#"):
            line = SplitLine(text, f"{_shown(Path(path))}, line {number}")
            lines += _expand(line, room=MAX_LINES - len(lines))
    if not lines:
        raise DataError(f"{_shown(Path(path))}: found no frames; {EXPECTED}")
    return lines


def parse_line(line: str) -> tuple[str, int, str | None]:
    """Return (folder, frame index, side) of a plain line; side is None if it has two words.

    Raises:
        DataError: the line is malformed; the message says where it stands if it is a `SplitLine`.
    """
    folder, frame, side = _fields(line)
    return folder, int(frame), side


def check_inside(path: str | Path, data_path: str | Path) -> None:
    """Refuse a path below the data path that links lead out of it.

    Raises:
        DataError: they do; names where to.
    """
    root, real = os.path.abspath(data_path), os.path.realpath(path)
    is_below = os.path.abspath(path).startswith(root + os.sep)
    if is_below and not real.startswith(_real(root) + os.sep):
        raise DataError(f"{path} leads, by a link, to {real}, outside of --data_path {data_path}; "
                        "move the files there, or give the folder that they are in")


@lru_cache
def _real(root: str) -> str:
    return os.path.realpath(root)


def compact(lines: Iterable[str]) -> str:
    """Return the text that `read_split` expands to `lines`, in their order; sorted ones are short.

    Raises:
        DataError: a line is not `folder frame side` or `folder frame`.
    """
    rows: list[str] = []
    for (folder, side), group in groupby(map(_fields, lines), key=itemgetter(0, 2)):
        head = f"{folder} {side}: " if side else f"{folder}: "
        rows += textwrap.wrap(" ".join(_ranges(frame for _, frame, _ in group)), width=100,
                              initial_indent=head, subsequent_indent=head,
                              break_long_words=False, break_on_hyphens=False)
    return "".join(row + "\n" for row in rows)


def eigen_to_benchmark_ids() -> list[int]:
    """Return where each of eigen_benchmark's 652 test images stands among eigen's 697."""
    eigen, benchmark = (
        # parsed, for one list writes frame 69 and the other 0000000069
        [parse_line(line) for line in read_split(split_path(split, "test_files.txt"))]
        for split in ("eigen", "eigen_benchmark")
    )
    index = {line: i for i, line in enumerate(eigen)}
    return [index[line] for line in benchmark]


def _splits_with(pattern: str) -> list[str]:
    return sorted({path.parent.name for path in SPLITS.glob(f"*/{pattern}")})


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _error(line: str, found: str) -> DataError:
    return DataError(f"{getattr(line, 'where', '') or 'split line'}: found {found}; {EXPECTED}")


def _fields(line: str) -> tuple[str, str, str | None]:
    """Split a plain line into folder, frame as written, and side."""
    words = line.split()
    if len(words) not in (2, 3):
        raise _error(line, f"{len(words)} word(s), {textwrap.shorten(line, 80)!r}")
    folder, frame, side = (*words, None)[:3]
    _check_head(line, folder, side)
    if not re.fullmatch("[0-9]{1,10}", frame):
        raise _error(line, f"{frame[:40]!r} for a frame")
    return folder, frame, side


def _check_head(line: str, folder: str, side: str | None) -> None:
    path = PureWindowsPath(folder)  # it reads both / and \, so a list means the same everywhere
    if path.anchor or ".." in path.parts or folder.startswith("#") or folder.endswith(":"):
        raise _error(line, f"{folder!r}, which is no folder below the data folder")
    if side is not None and side not in SIDES:
        raise _error(line, f"the side {side!r}, which is none of {', '.join(SIDES)}")


def _ends(line: str, token: str) -> tuple[str, str]:
    """Return both ends of `5-9`, or `5` twice."""
    match = RANGE.fullmatch(token)
    if not match:
        raise _error(line, f"{token[:40]!r} for frames")
    first, last = match[1], match[2] or match[1]
    if int(last) < int(first) or last != str(int(last)).zfill(len(first)):
        raise _error(line, f"the range {token!r}, which descends or mixes paddings")
    return first, last


def _expand(line: SplitLine, room: int) -> list[SplitLine]:
    """Turn a line of a file, compact or plain, into at most `room` plain ones."""
    match = COMPACT.fullmatch(line)
    folder, tokens, side = match.group(1, 3, 2) if match else _fields(line)
    _check_head(line, folder, side)
    ends = [_ends(line, token) for token in tokens.split()]
    if sum(int(last) - int(first) + 1 for first, last in ends) > room:
        raise _error(line, f"more than {MAX_LINES:,} frames up to here")
    tail = f" {side}" if side else ""
    return [SplitLine(f"{folder} {frame:0{len(first)}d}{tail}", line.where)
            for first, last in ends for frame in range(int(first), int(last) + 1)]


def _ranges(frames: Iterable[str]) -> list[str]:
    """Join frames that follow each other: 1 2 3 7 -> 1-3 7."""
    runs: list[list[str]] = []
    for frame in frames:
        if runs and frame == str(int(runs[-1][-1]) + 1).zfill(len(runs[-1][-1])):
            runs[-1][1:] = [frame]
        else:
            runs.append([frame])
    return ["-".join(run) for run in runs]
