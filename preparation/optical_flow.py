"""Measure the motion between two images by optical flow."""
from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

WIDTH = 416     # pixels, width of the images that flow is measured on
MIN_FLOW = 1.0  # pixels of these images: a pair with a smaller mean flow is nearly static


def small_gray(image: Tensor) -> np.ndarray:
    """Convert a (3, H, W) uint8 RGB image to gray, `WIDTH` pixels wide: (h, WIDTH) uint8."""
    height = max(16, round(image.shape[1] * WIDTH / image.shape[2]))
    gray = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (WIDTH, height), interpolation=cv2.INTER_AREA)


def mean_flow(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean length of the optical flow between two gray images, in pixels."""
    return float(np.linalg.norm(_optical_flow(first, second), axis=2).mean())


def median_parallax(left: np.ndarray, right: np.ndarray) -> float:
    """Return the median shift to the left from a left to a right gray image, in pixels."""
    return float(-np.median(_optical_flow(left, right)[..., 0]))


def _optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the flow (H, W, 2) of each pixel of `first` towards `second`: x, y in pixels."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(first, second, None)
