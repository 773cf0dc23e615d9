"""Compare the occlusion boundaries of predicted and of true depth, where the truth is dense."""
from __future__ import annotations

import numpy as np

THRESHOLDS = np.linspace(1.05, 1.25, 10)  # of the depths of two neighbours; also their weights


def boundary_f1(gt: np.ndarray, pred: np.ndarray) -> float:
    """Compute the scale-invariant boundary F1.

    A pixel i has a boundary towards its neighbour j, left, right, above or below, at threshold t if
    depth(j) / depth(i) > t. Over all ordered pairs of neighbours that have true depth, with P the
    share of predicted boundaries that are true and R the share of true boundaries that are
    predicted, F1(t) = 2 P R / (P + R), and 0 without a boundary that is both. The result is
    sum(t F1(t)) / sum(t) over ten thresholds from 1.05 to 1.25. No scale factor of a prediction
    changes it.

    Args:
        gt: (H, W) true depth, metres, 0 = no ground truth.
        pred: (H, W) predicted depth in any unit, > 0 where `gt` is.

    Returns:
        0 to 1; NaN if the truth has no boundary at the smallest threshold.

    Source: Bochkovskii et al. 2024 (arXiv:2410.02073), the section on boundaries. The authors'
    program takes the mean of P and of R over the four directions; the paper's sum over neighbours,
    which is used here, gives identical maps 1.
    """
    true, found = _neighbour_ratios(gt, pred)
    if not (true > THRESHOLDS[0]).any():
        return float("nan")
    scores = []
    for threshold in THRESHOLDS:
        is_true, is_found = true > threshold, found > threshold
        boundaries = np.count_nonzero(is_true) + np.count_nonzero(is_found)
        # 2 P R / (P + R), multiplied out
        scores.append(2 * np.count_nonzero(is_true & is_found) / max(boundaries, 1))
    return float(np.average(scores, weights=THRESHOLDS))


def _neighbour_ratios(gt: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Return depth(j) / depth(i) of the neighbours with depth, (2, P): true, then predicted."""
    ratios = []
    for along in ((slice(None), slice(1, None)), (slice(1, None), slice(None))):
        before = tuple(slice(None, -1) if part.start else part for part in along)
        known = (gt[along] > 0) & (gt[before] > 0)
        pair = [depth[along][known].astype(float) / depth[before][known] for depth in (gt, pred)]
        ratios += [np.stack(pair), 1 / np.stack(pair)]
    return np.concatenate(ratios, 1)
