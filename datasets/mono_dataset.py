"""The base of all datasets: a split line becomes a target frame, source frames, intrinsics."""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from datasets.frame_cache import FrameCache
from datasets.images import (
    IMAGE_ERRORS,
    Resized,
    from_pillow,
    open_image,
    read_image,
    resize,
)
from datasets.splits import check_inside, parse_line
from runtime.errors import DataError, UsageError

NOMINAL_BASELINE = 0.1  # of a stereo pair, in the network's unit of length
OTHER_SIDE = {"l": "r", "r": "l", "2": "3", "3": "2"}
LEFT_SIDES = ("l", "2")
NO_SIDE = ("the side is missing; expected `folder frame side` with side l or r; if frames have "
           "none, pass --dataset folder")
OTHER_EXTENSION = {".jpg": ".png", ".png": ".jpg"}


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
        num_scales: sizes for which there are intrinsics, each half of the one before.
        is_train: no ground truth is loaded for training, and frames are resized faster, not to
            the last bit.
        img_ext: extension of the image files.
        load_depth: load ground truth where there is some.
        cache: keeps frames at training size, so that each file is read once.

    Raises:
        UsageError: there is a cache, but `get_color` is overridden: nothing would tell when its
            images change.

    Attributes:
        K: (4, 4) intrinsics, in units of the image's width and height; a principal point of 0.5 is
            the middle of the image and stays where it is when the image is mirrored.
        baseline: metres between the two cameras of its stereo pairs, None where it isn't known.
        cure: what to do about a missing image.
    """

    K: np.ndarray
    baseline: float | None = None
    cure = "list only frames that are there"

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], num_scales: int, is_train: bool = False,
                 img_ext: str = ".jpg", load_depth: bool = True, cache: FrameCache | None = None):
        super().__init__()
        self.data_path, self.filenames, self.img_ext = data_path, filenames, img_ext
        self.height, self.width, self.num_scales = height, width, num_scales
        self.frame_idxs, self.is_train = frame_idxs, is_train
        self.load_depth = load_depth and not is_train and self.check_depth()
        self.cache = cache
        self._matrices: dict[str, dict] = {}
        self.reads_files = type(self).get_color is MonoDataset.get_color
        if cache is not None and not self.reads_files:
            raise UsageError(f"--cache_dir keeps image files as they are, and {type(self).__name__}"
                             " has a get_color of its own; leave --cache_dir out")

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> dict:
        """Return one item.

        Returns:
            ("color", f, 0): (3, height, width) uint8; `Augment` makes the smaller ones.
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

    def paths(self) -> set[str]:
        """Return the paths of all image files that the items are made of."""
        found = set()
        for line in self.filenames:
            folder, frame, side = parse_line(line)
            for f in self.frame_idxs:
                with suppress(DataError):  # which loading the item will raise, with its line
                    found.add(self.get_image_path(folder, *_frame_of(f, frame, side)))
        return found

    def found_extension(self) -> str:
        """Return `img_ext`, or the other of .jpg and .png if the first image is there with that."""
        other = OTHER_EXTENSION.get(self.img_ext)
        if other and self.reads_files:
            with suppress(DataError):  # which loading the item will raise, with its line
                path = Path(self.get_image_path(*parse_line(self.filenames[0])))
                if not path.exists() and path.with_suffix(other).exists():
                    return other
        return self.img_ext

    def _load(self, folder: str, frame: int, side: str | None) -> dict:
        item = dict(self._intrinsics(folder))
        frames = {f: self._read(folder, *_frame_of(f, frame, side), f) for f in self.frame_idxs}
        expected = self.get_image_size(folder)
        other = "its intrinsics are for" if expected else "frame 0 of its sample"
        height, width = expected or frames[0].original_size
        for f, (image, (h, w)) in frames.items():
            if (h, w) != (height, width):
                raise DataError(f"{self.get_image_path(folder, *_frame_of(f, frame, side))} has "
                                f"{w}x{h} pixels, {other} {width}x{height}; extract both again, or "
                                "list only frames of one size together")
            item["color", f, 0] = image
        if "s" in self.frame_idxs:
            item["stereo_T"] = stereo_pose(side)
        if self.load_depth:
            depth = self.get_depth(folder, frame, side, False)
            item["depth_gt"] = torch.from_numpy(depth.astype(np.float32))[None]
        return item

    def _read(self, folder: str, frame: int, side: str | None, f: int | str) -> Resized:
        """Return a frame; `f` is what it is to the target."""
        try:
            if not self.reads_files:
                return self._resize(from_pillow(self.get_color(folder, frame, side, False)))
            path = self.get_image_path(folder, frame, side)
            check_inside(path, self.data_path)
            return self.cache.read(path, self._decode) if self.cache else self._decode(path)
        except FileNotFoundError as error:
            other = OTHER_EXTENSION.get(self.img_ext, ".jpg")
            path = Path(error.filename or self.get_image_path(folder, frame, side))
            cure = self.cure
            if f == "s":
                cure = f"it is the other view of a stereo pair; {cure}"
            elif f != 0:
                cure = f"frame {frame - f} has no neighbour {f:+d}; list only frames that have it"
            if path.with_suffix(other).exists():
                flag = "pass --png" if other == ".png" else "leave out --png"
                cure = f"{flag} if all images are {other}; if only some are, convert them"
            raise DataError(f"{path} is missing; {cure}") from None
        except IMAGE_ERRORS as error:
            path = self.get_image_path(folder, frame, side)
            raise DataError(f"{path} cannot be read as an image: {error}; extract or convert it "
                            "again") from None

    def _decode(self, path: str | Path) -> Resized:
        return self._resize(read_image(path))

    def _resize(self, image: torch.Tensor) -> Resized:
        resized = resize(image, self.height, self.width, exact=not self.is_train)
        return Resized(resized, tuple(image.shape[1:]))

    def _intrinsics(self, folder: str) -> dict[tuple[str, int], torch.Tensor]:
        if folder in self._matrices:
            return self._matrices[folder]
        matrices = {}
        for s in range(self.num_scales):
            # Faithful: one normalised K for every drive, times the size of each scale
            K = self.get_intrinsics(folder).astype(np.float32)
            K[0] *= self.width // 2**s
            K[1] *= self.height // 2**s
            matrices["K", s] = torch.from_numpy(K)
            matrices["inv_K", s] = torch.from_numpy(np.linalg.pinv(K))
        self._matrices[folder] = matrices
        return matrices

    def get_intrinsics(self, folder: str) -> np.ndarray:
        """Return `K`, or what a subclass knows of the camera of a folder's images."""
        return self.K

    def get_image_size(self, folder: str) -> tuple[int, int] | None:
        """Return the height and width that a folder's images must have; None: one and the same."""
        return None

    def get_color(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> Image.Image:
        """Return a frame in RGB, mirrored if `do_flip` (the loader never asks: `Augment` flips)."""
        with open_image(self.get_image_path(folder, frame_index, side)) as image:
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


def _frame_of(f: int | str, frame: int, side: str | None) -> tuple[int, str | None]:
    """Return the index and the side of frame `f` of an item."""
    if f != "s":
        return frame + f, side
    if side not in OTHER_SIDE:
        raise DataError(NO_SIDE)
    return frame, OTHER_SIDE[side]


def collate(items: Sequence[dict]) -> dict:
    """Stack items into a batch: the matrices as numpy arrays, all else as PyTorch does.

    Between processes a tensor takes a file descriptor and shared memory, which pays for images; the
    few numbers of a matrix go faster by value.
    """
    return {key: np.stack([item[key].numpy() for item in items])
            if key == "stereo_T" or key[0] in ("K", "inv_K") else
            default_collate([item[key] for item in items]) for key in items[0]}


def stereo_pose(side: str) -> torch.Tensor:
    """Return the (4, 4) pose from the camera on `side` to the other of the pair."""
    # Faithful: a nominal baseline of 0.1; from left to right, points move to the left
    T = torch.eye(4)
    T[0, 3] = -NOMINAL_BASELINE if side in LEFT_SIDES else NOMINAL_BASELINE
    return T
