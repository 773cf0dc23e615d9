"""Convert disparity to depth, and compute the paper's seven errors of depth."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from metrics.alignment import Alignment, fit_alignment

Values = TypeVar("Values")  # np.ndarray or torch.Tensor

MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0  # metres between which KITTI's depth is evaluated
DISTANCE_STEP = 10.0  # metres, width of the bins of `errors_by_distance`
# Faithful: KITTI's baseline of 0.54 m over the nominal 0.1 makes stereo-trained depth metres
STEREO_SCALE_FACTOR = 5.4
# The crop of Garg et al. 2016 as fractions of the height and of the width
CROP_ROWS = (0.40810811, 0.99189189)
CROP_COLUMNS = (0.03594771, 0.96405229)
DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
# The same errors under the names of the logs
LOGGED_METRICS = ("de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3")
# Share of the columns at each side that one stereo view cannot see; blending takes as much again
UNSEEN = 0.05


def disp_to_depth(disp: Values, min_depth: float, max_depth: float) -> tuple[Values, Values]:
    """Convert the network's sigmoid output to scaled disparity and depth.

    Args:
        disp: array or tensor of any shape, in (0, 1).
        min_depth: depth at disp = 1, in the unit of the returned depth.
        max_depth: depth at disp = 0, in the same unit.

    Returns:
        (scaled_disp, depth), both in the shape of `disp`; depth = 1 / scaled_disp.

    Source: Monodepth2 (arXiv:1806.01260), supplementary B.
    """
    # Faithful: linear in inverse depth, 0.1 to 100 by default
    min_disp, max_disp = 1 / max_depth, 1 / min_depth
    scaled_disp = min_disp + (max_disp - min_disp) * disp
    return scaled_disp, 1 / scaled_disp


def compute_errors(gt: Values, pred: Values) -> tuple:
    """Compute the seven errors of depth at N pixels.

    Args:
        gt: (N,) array or tensor, metres, > 0.
        pred: (N,) predicted depth, same type and unit as `gt`, > 0.

    Returns:
        (abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3); sq_rel and rmse in metres.

    Source: Eigen et al. 2014 (arXiv:1406.2283), Sec. 4.2.
    """
    too_far, too_near = gt / pred, pred / gt
    accuracies = [(((too_far < 1.25**k) & (too_near < 1.25**k)) * 1.0).mean() for k in (1, 2, 3)]
    rmse = ((gt - pred) ** 2).mean() ** 0.5
    rmse_log = ((_log(gt) - _log(pred)) ** 2).mean() ** 0.5
    abs_rel = (abs(gt - pred) / gt).mean()
    sq_rel = ((gt - pred) ** 2 / gt).mean()
    return abs_rel, sq_rel, rmse, rmse_log, *accuracies


def _log(values: Values) -> Values:
    """Return the natural logarithm of an array, or of a tensor, which has it as a method."""
    return values.log() if hasattr(values, "log") else np.log(values)


def eigen_mask(gt: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool mask of the pixels that are evaluated on Eigen's split."""
    height, width = gt.shape
    rows = (np.array(CROP_ROWS) * height).astype(int)
    columns = (np.array(CROP_COLUMNS) * width).astype(int)
    mask = np.zeros(gt.shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask & (gt > MIN_DEPTH) & (gt < MAX_DEPTH)


def evaluated_mask(gt: np.ndarray, eigen: bool) -> np.ndarray:
    """Return the (H, W) bool mask of evaluated pixels: `eigen_mask`, or all with ground truth."""
    return eigen_mask(gt) if eigen else gt > 0


def depths_at(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray, scale_factor: float = 1.0,
              alignment: str = "median", max_depth: float = MAX_DEPTH,
              ) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """Return the true and the predicted depth at the N evaluated pixels of an image.

    Args:
        gt: (H, W) metres, 0 = no ground truth.
        disp: (h, w) scaled disparity, 1 / depth.
        mask: (H, W) bool, the evaluated pixels; at least one.
        scale_factor: multiplies the predicted depth.
        alignment: of the predicted depth with the true depth afterwards, one of `ALIGNMENTS`.
        max_depth: metres that the aligned depth is limited to.

    Returns:
        (N,) true depth, (N,) predicted depth limited to 1e-3 m to `max_depth`, and the alignment;
        its scale is the ratio of the medians for "median", 1 for "none".
    """
    # imported here: `from evaluate_depth import compute_errors` needs numpy only
    import cv2
    # Faithful: disparity is resized, then inverted; np.median; 1e-3 to 80 m
    height, width = gt.shape
    pixels = np.flatnonzero(mask)  # few pixels of a scan's map: the others need no division
    pred = 1 / cv2.resize(disp, (width, height)).ravel()[pixels] * scale_factor
    gt = gt.ravel()[pixels]
    fit = fit_alignment(alignment, gt, pred)
    return gt, fit.apply(pred).clip(MIN_DEPTH, max_depth), fit


def depth_errors(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray, scale_factor: float = 1.0,
                 alignment: str = "median") -> tuple[np.ndarray, float]:
    """Compute the seven errors of one predicted disparity map.

    Args:
        gt, disp, mask, scale_factor, alignment: as for `depths_at`.

    Returns:
        (7,) errors and the scale of the alignment.
    """
    gt, pred, fit = depths_at(gt, disp, mask, scale_factor, alignment)
    return np.array(compute_errors(gt, pred)), fit.scale


def errors_by_distance(
        depths: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Average abs_rel over the pixels of all images, in bins of 10 m of true distance.

    Args:
        depths: for each image, (N,) true and (N,) predicted depth, metres, > 0.

    Returns:
        (9,) abs_rel, NaN in a bin without pixels, and (9,) numbers of pixels; the last bin starts
        at `MAX_DEPTH` and has no end.
    """
    bins = int(MAX_DEPTH / DISTANCE_STEP) + 1
    sums, counts = np.zeros(bins), np.zeros(bins, int)
    for gt, pred in depths:
        bin_of_pixel = np.minimum(gt / DISTANCE_STEP, bins - 1).astype(int)
        sums += np.bincount(bin_of_pixel, abs(gt - pred) / gt, bins)
        counts += np.bincount(bin_of_pixel, minlength=bins)
    return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0), counts


def logged_depth_errors(gts: np.ndarray, disps: np.ndarray) -> dict[str, float]:
    """Compute the mean errors of a batch on Eigen's pixels, after median scaling.

    Args:
        gts: (B, H, W) metres, 0 = no ground truth.
        disps: (B, h, w) scaled disparities.

    Returns:
        {name in the logs: error}; empty if no image of the batch has ground truth.
    """
    errors = []
    for gt, disp in zip(gts, disps, strict=True):
        mask = eigen_mask(gt)
        if mask.any():  # a few of KITTI's frames lack a scan
            errors.append(depth_errors(gt, disp, mask)[0])
    return dict(zip(LOGGED_METRICS, np.mean(errors, 0), strict=True)) if errors else {}


def batch_post_process_disparity(l_disp: np.ndarray, r_disp: np.ndarray) -> np.ndarray:
    """Blend the disparities of images with the disparities of their mirrored images.

    Args:
        l_disp: (B, H, W) disparities of the images.
        r_disp: (B, H, W) disparities of the mirrored images, mirrored back.

    Returns:
        (B, H, W): the mean of both, but `r_disp` at the left edge and `l_disp` at the right edge.

    Source: Godard et al. 2017 (arXiv:1609.03677), Sec. 4.2.
    """
    column = np.linspace(0, 1, l_disp.shape[2])
    l_mask = (1 - np.clip((column - UNSEEN) / UNSEEN, 0, 1))[None, None]  # (1, 1, W)
    r_mask = l_mask[..., ::-1]
    middle = 1 - l_mask - r_mask
    return r_mask * l_disp + l_mask * r_disp + middle * (l_disp + r_disp) / 2
