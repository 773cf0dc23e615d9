"""Trajectories: their files, chaining, alignment, and errors beside the 5-frame one.

Convention: a pose is (4, 4), from the coordinates of a camera (x right, y down, z forward) to those
of the world, so its last column is where the camera stands. A motion is (4, 4), from the camera of
one frame to that of the next: it takes a point's coordinates in the first to those in the second.
Lengths are metres, as far as the estimate's unit is; errors always, for the truth's are.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import DataError, readlines

ALIGNMENTS = ("none", "scale", "6dof", "7dof")
SCORES_NAME = "trajectory_{}.json"  # of a sequence, in two digits
RATE = 10.0  # frames a second, of KITTI
# Of KITTI's devkit: metres that a segment is long, and frames between the starts of two
SEGMENT_LENGTHS, SEGMENT_STEP = range(100, 900, 100), 10
FARTHEST = 1e8  # m; a larger number is no place, and its square would be none either
ROTATION_SLACK = 1e-2  # by which R R^T may differ from 1: files have few digits


class Scores(NamedTuple):
    """The errors of an estimated trajectory, and what they were measured on.

    Attributes:
        alignment: one of `ALIGNMENTS`.
        scale: by which the estimate's translations were multiplied.
        t_err: KITTI's translation error, %; NaN where the path is shorter than 100 m.
        r_err: KITTI's rotation error, degrees in 100 m; the same.
        ate: m, root mean square of the distances between true and estimated positions.
        rpe_m: m, mean translation error from a frame to the next; NaN without such a pair.
        rpe_deg: degrees, mean rotation error from a frame to the next; the same.
        truth: (N, 4, 4) true poses of the N estimated frames, the first one the identity.
        estimate: (N, 4, 4) estimated poses after the alignment.
    """

    alignment: str
    scale: float
    t_err: float
    r_err: float
    ate: float
    rpe_m: float
    rpe_deg: float
    truth: np.ndarray
    estimate: np.ndarray


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


def chain(motions: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return the (N + 1, 4, 4) poses that N motions lead to; the first is the identity.

    Args:
        motions: (N, 4, 4) from the camera of frame i to that of frame i + 1.
        scale: metres in their unit of length.
    """
    poses = [np.eye(4)]
    for motion in motions.astype(np.float64):
        poses.append(poses[-1] @ np.linalg.inv(motion))  # camera i + 1 -> camera i -> world
    poses = np.array(poses)
    poses[:, :3, 3] *= scale
    return poses


def align(truth: np.ndarray, estimate: np.ndarray,
          alignment: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Bring an estimated trajectory to the true one, as kitti-odom-eval does.

    Both are moved so that their first pose is the identity. That is "none"; then "scale" multiplies
    the estimate's positions by the least squares' scale, without a shift; "6dof" finds the rotation
    and the shift that bring its positions nearest to the true ones, and "7dof" a scale, too. With
    these, positions are scaled, then whole poses are turned and shifted.

    Args:
        truth: (N, 4, 4).
        estimate: (N, 4, 4), of the same frames.
        alignment: one of `ALIGNMENTS`.

    Returns:
        Both, (N, 4, 4), and the scale.

    Raises:
        DataError: the estimate never moves, so that there is no scale.
    """
    # not for nothing with 6dof and 7dof: rotations of seven digits change lengths in the eighth,
    # which kitti-odom-eval's figures show
    truth, estimate = (np.linalg.inv(poses[0]) @ poses for poses in (truth, estimate))
    x, y = estimate[:, :3, 3], truth[:, :3, 3]
    moved, scale = np.eye(4), 1.0
    if alignment in ("scale", "7dof") and not (x * x).sum():
        raise DataError(f"the estimated trajectory never moves, so --alignment {alignment} finds "
                        "no scale; give --alignment none or 6dof")
    if alignment == "scale":
        scale = float((x * y).sum() / (x * x).sum())
    elif alignment != "none":
        moved[:3, :3], moved[:3, 3], scale = umeyama(x, y, alignment == "7dof")
    estimate[:, :3, 3] *= scale
    return truth, moved @ estimate, scale


def umeyama(x: np.ndarray, y: np.ndarray,
            with_scale: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return R (3, 3), t (3,) and s that make s R x + t nearest to y, by least squares.

    Args:
        x: (N, 3).
        y: (N, 3).
        with_scale: else s is 1.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point
    patterns", eqs. 38-43.
    """
    centred = x - x.mean(0)
    U, D, Vt = np.linalg.svd((y - y.mean(0)).T @ centred / len(x))
    S = np.ones(3)
    S[2] = np.sign(np.linalg.det(U) * np.linalg.det(Vt))  # no reflection
    R = U * S @ Vt
    scale = float((D * S).sum() / (centred**2).sum(1).mean()) if with_scale else 1.0
    return R, y.mean(0) - scale * R @ x.mean(0), scale


def segment_errors(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Return the errors of all segments, as KITTI's devkit defines them.

    Segments are 100, 200 to 800 m long and start at each tenth frame. A segment ends at the first
    frame that is farther along the true path than its length; it counts if both ends are estimated.

    Args:
        truth: (M, 4, 4) of all frames, for the distances.
        frames: (N,) that are estimated, below M.
        estimate: (N, 4, 4), aligned.

    Returns:
        (K, 2): metres, and radians, a metre of the segment.

    Source: KITTI odometry devkit, evaluate_odometry.cpp; Geiger et al. 2012, Sec. 3.1.
    """
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    distances = np.concatenate([[0], np.cumsum(steps)])
    row = np.full(len(truth) + 1, -1)  # of the estimate; the last one stands for no frame
    row[frames] = np.arange(len(frames))
    firsts, lengths = np.meshgrid(np.arange(0, len(truth), SEGMENT_STEP), SEGMENT_LENGTHS,
                                  indexing="ij")
    lasts = np.searchsorted(distances, distances[firsts] + lengths, side="right")
    counts = (row[firsts] >= 0) & (row[lasts] >= 0)
    firsts, lasts, lengths = firsts[counts], lasts[counts], lengths[counts]
    true = np.linalg.inv(truth[firsts]) @ truth[lasts]
    own = np.linalg.inv(estimate[row[firsts]]) @ estimate[row[lasts]]
    errors = np.linalg.inv(own) @ true
    # the devkit's formula, which loses digits at small angles
    cosines = (errors[:, :3, :3].trace(axis1=1, axis2=2) - 1) / 2
    angles = np.arccos(cosines.clip(-1, 1))
    return np.stack([np.linalg.norm(errors[:, :3, 3], axis=1), angles], 1) / lengths[:, None]


def step_errors(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Return the errors of the motions from an estimated frame to the next one.

    Args:
        truth: (N, 4, 4).
        frames: (N,) of both; where one is missing, no motion is compared.
        estimate: (N, 4, 4), aligned.

    Returns:
        (K, 2): metres and degrees.

    Source: Sturm et al. 2012, "A benchmark for the evaluation of RGB-D SLAM systems", eq. 2.
    """
    first = np.flatnonzero(np.diff(frames) == 1)
    true, own = (np.linalg.inv(poses[first]) @ poses[first + 1] for poses in (truth, estimate))
    errors = np.linalg.inv(true) @ own
    R = errors[:, :3, :3]
    axis = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], 1)
    angles = np.arctan2(np.linalg.norm(axis, axis=1), R.trace(axis1=1, axis2=2) - 1)
    return np.stack([np.linalg.norm(errors[:, :3, 3], axis=1), np.degrees(angles)], 1)


def compare(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray,
            alignment: str) -> Scores:
    """Return the errors of an estimated trajectory.

    Args:
        truth: (M, 4, 4) of all frames, metres.
        frames: (N,) that are estimated: rising, below M, at least two.
        estimate: (N, 4, 4), in any world, and unit of length if the alignment finds the scale.
        alignment: one of `ALIGNMENTS`.

    Raises:
        DataError: there are fewer than two frames, one is not finite, or there is no scale.
    """
    if len(frames) < 2:
        raise DataError(f"the estimated trajectory has {len(frames)} frame; expected two or more")
    if not np.isfinite(estimate).all():
        raise DataError("the estimated trajectory has poses that are not finite")
    own_truth, aligned, scale = align(truth[frames], estimate, alignment)
    segments = segment_errors(truth, frames, aligned)
    steps = step_errors(own_truth, frames, aligned)
    t_err, r_err = segments.mean(0) if len(segments) else (np.nan, np.nan)
    rpe_m, rpe_deg = steps.mean(0) if len(steps) else (np.nan, np.nan)
    distances = np.linalg.norm(own_truth[:, :3, 3] - aligned[:, :3, 3], axis=1)
    return Scores(alignment, scale, float(100 * t_err), float(100 * np.degrees(r_err)),
                  float(np.sqrt((distances**2).mean())), float(rpe_m), float(rpe_deg),
                  own_truth, aligned)
