"""Hold images as uint8 tensors, resize them with LANCZOS, and build image pyramids."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from datasets.image_files import read_array, resize_array


def _can_lanczos() -> bool:
    """Return whether this version of PyTorch resizes with LANCZOS."""
    try:
        F.interpolate(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4), mode="lanczos",
                      antialias=True)
    except (RuntimeError, ValueError):
        return False
    return True


LANCZOS_SUPPORT = 3  # half-width of the filter, in pixels of the smaller image
HAS_LANCZOS = _can_lanczos()


class Resized(NamedTuple):
    """A frame at the size of the networks' input.

    Attributes:
        image: (3, height, width) uint8, contiguous.
        original_size: (height, width) of the image file.
    """

    image: Tensor
    original_size: tuple[int, int]


def read_image(path: str | Path) -> Tensor:
    """Decode an image file to a (3, H, W) uint8 RGB tensor, upright as EXIF's orientation says.

    Values of 16 bits are divided by 257.

    Raises:
        FileNotFoundError: the file is missing.
        one of IMAGE_ERRORS: the file is not an image, too large, cut off, or has pixels of 32 bits.
    """
    return torch.from_numpy(read_array(path)).permute(2, 0, 1)


def from_pillow(image: Image.Image) -> Tensor:
    """Convert an RGB Pillow image to a (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def as_float(images: Tensor) -> Tensor:
    """Convert images of any shape and type from 0-255 to float32 in [0, 1]."""
    return images.float() / 255


def to_tensor(image: Image.Image | np.ndarray) -> torch.Tensor:
    """Convert an image or array (H, W) or (H, W, C) to a tensor (C, H, W), as torchvision does.

    Values of 8 bits become float32 in [0, 1]; others stay as they are.
    """
    values = torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1).contiguous()
    return as_float(values) if values.dtype == torch.uint8 else values


def resize(image: Tensor, height: int, width: int, exact: bool = False) -> Tensor:
    """Resize a (3, H, W) uint8 image to (3, height, width).

    Args:
        image: (3, H, W) uint8, on the CPU.
        height: height of the result, pixels.
        width: width of the result, pixels.
        exact: resize bit for bit as Pillow does, as the published figures were made. Otherwise
            PyTorch resizes if it can: five times faster and within 1 of 255, except for a few
            values in a million that differ by 2.
    """
    # Faithful: LANCZOS, with a filter as wide as the downscaling needs
    if HAS_LANCZOS and not exact:
        resized = F.interpolate(image[None], (height, width), mode="lanczos", antialias=True)[0]
    else:
        resized = torch.from_numpy(resize_array(image.numpy(), height, width))
    return resized.contiguous()


def resize_float(images: Tensor, height: int, width: int) -> Tensor:
    """Resize float images with LANCZOS on their own device.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        height: height of the result, pixels.
        width: width of the result, pixels.

    Returns:
        (B, 3, height, width) in [0, 1]; equal to `resize` except for the rounding to 8 bits.
    """
    rows = _lanczos_matrix(images.shape[2], height, images.device)
    columns = _lanczos_matrix(images.shape[3], width, images.device)
    return (rows @ (images @ columns.T).clamp(0, 1)).clamp(0, 1)


def halving_matrices(height: int, width: int, levels: int,
                     device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Make the matrices of `pyramid`: (rows, columns) for each scale but the full size.

    Args:
        height: height of the full size, pixels.
        width: width of the full size, pixels.
        levels: number of scales, the full size included.
        device: device of the matrices.
    """
    return [tuple(_lanczos_matrix(size >> s, size >> (s + 1), device) for size in (height, width))
            for s in range(levels - 1)]


def pyramid(images: Tensor, levels: int,
            matrices: list[tuple[Tensor, Tensor]] | None = None) -> list[Tensor]:
    """Build an image pyramid with LANCZOS on the images' own device.

    Args:
        images: (B, 3, H, W) uint8.
        levels: number of scales, the full size included.
        matrices: of `halving_matrices`, for as many levels or more; None makes them.

    Returns:
        (B, 3, H / 2^s, W / 2^s) for each scale s: float32 holding whole numbers from 0 to 255.
    """
    if matrices is None:
        matrices = halving_matrices(*images.shape[2:], levels, images.device)
    scales = [images.float()]
    for rows, columns in matrices[:levels - 1]:
        # Faithful: each scale is made from the one above
        scales.append(_round_to_uint8(rows @ _round_to_uint8(scales[-1] @ columns.T)))
    return scales


def _round_to_uint8(values: Tensor) -> Tensor:
    """Round to the values that uint8 can hold, as Pillow does after each pass."""
    return values.round().clamp(0, 255)


def _lanczos_matrix(size: int, new_size: int, device: torch.device) -> Tensor:
    """Return the (new_size, size) matrix that resizes one axis with LANCZOS.

    It is made on the CPU: the same bits for every device, and one copy instead of many kernels.
    """
    scale = size / new_size
    centres = (torch.arange(new_size) + 0.5) * scale
    x = (torch.arange(size) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = torch.where(x.abs() < LANCZOS_SUPPORT,
                          torch.sinc(x) * torch.sinc(x / LANCZOS_SUPPORT), 0)
    return (weights / weights.sum(1, keepdim=True)).to(device)
