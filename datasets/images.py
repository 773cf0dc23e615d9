"""Images as uint8 tensors: decoded, resized with LANCZOS, halved into a pyramid."""
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from runtime.files import MAX_PIXELS


def _can_lanczos() -> bool:
    """Whether this PyTorch resizes with LANCZOS."""
    try:
        F.interpolate(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4), mode="lanczos",
                      antialias=True)
    except (RuntimeError, ValueError):
        return False
    return True


ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # the last bytes of a whole file
cv2.setNumThreads(0)  # a loader's workers share the cores; threads of theirs would fight
Image.MAX_IMAGE_PIXELS = None  # Pillow's own bound only warns; `open_image` has another
# What Pillow and OpenCV raise on files that are broken or are no images
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError,
                AttributeError, OverflowError, NotImplementedError, RuntimeError, MemoryError,
                struct.error, zlib.error, cv2.error)
LANCZOS_SUPPORT = 3  # pixels of the smaller image, to either side
HAS_LANCZOS = _can_lanczos()


class Resized(NamedTuple):
    """A frame as the networks take it.

    Attributes:
        image: (3, height, width) uint8, contiguous.
        original_size: height and width of the image that it was made of.
    """

    image: Tensor
    original_size: tuple[int, int]


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Open an image with Pillow, which reads no more than its header yet.

    Raises:
        one of IMAGE_ERRORS: it is missing, is no image, or has more than `MAX_PIXELS`.
    """
    try:
        image = Image.open(source)
    except UnidentifiedImageError:  # whose words are of objects in memory
        raise OSError("it is of no kind of image that is known") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} "
                         "that an image may have")
    return image


def read_image(path: str | Path) -> Tensor:
    """Decode an image file.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        FileNotFoundError: it is missing.
        one of IMAGE_ERRORS: it is no image, or too large; Pillow's reason.
    """
    content = np.fromfile(path, np.uint8)
    if not len(content):
        raise OSError("it is empty")
    with open_image(io.BytesIO(content)) as opened:
        end = ENDS.get(opened.format)
        if opened.mode in ("RGB", "L") and end and content[-len(end):].tobytes() == end:
            # OpenCV gives the same bits in less than half the time, but pads what is cut off
            image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is not None:
                return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        return from_pillow(opened.convert("RGB"))


def from_pillow(image: Image.Image) -> Tensor:
    """Return an RGB image of Pillow's as a (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize(image: Tensor, height: int, width: int, exact: bool = False) -> Tensor:
    """Resize a (3, H, W) uint8 image to (3, height, width).

    Args:
        image: on the CPU.
        height: of the result.
        width: the same.
        exact: give Pillow's bits, as published figures have them. Otherwise PyTorch resizes where
            it can, in a fifth of the time and to within 1 of 255, but for a few values in a million
            that are 2 off.
    """
    # Faithful: LANCZOS, with the support that the downscaling asks for
    if HAS_LANCZOS and not exact:
        resized = F.interpolate(image[None], (height, width), mode="lanczos", antialias=True)[0]
    else:
        pillow = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized = from_pillow(pillow.resize((width, height), Image.Resampling.LANCZOS))
    return resized.contiguous()


def resize_float(images: Tensor, height: int, width: int) -> Tensor:
    """Resize float images with LANCZOS, on their device.

    Args:
        images: (B, 3, H, W) float32 in [0, 1].
        height: of the result.
        width: the same.

    Returns:
        (B, 3, height, width) in [0, 1]: what `resize` gives, but for the rounding to 8 bits.
    """
    rows = _lanczos(images.shape[2], height, images.device)
    columns = _lanczos(images.shape[3], width, images.device)
    return (rows @ (images @ columns.T).clamp(0, 1)).clamp(0, 1)


def pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return uint8 images and their halves, on their device.

    Args:
        images: (B, 3, H, W) uint8.
        levels: how many sizes to return.

    Returns:
        (B, 3, H / 2^s, W / 2^s) float32 of the whole numbers that Pillow's uint8 would hold.
    """
    scales = [images.float()]
    for _ in range(levels - 1):
        # Faithful: each scale from the one above
        finer = scales[-1]
        rows, columns = (_lanczos(size, size // 2, images.device) for size in finer.shape[2:])
        scales.append(_whole(rows @ _whole(finer @ columns.T)))
    return scales


def _whole(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255)


def _lanczos(size: int, new_size: int, device: torch.device) -> Tensor:
    """Return the (new_size, size) matrix of LANCZOS: a resize is linear, and separable."""
    scale = size / new_size
    centres = (torch.arange(new_size, device=device) + 0.5) * scale
    x = (torch.arange(size, device=device) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = torch.where(x.abs() < LANCZOS_SUPPORT,
                          torch.sinc(x) * torch.sinc(x / LANCZOS_SUPPORT), 0)
    return weights / weights.sum(1, keepdim=True)
