"""The base of all datasets: a split line becomes a target frame, source frames, intrinsics."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.splits import parse_line
from utils import DataError

NOMINAL_BASELINE = 0.1  # of a stereo pair, in the network's unit of length
OTHER_SIDE = {"l": "r", "r": "l", "2": "3", "3": "2"}
LEFT_SIDES = ("l", "2")


class MonoDataset(Dataset):
    """Frames of a drive, as uint8 images.

    To add a dataset: inherit, set `K`, write `get_image_path` (or `get_color`), and `check_depth`
    and `get_depth` where there is ground truth; then name the class in `datasets.DATASETS`.

    Args:
        data_path: folder that the split lines' folders lie in.
        filenames: split lines, `folder index side`.
        height: of the images returned.
        width: the same.
        frame_idxs: frames of an item: 0, offsets in time, "s" for the other stereo view.
        num_scales: images in the pyramid of frame 0, each half the size of the one before.
        is_train: no ground truth is loaded for training.
        img_ext: extension of the image files.
        pyramids: make the pyramid for every frame (--v1_multiscale).
        load_depth: load ground truth where there is some.

    Attributes:
        K: (4, 4) intrinsics, in units of the image's width and height; a principal point of 0.5 is
            the middle of the image and stays where it is when the image is mirrored.
    """

    K: np.ndarray

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], num_scales: int, is_train: bool = False,
                 img_ext: str = ".jpg", pyramids: bool = False, load_depth: bool = True):
        super().__init__()
        self.data_path, self.filenames, self.img_ext = data_path, filenames, img_ext
        self.height, self.width, self.num_scales = height, width, num_scales
        self.frame_idxs, self.is_train, self.pyramids = frame_idxs, is_train, pyramids
        self.load_depth = load_depth and not is_train and self.check_depth()

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> dict:
        """Return one item.

        Returns:
            ("color", f, s): (3, height / 2^s, width / 2^s) uint8; s > 0 for frame 0 only.
            ("K", s), ("inv_K", s): (4, 4) float32, in pixels of scale s.
            "stereo_T": (4, 4) float32, if "s" is among the frames.
            "depth_gt": (1, H, W) float32 metres, 0 = none, if `load_depth`.

        Raises:
            DataError: a file is missing or broken; names it and the split line.
        """
        line = self.filenames[index]
        folder, frame, side = parse_line(line)
        try:
            return self._load(folder, frame, side)
        except DataError as error:
            where = getattr(line, "where", "") or f"split line {line!r}"
            raise DataError(f"{error} ({where})") from None

    def _load(self, folder: str, frame: int, side: str | None) -> dict:
        if "s" in self.frame_idxs and side not in OTHER_SIDE:
            raise DataError("the side is missing; expected `folder frame side` with side l or r")
        item = self._intrinsics()
        for f in self.frame_idxs:
            at, view = (frame, OTHER_SIDE[side]) if f == "s" else (frame + f, side)
            image = self._read(folder, at, view, f)
            levels = self.num_scales if f == 0 or self.pyramids else 1
            for s, level in enumerate(pyramid(image, self.height, self.width, levels)):
                item["color", f, s] = level
        if "s" in self.frame_idxs:
            item["stereo_T"] = stereo_pose(side)
        if self.load_depth:
            depth = self.get_depth(folder, frame, side, False)
            item["depth_gt"] = torch.from_numpy(depth.astype(np.float32))[None]
        return item

    def _read(self, folder: str, frame: int, side: str | None, f: int | str) -> Image.Image:
        try:
            return self.get_color(folder, frame, side, False)
        except FileNotFoundError as error:
            other = ".png" if self.img_ext == ".jpg" else ".jpg"
            path = Path(error.filename or self.get_image_path(folder, frame, side))
            cure = "extract the drive again, or list only frames that are there"
            if f not in (0, "s"):
                cure = f"frame {frame - f} has no neighbour {f:+d}; list only frames that have it"
            if path.with_suffix(other).exists():
                cure = "pass --png" if other == ".png" else "leave out --png"
            raise DataError(f"{path} is missing; {cure}") from None
        except (OSError, SyntaxError, ValueError) as error:
            path = self.get_image_path(folder, frame, side)
            raise DataError(f"{path} cannot be read as an image: {error}; extract or convert it "
                            "again") from None

    def _intrinsics(self) -> dict[tuple[str, int], torch.Tensor]:
        matrices = {}
        for s in range(self.num_scales):
            # Faithful: one normalised K for every drive, times the size of each scale
            K = self.K.astype(np.float32)
            K[0] *= self.width // 2**s
            K[1] *= self.height // 2**s
            matrices["K", s] = torch.from_numpy(K)
            matrices["inv_K", s] = torch.from_numpy(np.linalg.pinv(K))
        return matrices

    def get_color(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> Image.Image:
        """Return a frame in RGB, mirrored if `do_flip` (the loader never asks: `Augment` flips)."""
        with Image.open(self.get_image_path(folder, frame_index, side)) as image:
            color = image.convert("RGB")
        return color.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if do_flip else color

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image."""
        raise NotImplementedError

    def check_depth(self) -> bool:
        """Return whether this dataset has ground truth (asked once, before loading)."""
        return False

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return a frame's (H, W) ground truth in metres, 0 where there is none."""
        raise NotImplementedError


def pyramid(image: Image.Image, height: int, width: int, levels: int) -> list[torch.Tensor]:
    """Resize an image to height x width and its halves: (3, height / 2^s, width / 2^s) uint8."""
    tensors = []
    for s in range(levels):
        # Faithful: LANCZOS, each scale from the one above
        image = image.resize((width // 2**s, height // 2**s), Image.Resampling.LANCZOS)
        tensors.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    return tensors


def stereo_pose(side: str) -> torch.Tensor:
    """Return the (4, 4) pose from the camera on `side` to the other of the pair."""
    # Faithful: a nominal baseline of 0.1; from left to right, points move to the left
    T = torch.eye(4)
    T[0, 3] = -NOMINAL_BASELINE if side in LEFT_SIDES else NOMINAL_BASELINE
    return T
