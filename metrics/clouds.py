"""Compare the point clouds of predicted and of true depth, and their surface normals."""
from __future__ import annotations

import numpy as np
import scipy  # loads `scipy.spatial` at its first use: -h stays quick

THRESHOLDS = (0.1, 0.25, 0.5)  # metres within which a point counts as found
MAX_POINTS = 50_000  # of a cloud: larger clouds are thinned evenly, which limits the time


def back_project(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Lift each pixel to the 3-D point it sees: depth (x - cx) / fx, depth (y - cy) / fy, depth.

    Args:
        depth: (H, W) distance along the optical axis, in any unit.
        K: (3, 3) or (4, 4) intrinsics in units of the image's width and height, where 0.5 is the
            image centre.

    Returns:
        (H, W, 3) points in the frame of the camera, in the unit of `depth`.

    Source: Hartley and Zisserman 2004, "Multiple View Geometry", Sec. 6.1.
    """
    height, width = depth.shape
    x = ((np.arange(width) + 0.5) / width - K[0, 2]) / K[0, 0]
    y = ((np.arange(height) + 0.5) / height - K[1, 2]) / K[1, 1]
    return np.stack([depth * x, depth * y[:, None], depth], -1)


def cloud_errors(gt: np.ndarray, pred: np.ndarray,
                 max_points: int = MAX_POINTS) -> dict[str, float]:
    """Compute the Chamfer distance, and precision, recall and F-score at 10, 25 and 50 cm.

    With d(p) the distance from a predicted point to the nearest true point, and d(g) from a true
    point to the nearest predicted one: Chamfer = (mean d(p) + mean d(g)) / 2, in metres; precision
    P = share of d(p) < threshold, recall R = share of d(g) < threshold, F = 2 P R / (P + R). Clouds
    are compared as they are: a depth that was aligned by its scale gives the scale-invariant
    errors.

    Args:
        gt: (N, 3) true points, metres; at least one.
        pred: (M, 3) predicted points, metres; at least one.
        max_points: of a cloud; larger clouds are thinned evenly.

    Returns:
        {"cloud_chamfer": ..., "cloud_precision_10cm": ..., "cloud_recall_10cm": ...,
        "cloud_f_10cm": ..., ...}.

    Source: Knapitsch et al. 2017, "Tanks and Temples", Sec. 3.2, for P, R and F; Örnek et al. 2022
    (arXiv:2203.08122) for depth maps. Chamfer distances have several definitions: this one is the
    mean of both directions, unsquared.
    """
    gt, pred = _thin(gt, max_points), _thin(pred, max_points)
    to_gt, _ = scipy.spatial.cKDTree(gt).query(pred)
    to_pred, _ = scipy.spatial.cKDTree(pred).query(gt)
    errors = {"cloud_chamfer": float(to_gt.mean() + to_pred.mean()) / 2}
    for threshold in THRESHOLDS:
        precision, recall = (float((far < threshold).mean()) for far in (to_gt, to_pred))
        found = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        errors |= {f"cloud_{name}_{100 * threshold:.0f}cm": value for name, value in (
            ("precision", precision), ("recall", recall), ("f", found))}
    return errors


def normal_angle(gt: np.ndarray, pred: np.ndarray, where: np.ndarray) -> float:
    """Compute the mean angle between true and predicted surface normals: how flat surfaces are.

    A normal is the cross product of the differences between the points to the right and left, and
    below and above. No scale factor of a prediction changes the angle.

    Args:
        gt: (H, W, 3) true points.
        pred: (H, W, 3) predicted points.
        where: (H, W) bool, pixels with known neighbours; those at the image's border do not count.

    Returns:
        Degrees, 0 to 180; NaN if no pixel counts.

    Source: Eigen and Fergus 2015 (arXiv:1411.4734), Sec. 5.2, for the mean angle; central
    differences are this project's choice.
    """
    where = where[1:-1, 1:-1]
    if not where.any():
        return float("nan")
    true, found = (np.cross((points[1:-1, 2:] - points[1:-1, :-2])[where],
                            (points[2:, 1:-1] - points[:-2, 1:-1])[where])
                   for points in (gt, pred))
    sines, cosines = np.linalg.norm(np.cross(true, found), axis=1), (true * found).sum(1)
    return float(np.degrees(np.arctan2(sines, cosines)).mean())


def _thin(points: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` of (N, 3) points, evenly spaced in their order."""
    if len(points) <= count:
        return points
    return points[np.linspace(0, len(points) - 1, count).astype(int)]
