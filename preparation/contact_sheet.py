"""A picture of pictures: rows of small images with their names."""
from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from runtime.files import write_atomically

CELL = 320      # pixels, the width of an image
TITLE = 18      # pixels, the height of a line of text
GAIN = 2.0      # by which differences are brightened
TEXT = (30, 30, 30)


class Row(NamedTuple):
    """A line of text, and below it images (H, W, 3) uint8 with their names."""

    title: str
    images: dict[str, np.ndarray]


def difference(first: Tensor, second: Tensor) -> np.ndarray:
    """Return the (H, W, 3) picture of where two (3, H, W) uint8 images differ: bright is much."""
    values = (first.float() - second.float()).abs().mean(0) * GAIN
    return np.repeat(values.clamp(0, 255).byte().numpy()[..., None], 3, 2)


def gray_mask(mask: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) picture of a mask (H, W) of 0 and 1."""
    return np.repeat((255 * mask).astype(np.uint8)[..., None], 3, 2)


def contact_sheet(rows: list[Row], path: Path) -> None:
    """Write the rows as a PNG, whole or not at all."""
    columns = max(len(row.images) for row in rows)
    lines = [part for row in rows for part in _lines(row, columns)]
    png = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(png, "PNG")
    write_atomically(path, png.getvalue())


def _lines(row: Row, columns: int) -> list[np.ndarray]:
    """Return the title and the cells of a row, each as wide as the picture."""
    cells = []
    for name, image in row.images.items():
        height = round(image.shape[0] * CELL / image.shape[1])
        small = cv2.resize(image, (CELL, height), interpolation=cv2.INTER_AREA)
        cells.append(np.concatenate([_text(name, CELL), small]))
    cells += [np.full_like(cells[0], 255)] * (columns - len(cells))
    return [_text(row.title, CELL * columns), np.concatenate(cells, 1)]


def _text(words: str, width: int) -> np.ndarray:
    band = np.full((TITLE, width, 3), 255, np.uint8)
    cv2.putText(band, words, (3, TITLE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TEXT, 1, cv2.LINE_AA)
    return band
