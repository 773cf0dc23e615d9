"""Read and write the files of trajectories."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy  # loads `scipy.spatial` at its first use

from kitti_utils import ROTATION_TOLERANCE, are_rotations
from metrics.trajectory import USUAL_ALIGNMENT, Scores
from runtime.errors import DataError, counted
from runtime.files import readlines

SCORES_NAME = "trajectory_{}.json"  # takes the name that `scores_name` puts together
RATE = 10.0  # frames per second, of KITTI
MAX_LENGTH = 1e8  # m; a larger number is no position, and its square may overflow
TIME_TOLERANCE = 0.01  # s, between the time of a pose and the time of its frame
KITTI_ROW = "12 numbers (the rows of a 3 x 4 pose, camera to world), or a frame and 12 numbers"
TUM_ROW = "8 numbers, as in TUM's format (time x y z qx qy qz qw)"
EXPECTED_ROW = f"{KITTI_ROW}, or {TUM_ROW}"


def scores_name(number: int, alignment: str) -> str:
    """Return the file name of a trajectory's errors; the usual alignment is not named."""
    suffix = "" if alignment == USUAL_ALIGNMENT else f"_{alignment}"
    return SCORES_NAME.format(f"{number:02d}{suffix}")


def scores_json(five_frame_error: tuple[float, float] | None, scores: Scores) -> str:
    """Return the errors of a trajectory as JSON, with null for an error that is undefined.

    Args:
        five_frame_error: mean and standard deviation over windows, metres; None if frames are
            missing.
        scores: of the whole trajectory.
    """
    mean, std = five_frame_error or (np.nan, np.nan)
    fields = {"five_frame_error": mean, "five_frame_error_std": std, **scores._asdict()}
    return json.dumps({name: None if isinstance(value, float) and not np.isfinite(value) else value
                       for name, value in fields.items() if not isinstance(value, np.ndarray)},
                      indent=2) + "\n"


def read_five_frame_error(path: str | Path) -> float:
    """Read the mean 5-frame error, metres, from a file of `scores_json`; NaN if it is null.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        value = json.loads(Path(path).read_bytes())["five_frame_error"]
        return np.nan if value is None else float(value)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is missing or holds no errors of a trajectory; run "
                        "evaluate_pose.py again") from None


def read_trajectory(path: str | Path, first: int = 0,
                    find_times: Callable[[], tuple[np.ndarray, str]] | None = None,
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Read a trajectory in KITTI's format or, with the times of the frames, in TUM's.

    In a file of 12 numbers per line, line i is frame `first` + i. In a file of 13 numbers per line,
    the first number is the frame, and frames may be left out. In TUM's format it is the time.

    Args:
        path: of the file.
        first: frame of the first pose, and of the first time.
        find_times: returns the (M,) seconds of the frames from `first` on and their source; without
            it, TUM's format is refused.

    Returns:
        (N,) frames, rising, and (N, 4, 4) poses, camera to world.

    Raises:
        DataError: the file is missing, or a line is malformed, or of a time without a frame; names
            the line.
    """
    lines = _read_rows(path)
    rows = np.array(list(lines.values()))                                     # (N, 8, 12 or 13)
    frames = first + np.arange(len(rows))
    if rows.shape[1] == 13:
        frames = rows[:, 0]
    elif rows.shape[1] == 8:
        frames = first + _match_times(list(lines), rows[:, 0], find_times)
        rows = _tum_poses(list(lines), rows)
    for where, frame, before in zip(lines, frames, [-1, *frames[:-1]], strict=True):
        if frame % 1 or frame <= before:
            raise DataError(f"{where}: found {frame:g} for a frame"
                            f"{f' after {before:g}' if before >= 0 else ''}; expected whole "
                            "numbers that rise")
    last_rows = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(rows), 1, 4))
    poses = np.concatenate([rows[:, -12:].reshape(-1, 3, 4), last_rows], 1)
    check_poses(poses, path)
    return frames.astype(int), poses


def _read_rows(path: str | Path) -> dict[str, np.ndarray]:
    """Return the numbers of each line of a trajectory by `file, line number`."""
    rows: dict[str, np.ndarray] = {}
    width = 0
    for number, line in enumerate(readlines(path), 1):
        if line.strip() and not line.startswith("#"):
            where = f"{path}, line {number}"
            rows[where] = _parse_row(line, where)
            if width not in (0, len(rows[where])):
                raise DataError(f"{where}: found {counted(len(rows[where]), 'number')} after lines "
                                f"of {width}; expected the same number in each line")
            width = len(rows[where])
    if not rows:
        raise DataError(f"{path} has no poses; expected lines of {EXPECTED_ROW}")
    return rows


def _parse_row(line: str, where: str) -> np.ndarray:
    """Return the 8, 12 or 13 numbers of a line."""
    try:
        row = np.array([float(word) for word in line.split()])
    except ValueError:
        raise DataError(f"{where}: found {line[:60]!r}; expected {EXPECTED_ROW}") from None
    if len(row) not in (8, 12, 13):
        raise DataError(f"{where}: found {counted(len(row), 'number')}; expected {EXPECTED_ROW}")
    lengths = row[1:] if len(row) == 8 else row  # seconds since 1970 are a larger number
    if not (abs(lengths) < MAX_LENGTH).all():
        raise DataError(f"{where}: found a number that is not below {MAX_LENGTH:g}; expected "
                        f"{EXPECTED_ROW}")
    return row


def _match_times(wheres: list[str], stamps: np.ndarray,
                 find_times: Callable[[], tuple[np.ndarray, str]] | None) -> np.ndarray:
    """Return the (N,) index of the frame at each time of a trajectory in TUM's format."""
    if find_times is None:
        raise DataError(f"{wheres[0]}: found {TUM_ROW}, which needs the times of the frames; "
                        f"expected {KITTI_ROW}")
    times, source = find_times()
    nearest = np.array([abs(times - stamp).argmin() for stamp in stamps])
    for where, stamp, found in zip(wheres, stamps, times[nearest], strict=True):
        if not abs(found - stamp) <= TIME_TOLERANCE:
            raise DataError(f"{where}: found {TUM_ROW}, but no frame within {TIME_TOLERANCE:g} s "
                            f"of its time, {stamp:.6f} s; the frames have times from "
                            f"{times[0]:.6f} to {times[-1]:.6f} s ({source}): write these times, "
                            f"or {KITTI_ROW}")
    return nearest


def _tum_poses(wheres: list[str], rows: np.ndarray) -> np.ndarray:
    """Convert rows of TUM's format to KITTI's: (N, 8) to (N, 12)."""
    is_unit = abs(np.linalg.norm(rows[:, 4:], axis=1) - 1) < ROTATION_TOLERANCE
    if not is_unit.all():
        raise DataError(f"{wheres[is_unit.argmin()]}: the last four of {TUM_ROW} are no unit "
                        "quaternion")
    R = scipy.spatial.transform.Rotation.from_quat(rows[:, 4:]).as_matrix()
    return np.concatenate([R, rows[:, 1:4, None]], 2).reshape(-1, 12)


def check_poses(poses: np.ndarray, path: str | Path) -> None:
    """Raise a DataError that names the file if a pose of (N, 4, 4) is not a rigid motion."""
    is_rotation = are_rotations(poses[:, :3, :3])
    if not (abs(poses[:, :3, 3]) < MAX_LENGTH).all():
        raise DataError(f"{path} has a position of {MAX_LENGTH:g} m or more; expected positions in "
                        "metres")
    if not is_rotation.all():
        raise DataError(f"{path}: the 3 x 3 part of pose {np.argmin(is_rotation) + 1} is no "
                        "rotation; expected the rows of a 3 x 4 pose: r r r t  r r r t  r r r t")


def read_times(path: str | Path) -> np.ndarray:
    """Read times.txt of a KITTI odometry sequence: (N,) seconds, one per line.

    Raises:
        DataError: the file is missing, or a line is malformed; names the line.
    """
    times = []
    for number, line in enumerate(readlines(path), 1):
        if not line.strip():
            continue
        last = times[-1] if times else -MAX_LENGTH
        try:
            times.append(float(line))
        except ValueError:
            times.append(np.nan)
        if not last < times[-1] < MAX_LENGTH:
            raise DataError(f"{path}, line {number}: found {line[:40]!r}; expected seconds that "
                            "rise; extract it again (data_odometry_calib.zip), or delete it")
    return np.array(times)


def kitti_text(poses: np.ndarray) -> str:
    """Format poses (N, 4, 4) as KITTI does: 12 numbers per line, the first three rows of a pose."""
    return "".join(" ".join(f"{value:.9e}" for value in pose[:3].ravel()) + "\n" for pose in poses)
