"""Draw a contact sheet: strips of small, labelled images in one picture."""
from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from runtime.files import write_atomically

CELL = 320      # pixels, width of an image
TITLE = 18      # pixels, height of a line of text
GAIN = 2.0      # factor that brightens differences
TEXT = (30, 30, 30)


class Strip(NamedTuple):
    """A title, images (H, W, 3) uint8 by their labels, and the columns that each image takes."""

    title: str
    images: dict[str, np.ndarray]
    span: int = 1


def difference(first: Tensor, second: Tensor) -> np.ndarray:
    """Draw the absolute difference of two (3, H, W) uint8 images as (H, W, 3) gray levels."""
    values = (first.float() - second.float()).abs().mean(0) * GAIN
    return np.repeat(values.clamp(0, 255).byte().numpy()[..., None], 3, 2)


def gray_mask(mask: np.ndarray) -> np.ndarray:
    """Draw a mask (H, W) of 0 and 1 as an (H, W, 3) black and white image."""
    return np.repeat((255 * mask).astype(np.uint8)[..., None], 3, 2)


def write_contact_sheet(strips: list[Strip], path: Path) -> None:
    """Write strips below each other into a PNG file, atomically."""
    columns = max(strip.span * len(strip.images) for strip in strips)
    parts = [part for strip in strips for part in _draw_strip(strip, columns)]
    png = io.BytesIO()
    Image.fromarray(np.concatenate(parts)).save(png, "PNG")
    write_atomically(path, png.getvalue())


def _draw_strip(strip: Strip, columns: int) -> list[np.ndarray]:
    """Draw the title and the images of a strip, both as wide as the sheet."""
    cells, width = [], CELL * strip.span
    for label, image in strip.images.items():
        height = round(image.shape[0] * width / image.shape[1])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cells.append(np.concatenate([_draw_text(label, width), small]))
    missing = CELL * (columns - strip.span * len(cells))
    cells.append(np.full((len(cells[0]), missing, 3), 255, np.uint8))
    return [_draw_text(strip.title, CELL * columns), np.concatenate(cells, 1)]


def _draw_text(words: str, width: int) -> np.ndarray:
    """Draw a line of text on a white band (TITLE, width, 3)."""
    band = np.full((TITLE, width, 3), 255, np.uint8)
    cv2.putText(band, words, (3, TITLE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TEXT, 1, cv2.LINE_AA)
    return band
