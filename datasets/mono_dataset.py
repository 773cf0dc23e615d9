"""Load the target frame, the source frames and the intrinsics that a split line names."""
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
from datasets.splits import parse_line
from runtime.errors import DataError, UsageError

NOMINAL_BASELINE = 0.1  # baseline of every stereo pair, in the network's unit of length
OTHER_SIDE = {"l": "r", "r": "l", "2": "3", "3": "2"}
LEFT_SIDES = ("l", "2")
NO_SIDE = ("the side is missing; expected `folder frame side` with side l or r; for frames without "
           "sides pass --dataset folder")
OTHER_EXTENSION = {".jpg": ".png", ".png": ".jpg"}


class MonoDataset(Dataset):
    """Read the frames of a drive as uint8 images.

    To add a dataset: inherit, set `K`, implement `get_image_path` (or `get_color`) and, where there
    is ground truth, `check_depth` and `get_depth`; then add the class to `datasets.DATASETS`.

    Args:
        data_path: folder of the data; split lines name folders below it.
        filenames: split lines, `folder index side`.
        height: height of the returned images, pixels.
        width: width of the returned images, pixels.
        frame_idxs: frames of one item: 0 (the target), offsets in time, "s" (other stereo view).
        num_scales: number of scales with intrinsics; each scale is half as large as the one before.
        is_train: skip ground truth, and resize faster with small rounding differences.
        img_ext: file extension of the images.
        load_depth: load ground truth where it exists (never for training).
        cache: store of frames at training size, so that each file is decoded once.

    Raises:
        UsageError: `cache` is given, but the class overrides `get_color`; the cache can only notice
            changes of image files.

    Attributes:
        K: (4, 4) intrinsics in units of the image's width and height. A principal point of 0.5 is
            the image centre, which a horizontal flip leaves in place.
        baseline: metres between the two cameras of a stereo pair; None if unknown.
        cure: advice at the end of the error for a missing image.
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
        self._intrinsics_by_folder: dict[str, dict] = {}
        self.reads_files = type(self).get_color is MonoDataset.get_color
        if cache is not None and not self.reads_files:
            raise UsageError(f"--cache_dir stores image files, but {type(self).__name__} has a "
                             "get_color of its own; leave --cache_dir out")

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> dict:
        """Return one item.

        Returns:
            ("color", f, 0): (3, height, width) uint8; `Augment` makes the smaller scales.
            ("K", s), ("inv_K", s): (4, 4) float32, in pixels of scale s.
            "stereo_T": (4, 4) float32, if "s" is among the frames.
            "depth_gt": (1, H, W) float32 metres, 0 = unknown, if `load_depth`.

        Raises:
            DataError: a file is missing or broken; names the file and the split line.
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
                with suppress(DataError):  # loading the item raises it again, with the split line
                    found.add(self.get_image_path(folder, *_index_and_side(f, frame, side)))
        return found

    def found_extension(self) -> str:
        """Return `img_ext`, or .png for .jpg (and vice versa) if the first image has only that."""
        other = OTHER_EXTENSION.get(self.img_ext)
        if other and self.reads_files:
            with suppress(DataError):  # loading the item raises it again, with the split line
                path = Path(self.get_image_path(*parse_line(self.filenames[0])))
                if not path.exists() and path.with_suffix(other).exists():
                    return other
        return self.img_ext

    def _load(self, folder: str, frame: int, side: str | None) -> dict:
        """Return the item of a parsed split line; the keys are those of `__getitem__`."""
        item = dict(self._scaled_intrinsics(folder))
        frames = {f: self._read_frame(folder, *_index_and_side(f, frame, side), f)
                  for f in self.frame_idxs}
        self._check_sizes(folder, frame, side, frames)
        for f, (image, _) in frames.items():
            item["color", f, 0] = image
        if "s" in self.frame_idxs:
            item["stereo_T"] = stereo_pose(side)
        if self.load_depth:
            depth = self.get_depth(folder, frame, side, False)
            item["depth_gt"] = torch.from_numpy(depth.astype(np.float32))[None]
        return item

    def _read_frame(self, folder: str, frame: int, side: str | None, f: int | str) -> Resized:
        """Decode and resize one frame.

        Args:
            folder: folder of the sequence.
            frame: index of the frame.
            side: side of the frame.
            f: place of the frame in its sample (0, an offset in time, "s"), for the error message.

        Raises:
            DataError: the image is missing or cannot be decoded.
        """
        try:
            if not self.reads_files:
                return self._resize(from_pillow(self.get_color(folder, frame, side, False)))
            path = self.get_image_path(folder, frame, side)
            return self.cache.read(path, self._decode) if self.cache else self._decode(path)
        except FileNotFoundError as error:
            path = Path(error.filename or self.get_image_path(folder, frame, side))
            raise DataError(f"{path} is missing; {self._missing_cure(path, frame, f)}") from None
        except IMAGE_ERRORS as error:
            path = self.get_image_path(folder, frame, side)
            raise DataError(f"{path} cannot be read as an image: {error}; extract or convert it "
                            "again") from None

    def _missing_cure(self, path: Path, frame: int, f: int | str) -> str:
        """Return what to do about the missing image of frame `f` of a sample."""
        other = OTHER_EXTENSION.get(self.img_ext, ".jpg")
        if path.with_suffix(other).exists():
            flag = "pass --png" if other == ".png" else "leave out --png"
            return f"{flag} if all images are {other}; if only some are, convert them"
        if f == "s":
            return f"it is the other view of a stereo pair; {self.cure}"
        if f != 0:
            return f"frame {frame - f} has no neighbour {f:+d}; list only frames that have it"
        return self.cure

    def _check_sizes(self, folder: str, frame: int, side: str | None,
                     frames: dict[int | str, Resized]) -> None:
        """Raise a DataError if an image has another size than its intrinsics, or than frame 0."""
        expected, reference = self.get_image_size(folder), "its intrinsics are for"
        if expected is None:
            expected, reference = frames[0].original_size, "frame 0 of its sample has"
        for f, (_, size) in frames.items():
            if size != expected:
                path = self.get_image_path(folder, *_index_and_side(f, frame, side))
                raise DataError(f"{path} has {size[1]}x{size[0]} pixels, {reference} "
                                f"{expected[1]}x{expected[0]}; extract both again, or list only "
                                "frames of one size together")

    def _decode(self, path: str | Path) -> Resized:
        return self._resize(read_image(path))

    def _resize(self, image: torch.Tensor) -> Resized:
        resized = resize(image, self.height, self.width, exact=not self.is_train)
        return Resized(resized, tuple(image.shape[1:]))

    def _scaled_intrinsics(self, folder: str) -> dict[tuple[str, int], torch.Tensor]:
        """Return ("K", s) and ("inv_K", s) of a folder's camera, (4, 4) in pixels of scale s."""
        if folder in self._intrinsics_by_folder:
            return self._intrinsics_by_folder[folder]
        matrices = {}
        for s in range(self.num_scales):
            # Faithful: one normalised K for every drive, times the size of each scale
            K = self.get_intrinsics(folder).astype(np.float32)
            K[0] *= self.width // 2**s
            K[1] *= self.height // 2**s
            matrices["K", s] = torch.from_numpy(K)
            matrices["inv_K", s] = torch.from_numpy(np.linalg.pinv(K))
        self._intrinsics_by_folder[folder] = matrices
        return matrices

    def get_intrinsics(self, folder: str) -> np.ndarray:
        """Return the (4, 4) intrinsics of a folder's camera, in units of image width and height."""
        return self.K

    def get_image_size(self, folder: str) -> tuple[int, int] | None:
        """Return the (height, width) that a folder's images must have; None: any single size."""
        return None

    def get_color(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> Image.Image:
        """Return an RGB frame, mirrored if `do_flip` (always False here: `Augment` flips)."""
        with open_image(self.get_image_path(folder, frame_index, side)) as image:
            color = image.convert("RGB")
        return color.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if do_flip else color

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image."""
        raise NotImplementedError

    def check_depth(self) -> bool:
        """Return whether the dataset has ground truth depth; called once, by the constructor."""
        return False

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return the (H, W) ground truth depth of a frame, in metres; 0 = unknown."""
        raise NotImplementedError


def _index_and_side(f: int | str, frame: int, side: str | None) -> tuple[int, str | None]:
    """Return the index and the side of frame `f` (0, an offset, "s") of a split line."""
    if f != "s":
        return frame + f, side
    if side not in OTHER_SIDE:
        raise DataError(NO_SIDE)
    return frame, OTHER_SIDE[side]


def collate(items: Sequence[dict]) -> dict:
    """Stack items into a batch: matrices as numpy arrays, everything else as PyTorch does.

    Passing a tensor between processes costs a file descriptor and shared memory. That pays for
    images; the few numbers of a matrix are faster to copy.
    """
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        is_matrix = key == "stereo_T" or (isinstance(key, tuple) and key[0] in ("K", "inv_K"))
        batch[key] = (np.stack([matrix.numpy() for matrix in values]) if is_matrix
                      else default_collate(values))
    return batch


def stereo_pose(side: str) -> torch.Tensor:
    """Return the (4, 4) pose from the camera on `side` to the other camera of the stereo pair."""
    # Faithful: a nominal baseline of 0.1; from left to right, points move to the left
    T = torch.eye(4)
    T[0, 3] = -NOMINAL_BASELINE if side in LEFT_SIDES else NOMINAL_BASELINE
    return T
