"""Errors of depth and of trajectories: one definition, for evaluation and for training's logs."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # scripts import this file to read their command line, which needs no torch
    import torch

MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0  # metres between which KITTI's depth is evaluated
DISTANCE_STEP = 10.0  # metres, of the bins in which errors are averaged by distance
# Faithful: KITTI's baseline of 0.54 m over the nominal 0.1 makes stereo-trained depth metres
STEREO_SCALE_FACTOR = 5.4
# The crop of Garg et al. 2016 as fractions of the height and of the width
CROP_ROWS = (0.40810811, 0.99189189)
CROP_COLUMNS = (0.03594771, 0.96405229)
DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
# The same, as they are called in the logs
LOGGED_METRICS = ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3")
EDGE = 0.05  # of the columns, at a side that is out of the other stereo view; blended over as much


def compute_errors(gt: np.ndarray | torch.Tensor, pred: np.ndarray | torch.Tensor) -> tuple:
    """Compare depths at N pixels.

    Args:
        gt: (N,) array or tensor, metres, > 0.
        pred: the same.

    Returns:
        (abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3); the second and third in metres.

    Source: Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2.
    """
    if isinstance(gt, np.ndarray):
        maths = np
    else:
        import torch as maths
    ratio = maths.maximum(gt / pred, pred / gt)
    within = [(ratio < 1.25**k) for k in (1, 2, 3)]
    accuracies = [w.mean() if maths is np else w.float().mean() for w in within]
    rmse = ((gt - pred) ** 2).mean() ** 0.5
    rmse_log = ((maths.log(gt) - maths.log(pred)) ** 2).mean() ** 0.5
    abs_rel = (abs(gt - pred) / gt).mean()
    sq_rel = ((gt - pred) ** 2 / gt).mean()
    return abs_rel, sq_rel, rmse, rmse_log, *accuracies


compute_depth_errors = compute_errors  # its name where tensors are compared


def eigen_mask(gt: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool mask of pixels that Eigen's split evaluates."""
    height, width = gt.shape
    rows = (np.array(CROP_ROWS) * height).astype(int)
    columns = (np.array(CROP_COLUMNS) * width).astype(int)
    mask = np.zeros(gt.shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask & (gt > MIN_DEPTH) & (gt < MAX_DEPTH)


def evaluated_mask(gt: np.ndarray, eigen: bool) -> np.ndarray:
    """Return the (H, W) bool mask of pixels that count: Eigen's, or all that have ground truth."""
    return eigen_mask(gt) if eigen else gt > 0


def depths_at(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray, scale_factor: float = 1.0,
              median_scaling: bool = True) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the depths that are compared: true and predicted ones at the N pixels that count.

    Args:
        gt: (H, W) metres, 0 = none.
        disp: (h, w) scaled disparity, 1 / depth.
        mask: (H, W) bool, the pixels that count; at least one.
        scale_factor: multiplies the predicted depth first.
        median_scaling: then bring its median to that of the ground truth.

    Returns:
        (N,) true and (N,) predicted depths, and the ratio of medians (1 without median scaling).
    """
    import cv2
    # Faithful: disparity is resized, then inverted; np.median; 1e-3 to 80 m
    height, width = gt.shape
    pixels = np.flatnonzero(mask)  # few of a scan's map: the rest is not worth inverting
    pred = 1 / cv2.resize(disp, (width, height)).ravel()[pixels] * scale_factor
    gt = gt.ravel()[pixels]
    ratio = 1.0
    if median_scaling:
        ratio = float(np.median(gt) / np.median(pred))
        pred = pred * ratio
    return gt, pred.clip(MIN_DEPTH, MAX_DEPTH), ratio


def depth_errors(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray, scale_factor: float = 1.0,
                 median_scaling: bool = True) -> tuple[np.ndarray, float]:
    """Compare one predicted disparity map with its ground truth; arguments as of `depths_at`.

    Returns:
        The seven errors, and the ratio of medians (1 without median scaling).
    """
    gt, pred, ratio = depths_at(gt, disp, mask, scale_factor, median_scaling)
    return np.array(compute_errors(gt, pred)), ratio


def errors_by_distance(
        depths: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return abs_rel by the true distance: means over the pixels of all images, in bins of 10 m.

    Args:
        depths: of each image, (N,) true and (N,) predicted ones, metres, > 0.

    Returns:
        (9,) abs_rel, NaN where there is no pixel, and (9,) numbers of pixels; the last bin is of
        all from `MAX_DEPTH` on.
    """
    bins = int(MAX_DEPTH / DISTANCE_STEP) + 1
    sums, counts = np.zeros(bins), np.zeros(bins, int)
    for gt, pred in depths:
        own = np.minimum(gt / DISTANCE_STEP, bins - 1).astype(int)
        sums += np.bincount(own, abs(gt - pred) / gt, bins)
        counts += np.bincount(own, minlength=bins)
    return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0), counts


def logged_depth_errors(gts: np.ndarray, disps: np.ndarray) -> dict[str, float]:
    """Return the mean errors of a batch after median scaling, as the eigen split is evaluated.

    Args:
        gts: (B, H, W) metres, 0 = none.
        disps: (B, h, w) scaled disparities.

    Returns:
        {name in the logs: error}, nothing where no image has ground truth.
    """
    errors = []
    for gt, disp in zip(gts, disps, strict=True):
        mask = eigen_mask(gt)
        if mask.any():  # a few of KITTI's frames have no scan
            errors.append(depth_errors(gt, disp, mask)[0])
    return dict(zip(LOGGED_METRICS, np.mean(errors, 0), strict=True)) if errors else {}


def batch_post_process_disparity(l_disp: np.ndarray, r_disp: np.ndarray) -> np.ndarray:
    """Join the disparities of images and of their mirror images, mirrored back.

    Args:
        l_disp: (B, H, W).
        r_disp: (B, H, W).

    Returns:
        (B, H, W): the mean, but `r_disp` at the left edge and `l_disp` at the right one.

    Source: Godard et al. 2017 (arXiv:1609.03677), Sec. 4.2.
    """
    left = np.linspace(0, 1, l_disp.shape[2])
    l_mask = (1 - np.clip((left - EDGE) / EDGE, 0, 1))[None, None]
    r_mask = l_mask[..., ::-1]
    middle = 1 - l_mask - r_mask
    return r_mask * l_disp + l_mask * r_disp + middle * (l_disp + r_disp) / 2


