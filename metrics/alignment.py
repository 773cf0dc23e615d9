"""Align the predicted depth of an image with its true depth: by medians, or by least squares."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

ALIGNMENTS = ("median", "none", "scale", "affine_depth", "affine_disparity")
FIXED = "fixed"  # alignment of --eval_stereo
ALIGNMENT_WORDS = {"median": "each prediction is scaled to the median of its ground truth",
                   "none": "predictions are not fitted to the ground truth",
                   FIXED: "one known factor for all predictions",
                   "scale": "each prediction is scaled by least squares",
                   "affine_depth": "each prediction is scaled and shifted by least squares",
                   "affine_disparity": "each 1 / prediction is scaled and shifted by least squares"}
SMALLEST = np.finfo(np.float32).tiny  # disparity whose inverse is still finite


class Alignment(NamedTuple):
    """Hold how the predicted depth of an image is aligned.

    Attributes:
        name: one of `ALIGNMENTS`.
        scale: factor of the predicted depth; of 1 / depth for affine_disparity.
        shift: added afterwards; metres, or 1 / metres for affine_disparity.
    """

    name: str
    scale: float = 1.0
    shift: float = 0.0

    def apply(self, depth: np.ndarray) -> np.ndarray:
        """Return the aligned depth, metres; 1e38 where an aligned disparity is not above 0.

        Args:
            depth: predicted depth in any unit, > 0.
        """
        if self.name != "affine_disparity":
            return depth * self.scale + self.shift
        return 1 / np.maximum(self.scale / depth + self.shift, SMALLEST)


def describe_alignment(alignment: str, factor: float) -> str:
    """Return an alignment in words, with the factor of all predictions if it is not 1."""
    before = f"; before, all are multiplied by {factor:g}" if factor != 1 else ""
    return f"{alignment} ({ALIGNMENT_WORDS[alignment]}{before})"


def fit_alignment(name: str, gt: np.ndarray, pred: np.ndarray) -> Alignment:
    """Fit the alignment of one image; least squares give all N pixels the same weight.

    - none: scale 1, shift 0
    - median: scale = median(gt) / median(pred); Zhou et al. 2017 (arXiv:1704.07813)
    - scale: the least sum of (scale pred - gt)^2
    - affine_depth: the least sum of (scale pred + shift - gt)^2; Ke et al. 2024 (arXiv:2312.02145)
    - affine_disparity: the least sum of (scale / pred + shift - 1 / gt)^2; Ranftl et al. 2022
      (arXiv:1907.01341), Sec. 5

    Args:
        name: one of `ALIGNMENTS`.
        gt: (N,) true depth, metres, > 0; at least one pixel.
        pred: (N,) predicted depth in any unit, > 0.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "median":
        return Alignment(name, float(np.median(gt) / np.median(pred)))
    if name == "scale":
        return Alignment(name, fit_scale(pred, gt))
    if name == "affine_depth":
        return Alignment(name, *fit_affine(pred, gt))
    if name == "affine_disparity":
        return Alignment(name, *fit_affine(1 / pred, 1 / gt))
    if name == "none":
        return Alignment(name)
    raise ValueError(f"alignment {name!r} is not one of {', '.join(ALIGNMENTS)}")


def fit_scale(values: np.ndarray, targets: np.ndarray) -> float:
    """Return the factor that minimises sum (factor values - targets)^2.

    Closed form: sum(values targets) / sum(values^2).

    Args:
        values: (N,), not all 0.
        targets: (N,).
    """
    values, targets = values.astype(float), targets.astype(float)
    return float(values @ targets / (values @ values))


def fit_affine(values: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return the factor and the shift that minimise sum (factor values + shift - targets)^2.

    Closed form: factor = cov(values, targets) / var(values), shift = mean(targets) - factor
    mean(values); of values that are alike but for the rounding of float32, factor 0.

    Args:
        values: (N,); at least one.
        targets: (N,).
    """
    values, targets = values.astype(float), targets.astype(float)
    mean = values.mean()
    centred = values - mean
    squares = centred @ centred
    is_constant = squares <= len(values) * (np.finfo(np.float32).eps * mean) ** 2
    factor = 0.0 if is_constant else float(centred @ targets / squares)
    return factor, float(targets.mean() - factor * mean)
