"""Read and write the files of trajectories."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metrics.trajectory import Scores
from runtime.errors import DataError
from runtime.files import readlines

SCORES_NAME = "trajectory_{}.json"  # of a sequence, in two digits
RATE = 10.0  # frames a second, of KITTI
FARTHEST = 1e8  # m; a larger number is no place, and its square would be none either
ROTATION_SLACK = 1e-2  # by which R R^T may differ from 1: files have few digits


def scores_json(five_frame_error: tuple[float, float] | None, scores: Scores) -> str:
    """Return the errors of a trajectory as JSON, null where there are none.

    Args:
        five_frame_error: mean and standard deviation over windows, in metres; None where frames
            are missing.
        scores: of the whole trajectory.
    """
    mean, std = five_frame_error or (np.nan, np.nan)
    fields = {"five_frame_error": mean, "five_frame_error_std": std, **scores._asdict()}
    return json.dumps({name: None if isinstance(value, float) and not np.isfinite(value) else value
                       for name, value in fields.items() if not isinstance(value, np.ndarray)},
                      indent=2) + "\n"


def read_five_frame_error(path: str | Path) -> float:
    """Return the mean 5-frame error, in metres, of what `scores_json` made; NaN if it has none.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        value = json.loads(Path(path).read_bytes())["five_frame_error"]
        return np.nan if value is None else float(value)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is missing, or no file of a trajectory's errors; run "
                        "evaluate_pose.py again") from None


def read_trajectory(path: str | Path, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Read a trajectory as KITTI's tools write it: a row is a frame, its 3 x 4 pose row by row.

    Of 12 numbers, row i is frame `first` + i; of 13, the first is the frame, and frames may be left
    out.

    Returns:
        (N,) frames, rising, and (N, 4, 4) poses, camera to world.

    Raises:
        DataError: the file is missing, or a line (named) is no such row.
    """
    frames, poses, width = [], [], 0
    for number, line in enumerate(readlines(path), 1):
        if line.strip() and not line.startswith("#"):
            row = _numbers(line, f"{path}, line {number}")
            if width not in (0, len(row)):
                raise DataError(f"{path}, line {number}: found {len(row)} numbers after lines of "
                                f"{width}; expected as many in each")
            width = len(row)
            frame = row[0] if width == 13 else first + len(poses)
            if frame % 1 or frame <= (frames[-1] if frames else -1):
                raise DataError(f"{path}, line {number}: found {frame:g} for a frame"
                                f"{f' after {frames[-1]}' if frames else ''}; expected whole "
                                "numbers that rise")
            frames.append(int(frame))
            poses.append(np.vstack([row[-12:].reshape(3, 4), [0, 0, 0, 1]]))
    if not poses:
        raise DataError(f"{path} has no poses; expected 12 numbers a line, or a frame and 12")
    check_poses(np.array(poses), path)
    return np.array(frames), np.array(poses)


def _numbers(line: str, where: str) -> np.ndarray:
    """Return the 12 or 13 numbers of a row."""
    try:
        row = np.array([float(word) for word in line.split()])
    except ValueError:
        raise DataError(f"{where}: found {line[:60]!r}; expected 12 numbers (a pose), or a frame "
                        "and 12") from None
    if len(row) not in (12, 13) or not (abs(row) < FARTHEST).all():
        found = f"{len(row)} numbers" if len(row) not in (12, 13) else "one that is no length"
        raise DataError(f"{where}: found {found}; expected 12 (the rows of a 3 x 4 pose, camera to "
                        "world), or a frame and 12")
    return row


def check_poses(poses: np.ndarray, path: str | Path) -> None:
    """Raise a DataError, which names the file, where poses (N, 4, 4) hold no rotation or place."""
    R = poses[:, :3, :3]
    with np.errstate(all="ignore"):
        off = abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
        good = (off < ROTATION_SLACK) & (np.linalg.det(R) > 0)
    if not (abs(poses[:, :3, 3]) < FARTHEST).all():
        raise DataError(f"{path} has positions of {FARTHEST:g} m and more, which are none")
    if not good.all():
        raise DataError(f"{path}: the 3 x 3 part of pose {np.argmin(good) + 1} is no rotation; "
                        "expected rows of a 3 x 4 pose: r r r t  r r r t  r r r t")


def read_times(path: str | Path) -> np.ndarray:
    """Read times.txt of a KITTI odometry sequence: (N,) seconds, one a line.

    Raises:
        DataError: the file is missing, or a line (named) is no number.
    """
    times = []
    for number, line in enumerate(readlines(path), 1):
        try:
            times.append(float(line))
        except ValueError:
            times.append(np.nan)
        if not abs(times[-1]) < FARTHEST:
            raise DataError(f"{path}, line {number}: found {line[:40]!r}; expected seconds; "
                            "extract it again (data_odometry_calib.zip), or delete it")
    return np.array(times)


def kitti_text(poses: np.ndarray) -> str:
    """Return KITTI's file of poses (N, 4, 4): 12 numbers a row, the first three rows of each."""
    return "".join(" ".join(f"{value:.9e}" for value in pose[:3].ravel()) + "\n" for pose in poses)


def tum_text(times: Sequence[float], poses: np.ndarray) -> str:
    """Return TUM's file of N poses (N, 4, 4) at N times: `time x y z qx qy qz qw`, s and m."""
    return "".join(f"{time:.6f} " + " ".join(f"{value:.9e}" for value in row) + "\n"
                   for time, row in zip(times, np.hstack([poses[:, :3, 3], quaternions(poses)]),
                                        strict=True))


def quaternions(poses: np.ndarray) -> np.ndarray:
    """Return the rotations of poses (N, 4, 4) as quaternions (N, 4): x y z w, of length 1, w >= 0.

    Source: Shepperd 1978, "Quaternion from rotation matrix": q q^T is linear in the matrix, and its
    row with the largest diagonal is q, times a number that is not small.
    """
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(poses[:, :3, :3], 0, 2)
    one = np.ones_like(a)
    products = np.moveaxis(np.array([[one + a - e - i, b + d, c + g, h - f],
                                     [b + d, one - a + e - i, f + h, c - g],
                                     [c + g, f + h, one - a - e + i, d - b],
                                     [h - f, c - g, d - b, one + a + e + i]]), 2, 0)
    best = products.diagonal(axis1=1, axis2=2).argmax(1)
    rows = products[np.arange(len(poses)), best]
    rows = rows * np.where(rows[:, 3:] < 0, -1, 1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
