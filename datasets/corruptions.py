"""Corrupt the images of a dataset as KITTI-C does: weather, camera faults, noise.

15 of the 18 corruptions are those of ImageNet-C, by the package `imagecorruptions`; the others are
defined here. Every draw is seeded by corruption, severity and frame: an image gets the same noise
in any batch, process and order.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial

import numpy as np
from PIL import Image

from datasets.mono_dataset import MonoDataset
from runtime.errors import DataError, UsageError
from runtime.seeds import seeded

# Groups and order of RoboDepth (arXiv:2310.15171)
GROUPS = {
    "weather and light": ("brightness", "dark", "fog", "frost", "snow", "contrast"),
    "sensor and motion": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
                          "elastic_transform", "color_quant"),
    "data and processing": ("gaussian_noise", "impulse_noise", "shot_noise", "iso_noise",
                            "pixelate", "jpeg_compression")}
CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32  # pixels that `imagecorruptions` needs in height and in width
TAKE_A_SEED = ("impulse_noise", "glass_blur")  # the others draw from NumPy's global generator
INSTALL = ("pip install -r requirements-corruptions.txt && "
           "pip install --no-deps imagecorruptions-imaug")

# Parameters of severities 1 to 5, as published with 3D Common Corruptions (Kar et al. 2022,
# arXiv:2203.01441), from which KITTI-C takes these three
DARK_WHITE = (0.6, 0.5, 0.4, 0.3, 0.2)        # value of the brightest pixel
DARK_PHOTONS = (600, 250, 120, 50, 30)        # at value 1
DARK_READ_NOISE = (0.008, 0.012, 0.018, 0.026, 0.038)  # standard deviation
DARK_GAMMA = 2.0
ISO_PHOTONS = 25                              # at value 1
ISO_READ_NOISE = (0.056, 0.084, 0.126, 0.182, 0.266)   # standard deviation
COLOR_BITS = (5, 4, 3, 2, 1)                  # of a channel


def dark(image: np.ndarray, severity: int) -> np.ndarray:
    """Darken an image, with the noise of few photons.

    With x the image stretched to [0, 1]: clip(Poisson(photons white x^2) / photons + N(0, s^2)).

    Args:
        image: (H, W, 3) uint8.
        severity: 1 to 5.
    """
    x = image / 255
    x = (x - x.min()) / max(np.ptp(x), 1 / 255)
    return _sensor_noise(DARK_WHITE[severity - 1] * x ** DARK_GAMMA, DARK_PHOTONS[severity - 1],
                         DARK_READ_NOISE[severity - 1])


def iso_noise(image: np.ndarray, severity: int) -> np.ndarray:
    """Add the noise of a high ISO: clip(Poisson(25 x) / 25 + N(0, s^2)), x in [0, 1].

    Args:
        image: (H, W, 3) uint8.
        severity: 1 to 5.
    """
    return _sensor_noise(image / 255, ISO_PHOTONS, ISO_READ_NOISE[severity - 1])


def color_quant(image: np.ndarray, severity: int) -> np.ndarray:
    """Keep the highest 5, 4, 3, 2 or 1 bits of each channel; the others become 0.

    Args:
        image: (H, W, 3) uint8.
        severity: 1 to 5.
    """
    return image & np.uint8(256 - 2 ** (8 - COLOR_BITS[severity - 1]))


def _sensor_noise(x: np.ndarray, photons: float, deviation: float) -> np.ndarray:
    """Return an image in [0, 1] as uint8, with shot noise and the read noise after it."""
    shot = (np.random.poisson(x * photons) / photons).clip(0, 1)
    return ((shot + np.random.normal(scale=deviation, size=x.shape)).clip(0, 1) * 255).astype(
        np.uint8)


OWN = {"dark": dark, "iso_noise": iso_noise, "color_quant": color_quant}


def choose_corruptions(names: Sequence[str]) -> list[str]:
    """Return the named corruptions in the order of `CORRUPTIONS`; without a name, all 18.

    Raises:
        UsageError: a name is unknown, or the package `imagecorruptions` is missing.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise UsageError(f"--corruptions {name} does not exist; choose from "
                             f"{' '.join(CORRUPTIONS)}")
    chosen = [name for name in CORRUPTIONS if name in names or not names]
    if not OWN.keys() >= set(chosen):
        _library()
    return chosen


def _library() -> Callable:
    """Return the function `corrupt` of ImageNet-C's package.

    Raises:
        UsageError: the package, or one that it needs, is missing.
    """
    try:
        from imagecorruptions import corrupt  # an extra; compiles with numba
    except ImportError as error:
        raise UsageError(f"--corruptions needs the package imagecorruptions ({error}): "
                         f"{INSTALL}") from None
    return corrupt


def corrupt_image(image: np.ndarray, name: str, severity: int, place: str) -> np.ndarray:
    """Return a corrupted image; the generators of the process stay as they were.

    Args:
        image: (H, W, 3) uint8 RGB, at the size of its file.
        name: of `CORRUPTIONS`.
        severity: 1 to 5.
        place: what seeds the noise, beside the name and the severity.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the image is smaller than 32 x 32 pixels.
        UsageError: the package `imagecorruptions` is missing.
    """
    height, width, _ = image.shape
    if min(height, width) < MIN_SIDE:
        raise DataError(f"the image of {place} has {width}x{height} pixels; --corruptions needs "
                        f"{MIN_SIDE}x{MIN_SIDE} or more")
    with seeded(*f"{name} {severity} {place}".encode()):
        if name in OWN:
            return OWN[name](image, severity)
        seed = {"seed": np.random.randint(2**31)} if name in TAKE_A_SEED else {}
        return _library()(image, severity, name, **seed)


def corrupted(dataset: MonoDataset, name: str, severity: int) -> MonoDataset:
    """Return a copy of a dataset whose images are corrupted at full size, before they are resized.

    Args:
        dataset: any dataset; a `get_color` of its own is corrupted too.
        name: of `CORRUPTIONS`.
        severity: 1 to 5.
    """
    changed = copy(dataset)
    changed.get_color = partial(_corrupted_color, dataset, name, severity)
    return changed


def _corrupted_color(dataset: MonoDataset, name: str, severity: int, folder: str, frame_index: int,
                     side: str | None, do_flip: bool) -> Image.Image:
    """Return a corrupted frame; takes the place of `MonoDataset.get_color`."""
    image = np.asarray(dataset.get_color(folder, frame_index, side, False))
    color = Image.fromarray(corrupt_image(image, name, severity, f"{folder} {frame_index} {side}"))
    return color.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if do_flip else color
