"""Read masks: the pixels of an image that the loss and the errors leave out."""
from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.image_files import IMAGE_ERRORS, open_image
from runtime.errors import DataError, UsageError

FILE_NAME = "mask.png"
FULL = 0.999  # share of its area that a resized pixel needs, but for rounding


class Masks:
    """Find and read the masks of a folder that is laid out as the data path.

    For the image a/b/000012.jpg, the first of these files is its mask: a/b/000012.png,
    a/b/mask.png, a/mask.png, mask.png. An image without a mask counts as a whole. A mask is a PNG
    of one channel and of its image's size, 0 where the image is left out: a bonnet, the border of a
    lens, a moving object.

    Args:
        folder: folder of the masks.
        dataset: a `MonoDataset`; its height and width are those of resized masks.

    Raises:
        DataError: the folder is missing, or no image has a mask.
        UsageError: the folder is the data path, where images would pass for masks.
    """

    def __init__(self, folder: str | Path, dataset: Dataset):
        self.folder, self.data_path = Path(folder), Path(dataset.data_path)
        self.height, self.width = dataset.height, dataset.width
        if not self.folder.is_dir():
            raise DataError(f"--mask_dir {folder} is no folder; expected one with the layout of "
                            f"{self.data_path}, and in it {FILE_NAME}, or a PNG for each frame")
        if self.folder.resolve() == self.data_path.resolve():
            raise UsageError(f"--mask_dir {folder} is the folder of the images; put the masks into "
                             "one of their own")
        self._of_folder: dict[Path, Path | None] = {}
        images = dataset.paths()
        if images and not any(map(self.find, images)):
            place = Path(os.path.relpath(min(images), self.data_path))
            own = self.folder / place.with_suffix(".png")
            raise DataError(f"{folder} has no mask for any image of the list; expected {own}, or "
                            f"{FILE_NAME} in that folder or in one above it")

    def find(self, image: str | Path) -> Path | None:
        """Return the path of an image's mask; None if it has none."""
        try:
            place = Path(image).relative_to(self.data_path)
        except ValueError:
            return None
        own = self.folder / place.with_suffix(".png")
        return own if own.is_file() else self._find_for_folder(place.parent)

    def _find_for_folder(self, folder: Path) -> Path | None:
        """Return the mask of all images of a folder: its own, or that of a folder above."""
        if folder not in self._of_folder:
            found = (self.folder / place / FILE_NAME for place in (folder, *folder.parents))
            self._of_folder[folder] = next((path for path in found if path.is_file()), None)
        return self._of_folder[folder]

    def read(self, image: str | Path, size: tuple[int, int]) -> np.ndarray:
        """Return where an image counts.

        Args:
            image: path of the image.
            size: (height, width) of the image.

        Returns:
            (height, width) bool, True where the image counts; read-only.

        Raises:
            DataError: the mask is broken, has several channels, or another size.
        """
        path = self.find(image)
        return np.ones(size, bool) if path is None else _read(path, size)

    def read_resized(self, image: str | Path, size: tuple[int, int]) -> torch.Tensor:
        """Return where an image counts after resizing: where all that a pixel covers counts.

        Args:
            image: path of the image.
            size: (height, width) of the image file.

        Returns:
            (1, height, width) bool.

        Raises:
            DataError: as of `read`.
        """
        mask = self.read(image, size).astype(np.float32)
        resized = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(resized >= FULL)[None]


@lru_cache(maxsize=16)  # one mask serves all frames of a camera
def _read(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask file of a (height, width)."""
    try:
        with open_image(path) as image:
            # by its colours, not by its indices
            values = np.array(image.convert("L") if image.mode == "P" else image)
    except IMAGE_ERRORS as error:
        raise DataError(f"mask {path} cannot be read as a PNG: {error}") from None
    if values.ndim != 2:
        raise DataError(f"mask {path} has {values.shape[-1]} channels; expected one, 0 where the "
                        "image is left out")
    if values.shape != size:
        raise DataError(f"mask {path} has {values.shape[1]}x{values.shape[0]} pixels, its image "
                        f"{size[1]}x{size[0]}; draw it at the size of the image")
    mask = values != 0
    mask.flags.writeable = False
    return mask
