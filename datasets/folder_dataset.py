"""Read footage of any camera: one folder per sequence, with the intrinsics of its camera."""
from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.image_files import EXTENSIONS, list_files
from datasets.intrinsics import Intrinsics, find_intrinsics, read_intrinsics
from datasets.mono_dataset import MonoDataset
from datasets.odometer import Odometer, read_speeds
from datasets.splits import parse_line
from runtime.errors import DataError

SIDE_FOLDERS = {None: "", "l": "left", "2": "left", "r": "right", "3": "right"}


class FolderDataset(MonoDataset):
    """Read <data_path>/<sequence>/<frame>.<any extension>; stereo pairs lie in left/ and right/.

    The number at the end of a file's name is the frame's index: frame_000012.png and 12.jpg are
    both frame 12. The intrinsics are read from `intrinsics.json` in the sequence's folder or the
    nearest folder above it. All stereo pairs of a run must have the same baseline.

    Raises:
        DataError: "s" is among the frames, and a sequence has no baseline or a different one.
    """

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], *args, **kwargs):
        super().__init__(data_path, filenames, height, width, frame_idxs, *args, **kwargs)
        self._intrinsics: dict[str, Intrinsics] = {}    # by sequence
        self._images: dict[Path, dict[int, str]] = {}   # by folder and frame index
        if "s" in frame_idxs:
            self._check_baselines()

    def _check_baselines(self) -> None:
        """Raise a DataError if a sequence has no baseline or a different one."""
        for folder in {parse_line(line)[0] for line in self.filenames}:
            found, wanted = self.sequence_intrinsics(folder).baseline, self.baseline
            path = find_intrinsics(Path(self.data_path, folder), self.data_path)
            if found is None:
                raise DataError(f"{path} has no baseline, which --use_stereo needs; add "
                                '"baseline": the metres between the two cameras')
            if found != wanted:
                raise DataError(f"{path} has a baseline of {found:g} m, the first sequence one of "
                                f"{wanted:g} m; depth would have no unit: train on them separately")

    @cached_property
    def baseline(self) -> float | None:
        """Metres between the cameras of a stereo pair; None if the first sequence has no pairs."""
        return self.sequence_intrinsics(parse_line(self.filenames[0])[0]).baseline

    def sequence_intrinsics(self, folder: str) -> Intrinsics:
        """Return the intrinsics of a sequence's camera, in pixels of its images.

        Raises:
            DataError: the intrinsics file is missing or broken.
        """
        if folder not in self._intrinsics:
            path = find_intrinsics(Path(self.data_path, folder), self.data_path)
            self._intrinsics[folder] = read_intrinsics(path)
        return self._intrinsics[folder]

    def get_intrinsics(self, folder: str) -> np.ndarray:
        """Return the (4, 4) intrinsics in units of the image's width and height.

        As in KITTI's published K, coordinates start at the image's edge; `Project3D` counts from
        the centre of the first pixel. This half pixel of the network's input is below the error of
        a calibration.
        """
        return self.sequence_intrinsics(folder).normalised

    def get_odometer(self, folder: str) -> Odometer:
        """Return the metres travelled at each frame, from speeds.txt or track.gpx."""
        return read_speeds(Path(self.data_path, folder))

    def get_image_size(self, folder: str) -> tuple[int, int]:
        """Return the (height, width) of the images that the intrinsics describe."""
        intrinsics = self.sequence_intrinsics(folder)
        return intrinsics.height, intrinsics.width

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image; for a missing frame, its path as a .jpg."""
        place = Path(self.data_path, folder, SIDE_FOLDERS[side])
        if place not in self._images:
            self._images[place] = _numbered_images(place)
        return self._images[place].get(frame_index) or str(place / f"{frame_index:010d}.jpg")


def _numbered_images(folder: Path) -> dict[int, str]:
    """Return the images of a folder by frame index; empty if the folder is missing.

    Raises:
        DataError: two images have the same number.
    """
    found: dict[int, str] = {}
    for path in list_files(folder) if folder.is_dir() else ():
        number = re.search(r"[0-9]+\Z", path.stem)
        if path.suffix.lower() not in EXTENSIONS or number is None:
            continue
        if int(number[0]) in found:
            raise DataError(f"{path} and {found[int(number[0])]} are both frame {int(number[0])} "
                            "of their sequence; remove one of them")
        found[int(number[0])] = str(path)
    return found
