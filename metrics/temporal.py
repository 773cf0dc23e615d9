"""Measure how consistent the depth of two consecutive frames of a video is."""
from __future__ import annotations

import numpy as np
import scipy  # loads `scipy.ndimage` at its first use: -h stays quick

from metrics.clouds import back_project


def temporal_errors(depth: np.ndarray, next_depth: np.ndarray, motion: np.ndarray, K: np.ndarray,
                    where: np.ndarray | None = None) -> dict[str, float]:
    """Compute the mean and the median difference between the depth of a frame and of the next one.

    Each pixel p of a frame is lifted by its depth and moved into the next camera, where it has the
    depth z(p) and lands at a pixel q, whose own depth d(q) is interpolated bilinearly. The
    difference of p is |z(p) - d(q)| / (z(p) + d(q)). Pixels that land behind the camera or outside
    the image do not count. What is hidden in the next frame differs even in true depth: it raises
    the mean, and the median hardly.

    Args:
        depth: (H, W) of the frame, along the optical axis, > 0, in the unit of `motion`.
        next_depth: (H, W) of the next frame.
        motion: (4, 4) from the camera of the frame to the camera of the next frame.
        K: (3, 3) or (4, 4) intrinsics in units of the image's width and height.
        where: (H, W) bool, the pixels that count; all by default.

    Returns:
        {"temporal": mean, "temporal_median": median}, without unit: 0 = consistent, below 1; NaN if
        no pixel counts.

    Source: Bian et al. 2019 (arXiv:1908.10553), Eq. 3: D_diff, of which the geometry consistency
    loss is the mean. The median is this project's.
    """
    height, width = depth.shape
    points = back_project(depth, K)[... if where is None else where].reshape(-1, 3)
    points = points.astype(float) @ motion[:3, :3].T + motion[:3, 3]
    x, y, z = points[points[:, 2] > 0].T
    # coordinates of pixels: the centre of the first is 0, the image's edge is half a pixel away
    column = width * (K[0, 0] * x / z + K[0, 2]) - 0.5
    row = height * (K[1, 1] * y / z + K[1, 2]) - 0.5
    inside = (abs(2 * column - width + 1) < width) & (abs(2 * row - height + 1) < height)
    if not inside.any():
        return {"temporal": float("nan"), "temporal_median": float("nan")}
    z = z[inside]
    d = scipy.ndimage.map_coordinates(next_depth, (row[inside], column[inside]), float, order=1,
                                      mode="nearest")
    differences = abs(z - d) / (z + d)
    return {"temporal": float(differences.mean()),
            "temporal_median": float(np.median(differences))}
