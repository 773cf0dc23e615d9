"""Measure how much corrupted images raise the depth error: DEE, mCE and mRR.

Each function works on C corruptions at S severities. Source: Kong et al. 2023 (RoboDepth,
arXiv:2310.15171), after the errors of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).
"""
from __future__ import annotations

import numpy as np


def depth_estimation_error(abs_rel: np.ndarray | float, a1: np.ndarray | float
                           ) -> np.ndarray | float:
    """Compute the DEE, (abs_rel - a1 + 1) / 2: 0 is perfect. RoboDepth calls it DEE2.

    Args:
        abs_rel: mean of |prediction - truth| / truth.
        a1: share of pixels with max(prediction / truth, truth / prediction) < 1.25.
    """
    return (abs_rel - a1 + 1) / 2


def corruption_errors(dee: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Compute the CE: the sum of the DEE over the severities, divided by that of the baseline.

    Args:
        dee: (C, S) DEE under corruption.
        baseline: (C, S) DEE of another network, under the same corruptions and on the same images.

    Returns:
        (C,) percent, lower is better; their mean is the mCE. The baseline itself has 100.
    """
    return 100 * dee.sum(1) / baseline.sum(1)


def resilience_rates(dee: np.ndarray, clean: float) -> np.ndarray:
    """Compute the RR: the mean of (1 - DEE) / (1 - clean DEE) over the severities.

    Args:
        dee: (C, S) DEE under corruption.
        clean: DEE of the same network on the images as they are.

    Returns:
        (C,) percent, higher is better; their mean is the mRR. 100 if corruption costs nothing.
    """
    return 100 * (1 - dee).mean(1) / (1 - clean)
