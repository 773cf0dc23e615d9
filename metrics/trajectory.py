"""Trajectories: their files, chaining, alignment, and errors beside the 5-frame one.

Convention: a pose is (4, 4), from the coordinates of a camera (x right, y down, z forward) to those
of the world, so its last column is where the camera stands. A motion is (4, 4), from the camera of
one frame to that of the next: it takes a point's coordinates in the first to those in the second.
Lengths are metres, as far as the estimate's unit is; errors always, for the truth's are.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.errors import DataError

if TYPE_CHECKING:  # scripts import this file to read their command line, which needs no torch
    pass

ALIGNMENTS = ("none", "scale", "6dof", "7dof")
# Of KITTI's devkit: metres that a segment is long, and frames between the starts of two
SEGMENT_LENGTHS, SEGMENT_STEP = range(100, 900, 100), 10


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



TRACK_LENGTH = 5  # frames of a window of the odometry error


def dump_xyz(source_to_target_transformations: Iterable[np.ndarray]) -> np.ndarray:
    """Return the (N + 1, 3) positions along N relative poses (4, 4), from the origin on."""
    pose, centres = np.eye(4), [np.zeros(3)]
    for T in source_to_target_transformations:
        pose = pose @ T
        centres.append(pose[:3, 3])
    return np.array(centres)


def compute_ate(gtruth_xyz: np.ndarray, pred_xyz_o: np.ndarray) -> float:
    """Return the error of one window of a trajectory, in the unit of `gtruth_xyz`.

    Args:
        gtruth_xyz: (N, 3) camera centres.
        pred_xyz_o: (N, 3), up to a shift and a scale.

    Source: Zhou et al. 2017 (arXiv:1704.07813), Sec. 4.2.
    """
    moved = pred_xyz_o + (gtruth_xyz[0] - pred_xyz_o[0])
    scale = np.sum(gtruth_xyz * moved) / np.sum(moved**2)
    # Faithful: the root of the sum over N, not of the mean, as in the published tables
    return float(np.sqrt(np.sum((moved * scale - gtruth_xyz) ** 2)) / len(gtruth_xyz))


def trajectory_errors(gt_poses: np.ndarray, pred_relative: np.ndarray) -> np.ndarray:
    """Return the 5-frame error of the window that starts at each frame but the last.

    Args:
        gt_poses: (N, 4, 4) camera to world, metres.
        pred_relative: (N - 1, 4, 4) from the camera of frame i to that of frame i + 1.

    Returns:
        (N - 1,) metres.
    """
    gt_relative = np.linalg.inv(gt_poses[1:]) @ gt_poses[:-1]
    steps = TRACK_LENGTH - 1
    # Faithful: the shorter windows at the end count too
    return np.array([compute_ate(dump_xyz(gt_relative[i:i + steps]),
                                 dump_xyz(pred_relative[i:i + steps]))
                     for i in range(len(pred_relative))])
