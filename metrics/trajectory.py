"""Errors of trajectories: the paper's 5-frame error, KITTI's segment errors, ATE and RPE.

Convention: a pose is (4, 4) and maps the coordinates of a camera (x right, y down, z forward) to
world coordinates, so its last column is the position of the camera. A motion is (4, 4) and maps the
coordinates of one frame's camera to the coordinates of the next frame's camera. True poses are in
metres; errors of lengths are in metres too.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.spatial` at its first use: -h stays quick

from runtime.errors import DataError, counted

ALIGNMENTS = ("none", "scale", "6dof", "7dof")
USUAL_ALIGNMENT = "7dof"
# KITTI's devkit: lengths of segments in metres, frames between the starts of two segments
SEGMENT_LENGTHS, SEGMENT_STEP = range(100, 900, 100), 10
TRACK_LENGTH = 5  # frames of a window of the 5-frame error
STATIC = 1e-8     # of the truth's size; a smaller estimate consists of rounding errors


class Scores(NamedTuple):
    """Hold the errors of an estimated trajectory and the poses they were computed from.

    Attributes:
        alignment: one of `ALIGNMENTS`.
        scale: factor that the alignment multiplied the estimated positions by.
        t_err: KITTI's translation error, %; NaN if the path is shorter than 100 m.
        r_err: KITTI's rotation error, degrees per 100 m; NaN if the path is shorter than 100 m.
        ate: m, root mean square of the distances between true and estimated positions.
        rpe_m: m, mean translation error of a frame's motion to the next frame; NaN without such a
            pair of frames.
        rpe_deg: degrees, mean rotation error of the same motions; NaN without such a pair.
        truth: (N, 4, 4) true poses of the N estimated frames; the first is the identity.
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


def score_trajectory(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray,
                     alignment: str) -> Scores:
    """Compute the errors of an estimated trajectory.

    Args:
        truth: (M, 4, 4) true poses of all frames, metres.
        frames: (N,) indices of the estimated frames: rising, below M, at least two.
        estimate: (N, 4, 4) estimated poses in any world frame; in any unit of length if the
            alignment fits the scale.
        alignment: one of `ALIGNMENTS`.

    Raises:
        DataError: there are fewer than two frames, a pose is not finite, or the scale cannot be
            fitted.
    """
    if len(frames) < 2:
        raise DataError(f"the estimated trajectory has {counted(len(frames), 'frame')}; "
                        "expected two or more")
    if not np.isfinite(estimate).all():
        raise DataError("the estimated trajectory has poses that are not finite")
    true_poses, aligned, scale = align_trajectory(truth[frames], estimate, alignment)
    segments = segment_errors(truth, frames, aligned)
    steps = step_errors(true_poses, frames, aligned)
    t_err, r_err = segments.mean(0) if len(segments) else (np.nan, np.nan)
    rpe_m, rpe_deg = steps.mean(0) if len(steps) else (np.nan, np.nan)
    distances = np.linalg.norm(true_poses[:, :3, 3] - aligned[:, :3, 3], axis=1)
    return Scores(alignment, scale, float(100 * t_err), float(100 * np.degrees(r_err)),
                  float(np.sqrt((distances**2).mean())), float(rpe_m), float(rpe_deg),
                  true_poses, aligned)


def chain_motions(motions: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Chain N motions to N + 1 poses, of which the first is the identity.

    Args:
        motions: (N, 4, 4) from the camera of frame i to the camera of frame i + 1.
        scale: metres per unit of length of the motions.

    Returns:
        (N + 1, 4, 4) poses, camera to world, metres.
    """
    poses = [np.eye(4)]
    for motion in motions.astype(np.float64):
        poses.append(poses[-1] @ np.linalg.inv(motion))  # camera i + 1 -> camera i -> world
    poses = np.array(poses)
    poses[:, :3, 3] *= scale
    return poses


def tum_text(times: Sequence[float], poses: np.ndarray) -> str:
    """Format N poses (N, 4, 4) as TUM does: `time x y z qx qy qz qw`, seconds and metres."""
    return "".join(f"{time:.6f} " + " ".join(f"{value:.9e}" for value in row) + "\n"
                   for time, row in zip(times, np.hstack([poses[:, :3, 3], quaternions(poses)]),
                                        strict=True))


def quaternions(poses: np.ndarray) -> np.ndarray:
    """Return the rotations of poses (N, 4, 4) as unit quaternions (N, 4): x y z w, w >= 0."""
    rows = scipy.spatial.transform.Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    return rows * np.where(rows[:, 3:] < 0, -1, 1)


def align_trajectory(truth: np.ndarray, estimate: np.ndarray,
                     alignment: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Align an estimated trajectory with the true trajectory, as kitti-odom-eval does.

    First, both are moved so that their first pose is the identity ("none" ends here). "scale" then
    fits a factor of the positions by least squares. "6dof" fits a rotation and a shift of the
    positions, "7dof" a rotation, a shift and a factor: positions are multiplied by the factor, then
    whole poses are rotated and shifted.

    Args:
        truth: (N, 4, 4) true poses.
        estimate: (N, 4, 4) estimated poses of the same frames.
        alignment: one of `ALIGNMENTS`.

    Returns:
        (N, 4, 4) true poses, (N, 4, 4) estimated poses, and the factor.

    Raises:
        DataError: the estimate hardly moves, so the factor cannot be fitted.
    """
    # move the first pose to the identity, for 6dof and 7dof too: rotations written with seven
    # digits change lengths in the eighth digit, and kitti-odom-eval's figures contain the change
    truth, estimate = (np.linalg.inv(poses[0]) @ poses for poses in (truth, estimate))
    x, y = estimate[:, :3, 3], truth[:, :3, 3]                                # (N, 3) positions
    moved, scale = np.eye(4), 1.0
    sizes = np.linalg.norm(x), np.linalg.norm(y)
    if alignment in ("scale", "7dof") and sizes[0] <= STATIC * sizes[1]:
        raise DataError("the estimated trajectory never moves, or less than the true one by a "
                        f"factor of {1 / STATIC:g}, so --alignment {alignment} cannot fit a scale; "
                        "give --alignment none or 6dof")
    if alignment == "scale":
        scale = float((x * y).sum() / (x * x).sum())
    elif alignment != "none":
        moved, scale = _fit_similarity(x, y, with_scale=alignment == "7dof")
    estimate[:, :3, 3] *= scale
    return truth, moved @ estimate, scale


def _fit_similarity(x: np.ndarray, y: np.ndarray, with_scale: bool) -> tuple[np.ndarray, float]:
    """Find the rigid motion (4, 4) and the factor s that move s * x nearest to y.

    scikit-image's `SimilarityTransform` fits the same, but to points on a line, as of a straight
    road, it fits a reflection and a negative factor (0.26).

    Args:
        x, y: (N, 3) points.
        with_scale: fit s too; otherwise s is 1.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point
    patterns", eqs. 38-43.
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    with warnings.catch_warnings():  # about points on a line, where more than one rotation is best
        warnings.simplefilter("ignore", UserWarning)
        rotation, _ = scipy.spatial.transform.Rotation.align_vectors(y - y_mean, x - x_mean)
    scale = 1.0
    if with_scale:
        scale = float(((y - y_mean) * rotation.apply(x - x_mean)).sum() / ((x - x_mean)**2).sum())
    moved = np.eye(4)
    moved[:3, :3] = rotation.as_matrix()
    moved[:3, 3] = y_mean - scale * rotation.apply(x_mean)
    return moved, scale


def segment_errors(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Compute the errors of all segments, as KITTI's devkit defines them.

    Segments are 100, 200, ... 800 m long and start at each tenth frame. A segment ends at the first
    frame that is farther along the true path than its length; it counts if both ends are estimated.

    Args:
        truth: (M, 4, 4) true poses of all frames, which give the distances.
        frames: (N,) indices of the estimated frames, below M.
        estimate: (N, 4, 4) estimated poses after the alignment.

    Returns:
        (K, 2) translation error in metres, rotation error in radians, both per metre of segment.

    Source: KITTI odometry devkit, evaluate_odometry.cpp; Geiger et al. 2012, Sec. 3.1.
    """
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    distances = np.concatenate([[0], np.cumsum(steps)])
    row = np.full(len(truth) + 1, -1)  # of the estimate, for each frame; the last entry: no frame
    row[frames] = np.arange(len(frames))
    firsts, lengths = np.meshgrid(np.arange(0, len(truth), SEGMENT_STEP), SEGMENT_LENGTHS,
                                  indexing="ij")
    lasts = np.searchsorted(distances, distances[firsts] + lengths, side="right")
    counts = (row[firsts] >= 0) & (row[lasts] >= 0)
    firsts, lasts, lengths = firsts[counts], lasts[counts], lengths[counts]   # (K,)
    true_motions = np.linalg.inv(truth[firsts]) @ truth[lasts]
    own_motions = np.linalg.inv(estimate[row[firsts]]) @ estimate[row[lasts]]
    errors = np.linalg.inv(own_motions) @ true_motions
    # the devkit's formula, which loses digits at small angles
    cosines = (errors[:, :3, :3].trace(axis1=1, axis2=2) - 1) / 2
    angles = np.arccos(cosines.clip(-1, 1))
    return np.stack([np.linalg.norm(errors[:, :3, 3], axis=1), angles], 1) / lengths[:, None]


def step_errors(truth: np.ndarray, frames: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Compute the errors of the motions from an estimated frame to the next frame.

    Args:
        truth: (N, 4, 4) true poses of the estimated frames.
        frames: (N,) their indices; a motion across missing frames is left out.
        estimate: (N, 4, 4) estimated poses after the alignment.

    Returns:
        (K, 2) translation error in metres, rotation error in degrees.

    Source: Sturm et al. 2012, "A benchmark for the evaluation of RGB-D SLAM systems", eq. 2.
    """
    first = np.flatnonzero(np.diff(frames) == 1)
    true_motions, own_motions = (np.linalg.inv(poses[first]) @ poses[first + 1]
                                 for poses in (truth, estimate))
    errors = np.linalg.inv(true_motions) @ own_motions
    angles = scipy.spatial.transform.Rotation.from_matrix(errors[:, :3, :3]).magnitude()
    return np.stack([np.linalg.norm(errors[:, :3, 3], axis=1), np.degrees(angles)], 1)


def dump_xyz(source_to_target_transformations: Iterable[np.ndarray]) -> np.ndarray:
    """Return the (N + 1, 3) positions along N relative poses (4, 4), starting at the origin."""
    pose, centres = np.eye(4), [np.zeros(3)]
    for T in source_to_target_transformations:
        pose = pose @ T
        centres.append(pose[:3, 3])
    return np.array(centres)


def compute_ate(gtruth_xyz: np.ndarray, pred_xyz_o: np.ndarray) -> float:
    """Compute the error of one window of a trajectory, in the unit of `gtruth_xyz`.

    An estimate that stays at the origin is compared as it is, because no scale fits it.

    Args:
        gtruth_xyz: (N, 3) true camera centres.
        pred_xyz_o: (N, 3) estimated camera centres, up to a shift and a scale.

    Source: Zhou et al. 2017 (arXiv:1704.07813), Sec. 4.2.
    """
    moved = pred_xyz_o + (gtruth_xyz[0] - pred_xyz_o[0])
    square = np.sum(moved**2)
    scale = np.sum(gtruth_xyz * moved) / square if square else 1.0
    # Faithful: the root of the sum over N, not of the mean, as in the published tables
    return float(np.sqrt(np.sum((moved * scale - gtruth_xyz) ** 2)) / len(gtruth_xyz))


def five_frame_errors(gt_poses: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Compute the 5-frame error of the windows that start at each frame but the last.

    Args:
        gt_poses: (N, 4, 4) true poses, camera to world, metres.
        motions: (N - 1, 4, 4) from the camera of frame i to the camera of frame i + 1.

    Returns:
        (N - 1,) metres.
    """
    true_motions = np.linalg.inv(gt_poses[1:]) @ gt_poses[:-1]
    steps = TRACK_LENGTH - 1
    # Faithful: the shorter windows at the end count too
    return np.array([compute_ate(dump_xyz(true_motions[i:i + steps]),
                                 dump_xyz(motions[i:i + steps])) for i in range(len(motions))])
