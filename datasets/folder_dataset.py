"""Footage of any camera: a folder for each sequence, with its own intrinsics."""
from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.intrinsics import Intrinsics, find_intrinsics, read_intrinsics
from datasets.mono_dataset import MonoDataset
from datasets.splits import parse_line
from runtime.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SIDE_FOLDERS = {None: "", "l": "left", "2": "left", "r": "right", "3": "right"}


class FolderDataset(MonoDataset):
    """<data_path>/<sequence>/<frame>.<any extension>; stereo pairs in its left/ and right/.

    A frame's number is the one that its file's name ends with: both frame_000012.png and 12.jpg
    are frame 12. The camera stands in an `intrinsics.json` in the sequence's folder, or in one
    above it; all stereo pairs of a run have one baseline.

    Raises:
        DataError: "s" is among the frames and a sequence has no baseline, or another one.
    """

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], *args, **kwargs):
        super().__init__(data_path, filenames, height, width, frame_idxs, *args, **kwargs)
        self._cameras: dict[str, Intrinsics] = {}
        self._images: dict[Path, dict[int, str]] = {}  # by folder and number
        if "s" in frame_idxs:
            self._check_baselines()

    def _check_baselines(self) -> None:
        for folder in {parse_line(line)[0] for line in self.filenames}:
            found, wanted = self.camera(folder).baseline, self.baseline
            path = find_intrinsics(Path(self.data_path, folder), self.data_path)
            if found is None:
                raise DataError(f"{path} has no baseline, which --use_stereo needs; add "
                                '"baseline": the metres between the two cameras')
            if found != wanted:
                raise DataError(f"{path} has a baseline of {found:g} m, the first sequence one of "
                                f"{wanted:g} m; depth would have no unit: train them apart")

    @cached_property
    def baseline(self) -> float | None:
        """Metres between the cameras of the stereo pairs, if the first sequence has some."""
        return self.camera(parse_line(self.filenames[0])[0]).baseline

    def camera(self, folder: str) -> Intrinsics:
        """Return the camera of a sequence.

        Raises:
            DataError: there is no intrinsics file, or it is broken.
        """
        if folder not in self._cameras:
            path = find_intrinsics(Path(self.data_path, folder), self.data_path)
            self._cameras[folder] = read_intrinsics(path)
        return self._cameras[folder]

    def get_intrinsics(self, folder: str) -> np.ndarray:
        """Return the (4, 4) intrinsics in units of the image's width and height.

        Like KITTI's published ones they count from the image's edge, half a pixel from where
        `project` counts; at the network's size that is less than a calibration is good for.
        """
        return self.camera(folder).normalised

    def get_image_size(self, folder: str) -> tuple[int, int]:
        """Return the height and width that the intrinsics are for."""
        camera = self.camera(folder)
        return camera.height, camera.width

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image, or one that is missing."""
        place = Path(self.data_path, folder, SIDE_FOLDERS[side])
        if place not in self._images:
            self._images[place] = _numbered_images(place)
        return self._images[place].get(frame_index) or str(place / f"{frame_index:010d}.jpg")


def _numbered_images(folder: Path) -> dict[int, str]:
    """Return the images of a folder, by their numbers; {} if there is no such folder.

    Raises:
        DataError: two have the same number.
    """
    found: dict[int, str] = {}
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else ()
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
    for path in paths:
        number = re.search(r"[0-9]+\Z", path.stem)
        if path.suffix.lower() not in EXTENSIONS or number is None:
            continue
        if int(number[0]) in found:
            raise DataError(f"{path} and {found[int(number[0])]} are both frame {int(number[0])} "
                            "of their sequence; remove one")
        found[int(number[0])] = str(path)
    return found
