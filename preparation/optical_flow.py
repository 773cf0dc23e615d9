"""How much the image moves between two frames: what training learns from."""
from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

WIDTH = 416     # pixels of the images that flow is measured in
MIN_FLOW = 1.0  # pixels of those, on average: below it a pair of frames is nearly static


def small_gray(image: Tensor) -> np.ndarray:
    """Return a (3, H, W) uint8 RGB image in gray, `WIDTH` pixels wide."""
    height = max(16, round(image.shape[1] * WIDTH / image.shape[2]))
    gray = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (WIDTH, height), interpolation=cv2.INTER_AREA)


def mean_flow(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean length of the optical flow between two of `small_gray`, in its pixels."""
    return float(np.linalg.norm(_flow(first, second), axis=2).mean())


def parallax(left: np.ndarray, right: np.ndarray) -> float:
    """Return how far to the left things are in the right one of two of `small_gray`, the median."""
    return float(-np.median(_flow(left, right)[..., 0]))


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the (H, W, 2) motion, x and y, of each of the first one's pixels."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(first, second, None)
