"""Errors of depth beside the paper's seven: without scale, by distance, holes, at depth edges."""
from __future__ import annotations

import numpy as np

from metrics.depth import MAX_DEPTH, compute_errors

BANDS = ((0, 20), (20, 40), (40, 80))  # metres of true distance: from the first, below the second
BAND_METRICS = {"abs_rel": 0, "rmse": 2, "a1": 4}  # their places among the paper's seven
NEAR = 40.0       # metres; what is nearer and predicted at the range's end is a hole
EDGE_RATIO = 1.25  # of the depths on both sides of an edge: what a1 calls wrong
EDGE_WINDOW = np.ones((3, 3), np.uint8)  # pixels that an edge is looked for in


def breakdown(gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Return all errors of this file but those at edges, by name.

    Args:
        gt: (N,) true depths, metres, > 0; at least one.
        pred: (N,) predicted ones, cut off at `MAX_DEPTH` as `metrics.depths_at` returns them.

    Returns:
        "silog", "holes", and "abs_rel_0_20" and so on; NaN where no pixel says.
    """
    return {"silog": scale_invariant_log_error(gt, pred), "holes": hole_share(gt, pred),
            **errors_in_bands(gt, pred)}


def scale_invariant_log_error(gt: np.ndarray, pred: np.ndarray) -> float:
    """Return the RMSE of log depth that is left after the best scale for the image.

    With d = log(pred) - log(gt), sqrt(mean(d^2) - mean(d)^2): the standard deviation of d. KITTI's
    server shows 100 times this as SILog.

    Args:
        gt: (N,) metres, > 0.
        pred: the same, in any unit.

    Source: Eigen et al. 2014 (arXiv:1406.2283), Sec. 3.2, the root of D(y, y*).
    """
    return float(np.std(np.log(pred, dtype=float) - np.log(gt, dtype=float)))


def hole_share(gt: np.ndarray, pred: np.ndarray) -> float:
    """Return the share of pixels nearer than 40 m whose prediction is 80 m or more.

    These are the holes that objects moving as fast as the camera leave. `MAX_DEPTH`, 80 m, is the
    end of the evaluated range, at which predictions are cut off; `NEAR` is half of it.

    Args:
        gt: (N,) metres.
        pred: (N,) metres.

    Returns:
        0 to 1; NaN where nothing is near.

    Source: no published definition. The holes are those that Godard et al. 2019
    (arXiv:1806.01260), Sec. 3.2, show and that auto-masking is to reduce.
    """
    near = gt < NEAR
    return float((pred[near] >= MAX_DEPTH).mean()) if near.any() else float("nan")


def errors_in_bands(gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Return abs_rel, rmse (metres) and a1 at true distances of 0-20, 20-40 and 40-80 m.

    Args:
        gt: (N,) metres, > 0.
        pred: the same.

    Returns:
        {"abs_rel_0_20": ...}; NaN where an image has no pixel in the band.

    Source: the errors are those of Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2; the bands are
    this project's, each twice as far as the one before.
    """
    found = {}
    for low, high in BANDS:
        inside = (gt >= low) & (gt < high)
        errors = compute_errors(gt[inside], pred[inside]) if inside.any() else [float("nan")] * 7
        found |= {f"{name}_{low}_{high}": float(errors[place])
                  for name, place in BAND_METRICS.items()}
    return found


def edge_mask(gt: np.ndarray) -> np.ndarray:
    """Return where ground truth is dense and has an edge.

    That is where all 3 x 3 pixels have depth, and the largest is over 1.25 times the least. The
    points of a scan, which have gaps between them, have no such place. (Nor has a road: seen by
    KITTI's camera, its depth grows that fast between rows only from some 150 m on.)

    Args:
        gt: (H, W) metres, 0 = none.

    Returns:
        (H, W) bool.

    Source: an edge as a ratio of neighbouring depths, up to 1.25, is that of Bochkovskii et al.
    2024 (arXiv:2410.02073), its section on boundaries; the window is this project's.
    """
    import cv2
    gt = gt.astype(np.float32)
    least, largest = cv2.erode(gt, EDGE_WINDOW), cv2.dilate(gt, EDGE_WINDOW)
    return (least > 0) & (largest > EDGE_RATIO * least)


def edge_errors(is_edge: np.ndarray, gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Return abs_rel and a1 at depth edges.

    Args:
        is_edge: (N,) bool, of `edge_mask` at the pixels.
        gt: (N,) metres, > 0.
        pred: the same.

    Returns:
        "edge_abs_rel" and "edge_a1"; NaN where there is no edge.

    Source: the errors are those of Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2.
    """
    errors = compute_errors(gt[is_edge], pred[is_edge]) if is_edge.any() else [float("nan")] * 7
    return {"edge_abs_rel": float(errors[0]), "edge_a1": float(errors[4])}
