"""Read and write the files of trajectories."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy  # loads `scipy.spatial` at its first use

from metrics.trajectory import Scores
from runtime.errors import DataError, counted
from runtime.files import readlines

SCORES_NAME = "trajectory_{}.json"  # takes the number of the sequence, two digits
RATE = 10.0  # frames per second, of KITTI
MAX_LENGTH = 1e8  # m; a larger number is no position, and its square may overflow
ROTATION_TOLERANCE = 1e-2  # of R R^T - 1: files have few digits
EXPECTED_ROW = "12 numbers (the rows of a 3 x 4 pose, camera to world), or a frame and 12 numbers"


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


def read_trajectory(path: str | Path, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Read a trajectory as KITTI's tools write it: one line per frame, its 3 x 4 pose row by row.

    In a file of 12 numbers per line, line i is frame `first` + i. In a file of 13 numbers per line,
    the first number is the frame, and frames may be left out.

    Returns:
        (N,) frames, rising, and (N, 4, 4) poses, camera to world.

    Raises:
        DataError: the file is missing, or a line is malformed; names the line.
    """
    frames, poses, width = [], [], 0
    for number, line in enumerate(readlines(path), 1):
        if line.strip() and not line.startswith("#"):
            row = _parse_row(line, f"{path}, line {number}")
            if width not in (0, len(row)):
                raise DataError(f"{path}, line {number}: found {counted(len(row), 'number')} "
                                f"after lines of {width}; expected the same number in each line")
            width = len(row)
            frame = row[0] if width == 13 else first + len(poses)
            if frame % 1 or frame <= (frames[-1] if frames else -1):
                raise DataError(f"{path}, line {number}: found {frame:g} for a frame"
                                f"{f' after {frames[-1]}' if frames else ''}; expected whole "
                                "numbers that rise")
            frames.append(int(frame))
            poses.append(np.vstack([row[-12:].reshape(3, 4), [0, 0, 0, 1]]))
    if not poses:
        raise DataError(f"{path} has no poses; expected lines of {EXPECTED_ROW}")
    check_poses(np.array(poses), path)
    return np.array(frames), np.array(poses)


def _parse_row(line: str, where: str) -> np.ndarray:
    """Return the 12 or 13 numbers of a line."""
    try:
        row = np.array([float(word) for word in line.split()])
    except ValueError:
        raise DataError(f"{where}: found {line[:60]!r}; expected {EXPECTED_ROW}") from None
    if len(row) not in (12, 13):
        raise DataError(f"{where}: found {counted(len(row), 'number')}; expected {EXPECTED_ROW}")
    if not (abs(row) < MAX_LENGTH).all():
        raise DataError(f"{where}: found a number that is not below {MAX_LENGTH:g}; expected "
                        f"{EXPECTED_ROW}")
    return row


def check_poses(poses: np.ndarray, path: str | Path) -> None:
    """Raise a DataError that names the file if a pose of (N, 4, 4) is not a rigid motion."""
    R = poses[:, :3, :3]
    with np.errstate(all="ignore"):
        difference = abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        is_rotation = (difference < ROTATION_TOLERANCE) & (np.linalg.det(R) > 0)
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
        try:
            times.append(float(line))
        except ValueError:
            times.append(np.nan)
        if not abs(times[-1]) < MAX_LENGTH:
            raise DataError(f"{path}, line {number}: found {line[:40]!r}; expected seconds; "
                            "extract it again (data_odometry_calib.zip), or delete it")
    return np.array(times)


def kitti_text(poses: np.ndarray) -> str:
    """Format poses (N, 4, 4) as KITTI does: 12 numbers per line, the first three rows of a pose."""
    return "".join(" ".join(f"{value:.9e}" for value in pose[:3].ravel()) + "\n" for pose in poses)


def tum_text(times: Sequence[float], poses: np.ndarray) -> str:
    """Format N poses (N, 4, 4) as TUM does: `time x y z qx qy qz qw`, seconds and metres."""
    return "".join(f"{time:.6f} " + " ".join(f"{value:.9e}" for value in row) + "\n"
                   for time, row in zip(times, np.hstack([poses[:, :3, 3], quaternions(poses)]),
                                        strict=True))


def quaternions(poses: np.ndarray) -> np.ndarray:
    """Return the rotations of poses (N, 4, 4) as unit quaternions (N, 4): x y z w, w >= 0."""
    rows = scipy.spatial.transform.Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    return rows * np.where(rows[:, 3:] < 0, -1, 1)
