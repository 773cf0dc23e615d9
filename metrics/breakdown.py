"""Further errors of depth: logarithmic, in distance bands, in holes, at depth edges."""
from __future__ import annotations

import cv2
import numpy as np

from metrics.depth import DEPTH_METRICS, MAX_DEPTH, compute_errors

BANDS = ((0, 20), (20, 40), (40, 80))  # metres of true distance: first value included, second not
BAND_METRICS, EDGE_METRICS = ("abs_rel", "rmse", "a1"), ("abs_rel", "a1")
NEAR = 40.0        # metres; a nearer pixel predicted at the end of the range belongs to a hole
EDGE_RATIO = 1.25  # of the depths on both sides of an edge: the threshold of a1
EDGE_WINDOW = np.ones((3, 3), np.uint8)  # pixels searched for an edge


def breakdown(gt: np.ndarray, pred: np.ndarray, max_depth: float = MAX_DEPTH) -> dict[str, float]:
    """Compute silog, log10, the share of holes, and the errors in distance bands.

    Args:
        gt: (N,) true depth, metres, > 0; at least one pixel.
        pred: (N,) predicted depth, limited to `max_depth` as `metrics.depth.depths_at` does.
        max_depth: metres, the end of the evaluated range.

    Returns:
        {"silog": ..., "log10": ..., "holes": ..., "abs_rel_0_20": ...}; NaN where no pixel counts.
    """
    return {"silog": scale_invariant_log_error(gt, pred), "log10": log10_error(gt, pred),
            "holes": hole_share(gt, pred, max_depth), **errors_in_bands(gt, pred)}


def scale_invariant_log_error(gt: np.ndarray, pred: np.ndarray) -> float:
    """Compute the RMSE of log depth that remains after the best scale factor for the image.

    With d = log(pred) - log(gt), sqrt(mean(d^2) - mean(d)^2): the standard deviation of d. KITTI's
    server shows 100 times this value as SILog.

    Args:
        gt: (N,) true depth, metres, > 0.
        pred: (N,) predicted depth in any unit, > 0.

    Source: Eigen et al. 2014 (arXiv:1406.2283), Sec. 3.2, the root of D(y, y*).
    """
    return float(np.std(np.log(pred, dtype=float) - np.log(gt, dtype=float)))


def log10_error(gt: np.ndarray, pred: np.ndarray) -> float:
    """Compute the mean of |log10(pred) - log10(gt)|.

    Args:
        gt: (N,) true depth, metres, > 0.
        pred: (N,) predicted depth, metres, > 0.

    Source: Saxena et al. 2009 (Make3D, PAMI 31(5)).
    """
    return float(abs(np.log10(pred, dtype=float) - np.log10(gt, dtype=float)).mean())


def hole_share(gt: np.ndarray, pred: np.ndarray, max_depth: float = MAX_DEPTH) -> float:
    """Compute the share of pixels nearer than 40 m that are predicted at the end of the range.

    Objects that move as fast as the camera leave such holes. `NEAR` is half of KITTI's range.

    Args:
        gt: (N,) true depth, metres.
        pred: (N,) predicted depth, metres.
        max_depth: metres, the end of the evaluated range, which predictions are limited to.

    Returns:
        0 to 1; NaN if no pixel is nearer than 40 m.

    Source: this project. Godard et al. 2019 (arXiv:1806.01260), Sec. 3.2, show the holes that
    auto-masking reduces, without a formula.
    """
    near = gt < NEAR
    return float((pred[near] >= max_depth).mean()) if near.any() else float("nan")


def errors_in_bands(gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Compute abs_rel, rmse (metres) and a1 at true distances of 0-20, 20-40 and 40-80 m.

    Args:
        gt: (N,) true depth, metres, > 0.
        pred: (N,) predicted depth, metres, > 0.

    Returns:
        {"abs_rel_0_20": ...}; NaN in a band without pixels.

    Source: the errors are defined by Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2; the bands by
    this project.
    """
    errors = {}
    for low, high in BANDS:
        in_band = _errors_where((gt >= low) & (gt < high), gt, pred)
        errors |= {f"{name}_{low}_{high}": in_band[name] for name in BAND_METRICS}
    return errors


def _errors_where(selected: np.ndarray, gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Compute the seven errors at the selected pixels, by name; NaN if none is selected."""
    if not selected.any():
        return dict.fromkeys(DEPTH_METRICS, float("nan"))
    errors = map(float, compute_errors(gt[selected], pred[selected]))
    return dict(zip(DEPTH_METRICS, errors, strict=True))


def edge_mask(gt: np.ndarray) -> np.ndarray:
    """Find the depth edges of dense ground truth.

    A pixel is at an edge if all 3 x 3 pixels around it have depth and the largest depth is over
    1.25 times the smallest. Scans have gaps everywhere, so they have no such pixel. (A road has
    none either: seen by KITTI's camera, its depth grows that fast between rows only beyond some
    150 m.)

    Args:
        gt: (H, W) metres, 0 = no ground truth.

    Returns:
        (H, W) bool.

    Source: Bochkovskii et al. 2024 (arXiv:2410.02073), the section on boundaries, defines an edge
    by the ratio of neighbouring depths, up to 1.25; the window is this project's.
    """
    smallest, largest = _range_in_window(gt)
    return (smallest > 0) & (largest > EDGE_RATIO * smallest)


def surface_mask(gt: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool mask of pixels of dense ground truth (H, W) that are at no edge."""
    smallest, largest = _range_in_window(gt)
    return (smallest > 0) & (largest <= EDGE_RATIO * smallest)


def _range_in_window(gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest depth in the window of each pixel."""
    gt = gt.astype(np.float32)
    return cv2.erode(gt, EDGE_WINDOW), cv2.dilate(gt, EDGE_WINDOW)


def edge_errors(is_edge: np.ndarray, gt: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Compute abs_rel and a1 at depth edges.

    Args:
        is_edge: (N,) bool, `edge_mask` at the pixels.
        gt: (N,) true depth, metres, > 0.
        pred: (N,) predicted depth, metres, > 0.

    Returns:
        {"edge_abs_rel": ..., "edge_a1": ...}; NaN without an edge.

    Source: Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2, defines the errors.
    """
    errors = _errors_where(is_edge, gt, pred)
    return {f"edge_{name}": errors[name] for name in EDGE_METRICS}
