"""Load the target frame, the source frames and the intrinsics that a split line names."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.augment import HUE_JITTER, JITTER, PROBABILITY, draw_image_jitter
from datasets.frame_cache import FrameCache
from datasets.image_files import FILE_ERRORS, IMAGE_ERRORS, pil_loader, resize_pillow
from datasets.images import Resized, from_pillow, read_image, resize, to_tensor
from datasets.masks import Masks
from datasets.odometer import Odometer
from datasets.splits import parse_line
from datasets.stereo import index_and_side, stereo_pose
from runtime.errors import DataError, UsageError

OTHER_EXTENSION = {".jpg": ".png", ".png": ".jpg"}


class MonoDataset(Dataset):
    """Read the frames of a drive: `dataset[i]` for any code, `dataset.load(i)` for fast training.

    `dataset[i]` is the item of Monodepth2: float images at all scales, flipped and jittered in
    training. `load` returns the same frames as uint8; `Augment` flips and jitters whole batches of
    them on the device.

    To add a dataset: inherit, set `K`, implement `get_image_path` (or `get_color`) and, where there
    is ground truth, `check_depth` and `get_depth`; then add the class to `datasets.DATASETS`.
    train.py reads a class that makes items of its own (see `read`) through `dataset[i]`, which is
    slower.

    Args:
        data_path: folder of the data; split lines name folders below it.
        filenames: split lines, `folder index side`.
        height, width: size of the returned images, pixels.
        frame_idxs: frames of one item: 0 (the target), offsets in time, "s" (other stereo view).
        num_scales: number of scales; each scale is half as large as the one before.
        is_train: flip and jitter items; `load` skips ground truth, and resizes faster with small
            rounding differences.
        img_ext: file extension of the images.

    Attributes:
        K: (4, 4) intrinsics in units of the image's width and height. A principal point of 0.5 is
            the image centre, which a horizontal flip leaves in place.
        baseline: metres between the two cameras of a stereo pair; None if unknown.
        cure: advice at the end of the error for a missing image.
        load_depth: whether ground truth is loaded.
        cache: store of frames at training size, see `use_cache`.
        masks: where images count; adds "mask", (1, height, width) bool, to items and samples.
        odometers: by folder, see `use_odometers`.
        loader: reads the RGB Pillow image of a path; a subclass may set its own.
        interp: Pillow's resampling filter.
        resize: for each scale, resizes a Pillow image to the size of that scale.
        to_tensor: converts a Pillow image to a (3, H, W) float32 tensor in [0, 1].
        brightness, contrast, saturation, hue: lowest and highest amount of an item's jitter.
    """

    K: np.ndarray
    baseline: float | None = None
    cache: FrameCache | None = None
    masks: Masks | None = None
    odometers: dict[str, Odometer] | None = None
    cure = "list only frames that are there"

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], num_scales: int, is_train: bool = False,
                 img_ext: str = ".jpg"):
        super().__init__()
        self.data_path, self.filenames, self.img_ext = data_path, filenames, img_ext
        self.height, self.width, self.num_scales = height, width, num_scales
        self.frame_idxs, self.is_train = frame_idxs, is_train
        self.loader, self.to_tensor = pil_loader, to_tensor
        # Faithful: LANCZOS; each scale is made from the one above
        self.interp = Image.Resampling.LANCZOS
        self.resize = {s: partial(resize_pillow, size=(width // 2**s, height // 2**s),
                                  interp=self.interp) for s in range(num_scales)}
        self.brightness = self.contrast = self.saturation = (1 - JITTER, 1 + JITTER)
        self.hue = (-HUE_JITTER, HUE_JITTER)
        self._usual_settings = self._settings()
        self.load_depth = self.check_depth()
        self._intrinsics_by_folder: dict[str, dict] = {}

    def use_cache(self, cache: FrameCache) -> None:
        """Let `load` decode each image file once, and store the frames at training size.

        Raises:
            UsageError: the class reads images in a way of its own; the cache can only notice
                changes of image files.
        """
        if not self.reads_files:
            raise UsageError(f"--cache_dir stores image files, but {type(self).__name__} has a "
                             "get_color of its own; leave --cache_dir out")
        self.cache = cache

    def use_odometers(self) -> None:
        """Add "distances" to items and samples: (F,) metres from frame 0 to the frames in time.

        Raises:
            DataError: the speeds of a folder are missing or absurd.
        """
        folders = dict.fromkeys(parse_line(line)[0] for line in self.filenames)
        self.odometers = {folder: self.get_odometer(folder) for folder in folders}

    @property
    def reads_files(self) -> bool:
        """Whether an image is the file at `get_image_path`, read as usual."""
        return (getattr(self.get_color, "__func__", None) is MonoDataset.get_color
                and self.loader is pil_loader)

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> dict:
        """Return one item for the networks and the objective.

        In training, half of the items are mirrored, and half are jittered, all frames alike.

        Returns:
            ("color", f, s): (3, height / 2^s, width / 2^s) float32 in [0, 1].
            ("color_aug", f, s): the same, jittered.
            ("K", s), ("inv_K", s): (4, 4) float32, in pixels of scale s.
            "stereo_T": (4, 4) float32, if "s" is among the frames.
            "depth_gt": (1, H, W) float32 metres, 0 = unknown, if `load_depth`.

        Raises:
            DataError: a file is missing or broken; names the file and the split line.
        """
        # Faithful: one draw for all frames of an item
        do_flip = self.is_train and bool(torch.rand(()) < PROBABILITY)
        color_aug = draw_image_jitter(self.brightness, self.contrast, self.saturation, self.hue,
                                      PROBABILITY if self.is_train else 0)
        with self._split_line(index) as (folder, frame, side):
            inputs: dict = {}
            for f in self.frame_idxs:
                place = folder, *index_and_side(f, frame, side)
                with self._named_errors(*place, f):
                    inputs["color", f, -1] = self.get_color(*place, do_flip)
            self._check_sizes(folder, frame, side, {f: inputs["color", f, -1].size[::-1]
                                                    for f in self.frame_idxs})
            inputs |= self._scaled_intrinsics(folder, do_flip)  # `get_color` may have set K
            if "s" in self.frame_idxs:
                inputs["stereo_T"] = stereo_pose(side, do_flip)
            inputs |= self._extras(folder, frame, side, inputs["color", 0, -1].size[::-1])
            if do_flip and self.masks:
                inputs["mask"] = inputs["mask"].flip(2)
            self.preprocess(inputs, color_aug)
            if self.load_depth:
                inputs["depth_gt"] = self._read_depth(folder, frame, side, do_flip)
        # images at full resolution differ in size, also where a `preprocess` made tensors of them
        full = [(name, f, -1) for name in ("color", "color_aug") for f in self.frame_idxs]
        return {key: value for key, value in inputs.items() if key not in full}

    def preprocess(self, inputs: dict, color_aug: Callable[[Image.Image], Image.Image]) -> None:
        """Add the tensors of every frame and scale to `inputs`.

        Args:
            inputs: ("color", f, -1), the Pillow image of each frame. ("color", f, s) and
                ("color_aug", f, s), (3, height / 2^s, width / 2^s) float32 in [0, 1], are added;
                scale -1 becomes the tensor of the image file, (3, H, W), not jittered.
            color_aug: jitters a Pillow image.
        """
        for f in self.frame_idxs:
            image = inputs["color", f, -1]
            # code written for Monodepth2 expects tensors here, and deletes them: a jitter of so
            # many pixels would take most of the time of an item
            inputs["color", f, -1] = inputs["color_aug", f, -1] = self.to_tensor(image)
            for s in range(self.num_scales):
                image = self.resize[s](image)
                inputs["color", f, s] = self.to_tensor(image)
                inputs["color_aug", f, s] = self.to_tensor(color_aug(image))

    def load(self, index: int) -> dict:
        """Return one sample for `Augment`: images at full scale only, neither flipped nor jittered.

        Returns:
            ("color", f, 0): (3, height, width) uint8.
            ("K", s), ("inv_K", s), "stereo_T": as in an item; read-only.
            "depth_gt": as in an item, but never in training.

        Raises:
            DataError: a file is missing or broken; names the file and the split line.
        """
        with self._split_line(index) as (folder, frame, side):
            if folder not in self._intrinsics_by_folder:
                self._intrinsics_by_folder[folder] = self._scaled_intrinsics(folder)
            sample = dict(self._intrinsics_by_folder[folder])
            if "s" in self.frame_idxs:
                sample["stereo_T"] = stereo_pose(side)
            frames = {f: self._read_frame(folder, *index_and_side(f, frame, side), f)
                      for f in self.frame_idxs}
            self._check_sizes(folder, frame, side,
                              {f: found.original_size for f, found in frames.items()})
            for f, (image, _) in frames.items():
                sample["color", f, 0] = image
            sample |= self._extras(folder, frame, side, frames[0].original_size)
            if self.load_depth and not self.is_train:
                sample["depth_gt"] = self._read_depth(folder, frame, side)
        return sample

    def read(self, index: int) -> dict:
        """Return what training reads: `load(index)`, or the item of a class with items of its own.

        A class has items of its own if it overrides `preprocess` or `__getitem__`, or if it sets
        `resize`, `to_tensor` or the amounts of jitter: `load` knows none of these.
        """
        own = type(self)
        is_usual = (own.__getitem__ is MonoDataset.__getitem__
                    and own.preprocess is MonoDataset.preprocess
                    and self._settings() == self._usual_settings)
        return self.load(index) if is_usual else self[index]

    def _settings(self) -> tuple:
        """Return what `load` and `Augment` take to be as the constructor set it."""
        return (dict(self.resize), self.to_tensor, self.brightness, self.contrast, self.saturation,
                self.hue)

    @contextmanager
    def _split_line(self, index: int) -> Iterator[tuple[str, int, str | None]]:
        """Parse a split line, and name that line in the errors of what is read for it."""
        line = self.filenames[index]
        parsed = parse_line(line)
        try:
            yield parsed
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
                    found.add(self.get_image_path(folder, *index_and_side(f, frame, side)))
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
        with self._named_errors(folder, frame, side, f):
            if not self.reads_files:
                return self._resized(from_pillow(self.get_color(folder, frame, side, False)))
            path = self.get_image_path(folder, frame, side)
            return self.cache.read(path, self._decode) if self.cache else self._decode(path)

    @contextmanager
    def _named_errors(self, folder: str, frame: int, side: str | None,
                      f: int | str) -> Iterator[None]:
        """Raise a DataError that names the image of frame `f` if reading that image fails."""
        broken = IMAGE_ERRORS if self.reads_files else FILE_ERRORS
        try:
            yield
        except FileNotFoundError as error:
            path = Path(error.filename or self._image_name(folder, frame, side))
            raise DataError(f"{path} is missing; {self._missing_cure(path, frame, f)}") from None
        except broken as error:
            raise DataError(f"{self._image_name(folder, frame, side)} cannot be read as an image: "
                            f"{error}; extract or convert it again") from None

    def _image_name(self, folder: str, frame: int, side: str | None) -> str:
        """Return the path of a frame's image for a message; images need not be files."""
        try:
            return str(self.get_image_path(folder, frame, side))
        except NotImplementedError:
            return f"{folder} {frame}"

    def _read_depth(self, folder: str, frame: int, side: str | None,
                    do_flip: bool = False) -> torch.Tensor:
        """Return the (1, H, W) float32 ground truth of a frame, metres, 0 = unknown."""
        depth = self.get_depth(folder, frame, side, do_flip)
        return torch.from_numpy(np.ascontiguousarray(depth, np.float32))[None]

    def _extras(self, folder: str, frame: int, side: str | None, size: tuple[int, int]) -> dict:
        """Return what `masks` and `odometers` add to a sample whose image has a (height, width)."""
        extras = {}
        if self.masks:
            path = self.get_image_path(folder, frame, side)
            extras["mask"] = self.masks.read_resized(path, size)
        if self.odometers:
            times = [f for f in self.frame_idxs[1:] if f != "s"]
            extras["distances"] = self.odometers[folder].distances(frame, times)
        return extras

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
                     sizes: dict[int | str, tuple[int, int]]) -> None:
        """Raise a DataError if an image has another size than its intrinsics, or than frame 0."""
        expected, reference = self.get_image_size(folder), "its intrinsics are for"
        if expected is None and not self.reads_files:
            return  # a `get_color` of its own may crop as it likes
        if expected is None:
            expected, reference = sizes[0], "frame 0 of its sample has"
        for f, size in sizes.items():
            if size != expected:
                path = self._image_name(folder, *index_and_side(f, frame, side))
                raise DataError(f"{path} has {size[1]}x{size[0]} pixels, {reference} "
                                f"{expected[1]}x{expected[0]}; extract both again, or list only "
                                "frames of one size together")

    def _decode(self, path: str | Path) -> Resized:
        return self._resized(read_image(path))

    def _resized(self, image: torch.Tensor) -> Resized:
        resized = resize(image, self.height, self.width, exact=not self.is_train)
        return Resized(resized, tuple(image.shape[1:]))

    def _scaled_intrinsics(self, folder: str, do_flip: bool = False) -> dict:
        """Return ("K", s) and ("inv_K", s) of a folder's camera, (4, 4) in pixels of scale s."""
        normalised = self.get_intrinsics(folder).astype(np.float32)
        if do_flip:
            normalised[0, 2] = 1 - normalised[0, 2]
        matrices = {}
        for s in range(self.num_scales):
            # Faithful: one normalised K for every drive, times the size of each scale
            K = normalised.copy()
            K[0] *= self.width // 2**s
            K[1] *= self.height // 2**s
            matrices["K", s] = torch.from_numpy(K)
            matrices["inv_K", s] = torch.from_numpy(np.linalg.pinv(K))
        return matrices

    def get_intrinsics(self, folder: str) -> np.ndarray:
        """Return the (4, 4) intrinsics of a folder's camera, in units of image width and height."""
        return self.K

    def get_odometer(self, folder: str) -> Odometer:
        """Return the metres travelled at each frame of a folder, for --velocity_weight."""
        raise UsageError(f"{type(self).__name__} has no speeds; leave --velocity_weight out, or "
                         "override get_odometer")

    def get_image_size(self, folder: str) -> tuple[int, int] | None:
        """Return the (height, width) that a folder's images must have; None: any single size."""
        return None

    def get_color(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> Image.Image:
        """Return an RGB frame, mirrored if `do_flip`; `load` asks for frames as they are."""
        color = self.loader(self.get_image_path(folder, frame_index, side))
        return color.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if do_flip else color

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image."""
        raise NotImplementedError

    def check_depth(self) -> bool:
        """Return whether the dataset has ground truth depth; called once, by the constructor."""
        return False

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return the (H, W) depth of a frame, metres, 0 = unknown, mirrored if `do_flip`."""
        raise NotImplementedError
