"""Answer the requests of the page: pictures, a surface, files and videos of uploaded files."""
from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.footage import Footage, Still, read_still
from datasets.image_files import resize_array
from datasets.intrinsics import Intrinsics, from_numbers
from prediction.glb import surface_glb
from prediction.images import Frame, predict_images
from prediction.predict import write_batches
from prediction.predictor import METRES, RELATIVE, Predictor
from prediction.write import FrameWriter, OutputOptions
from runtime.errors import DataError
from runtime.files import write_atomically

MAX_SECONDS = 60          # of a video
SHOWN_PIXELS = 1_000_000  # of the pictures on the page; files have all pixels
SURFACE_PIXELS = 80_000   # of the depth map in the 3-D view
BATCH_SIZE = 8
GUESSED_VIEW = 60.0       # degrees, horizontally, of a camera that is not the one of training


class Colours(NamedTuple):
    """Choose how disparity is painted.

    Attributes:
        colormap: one of OpenCV's.
        near: depth of the last colour, in the unit of depth; None: from the image.
        far: depth of the first colour, in the unit of depth; None: from the image.
    """

    colormap: str = "magma"
    near: float | None = None
    far: float | None = None


class Pictures(NamedTuple):
    """Hold what the page shows of an image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        disp: (H, W, 3) uint8 RGB, the painted disparity.
        inverse_depth: (h, w) float32 at the size of the network, in 1 / the unit of depth.
        words: size of the image, and its range of depth with the unit.
    """

    image: np.ndarray
    disp: np.ndarray
    inverse_depth: np.ndarray
    words: str


class PageAnswers:
    """Predict uploaded files, and make what the page shows and offers.

    Args:
        predictor: on any device.
        folder: of all files that are made.
    """

    def __init__(self, predictor: Predictor, folder: str | Path):
        self.predictor, self.folder = predictor, folder
        self.camera = predictor.training_camera
        self.unit = self.camera.unit()
        self.unit_name = RELATIVE if self.camera.metres is None else METRES
        self._pool = ThreadPoolExecutor()
        self._frame = lru_cache(1)(self._predict)  # pictures, surface and files of one image

    def pictures(self, path: str, colours: Colours) -> Pictures:
        """Predict an image, and paint its disparity.

        Raises:
            DataError: the file is not an image, is too large, or the range is reversed.
        """
        frame = self._frame(path)
        writer = self._writer("picture", None, colours)
        writer.disp_range = self._disp_range([frame], colours)
        height, width = frame.image.shape[1:]
        shown = frame
        if height * width > SHOWN_PIXELS:
            shown = frame._replace(image=_resized(frame, SHOWN_PIXELS))
        scaled, depth = self.camera.disp_to_depth(frame.disp)
        low, high = (f"{self.unit.factor * float(each):.3g}" for each in (depth.min(), depth.max()))
        return Pictures(shown.image.transpose(1, 2, 0), writer.paint(shown),
                        scaled[0, 0] / np.float32(self.unit.factor),
                        f"{Path(path).name}: {width}x{height} pixels, depth from {low} to {high} "
                        f"{self.unit_name}")

    def surface(self, path: str, view: float | None) -> tuple[str, float, str]:
        """Make a .glb of an image.

        Args:
            path: of the image.
            view: degrees, the horizontal field of view; None: the camera of training.

        Returns:
            Path of the file, distance from the camera to the middle of the surface, and words
            about a camera that is guessed.

        Raises:
            DataError: the file is not an image.
        """
        frame = self._frame(path)
        intrinsics, words = self._intrinsics(frame, view)
        height, width = _sides(frame, SURFACE_PIXELS)
        depth = self.camera.disp_to_depth(
            self.predictor.resize_disp(frame.disp, height, width))[1]
        content, distance = surface_glb(
            self.unit.factor * depth[0, 0], _resized(frame, SHOWN_PIXELS),
            intrinsics.resized(width, height))
        file = Path(self._new_folder(), f"{frame.name.name}_surface.glb")
        write_atomically(file, content)
        return str(file), distance, words

    def file(self, path: str, kind: str, view: float | None) -> str:
        """Write the "depth" (.npy), "png" or "ply" of an image, at its size; return the path.

        Raises:
            DataError: the file is not an image.
        """
        frame = self._frame(path)
        intrinsics, _ = self._intrinsics(frame, view)
        (file,) = self._writer(kind, self._new_folder(), intrinsics=intrinsics[:4]).write(frame)
        return file

    def video(self, path: str, colours: Colours) -> str:
        """Predict a video, with each frame beside its disparity; return the path of the .mp4.

        Raises:
            DataError: the file is not a video, or longer than a minute.
        """
        footage = Footage(path)
        if not footage.is_video:
            raise DataError(f"{path} is not a video; give a file such as .mp4")
        batches = predict_images(self.predictor, _first_minute(footage), BATCH_SIZE, self._pool)
        first = next(batches)
        writer = self._writer("video", self._new_folder(), colours)
        writer.disp_range = self._disp_range(first, colours)
        write_batches(footage, chain([first], batches), writer, self._pool)
        return f"{writer.path_stem(footage.name)}_disp.mp4"

    def _predict(self, path: str) -> Frame:
        still = Still(path, Path(path).with_suffix(""), partial(read_still, Path(path)))
        ((frame,),) = predict_images(self.predictor, [still], 1, self._pool)
        return frame

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _writer(self, kind: str, folder: Path | None, colours: Colours | None = None,
                intrinsics: tuple[float, ...] | None = None) -> FrameWriter:
        options = OutputOptions({kind}, folder, at_image_size=True,
                                intrinsics=intrinsics, colormap=(colours or Colours()).colormap)
        return FrameWriter(options, self.predictor, self.unit)

    def _disp_range(self, frames: list[Frame], colours: Colours) -> tuple[float, float] | None:
        """Return the disparities of the first and the last colour; None: of each map."""
        if not (colours.near or colours.far):
            return None
        writer = self._writer("picture", None)
        writer.fix_disp_range(frames)
        dark, bright = writer.disp_range
        if colours.far:
            dark = self._disp_at(colours.far)
        if colours.near:
            bright = self._disp_at(colours.near)
        if not dark < bright:
            raise DataError("the nearest depth of the colours is not below the farthest; change "
                            "one of them")
        return dark, bright

    def _disp_at(self, depth: float) -> float:
        """Return the network's disparity at a depth, the inverse of `disp_to_depth`."""
        low, high = 1 / self.camera.max_depth, 1 / self.camera.min_depth
        return (self.unit.factor / depth - low) / (high - low)

    def _intrinsics(self, frame: Frame, view: float | None) -> tuple[Intrinsics, str]:
        """Return the intrinsics of an image, and words about them if they are guessed."""
        height, width = frame.image.shape[1:]
        words = ""
        if not view:
            try:
                return self._writer("ply", None).intrinsics(frame), words
            except DataError:  # another shape than the images of training
                view = GUESSED_VIEW
                words = (f"The camera of this image is unknown; the shape assumes a field of view "
                         f"of {view:g} degrees.")
        focal = width / 2 / math.tan(math.radians(view) / 2)
        return from_numbers([focal, focal, (width - 1) / 2, (height - 1) / 2], width, height), words


def _sides(frame: Frame, pixels: int) -> tuple[int, int]:
    """Return the height and width that an image has with about this number of pixels."""
    height, width = frame.image.shape[1:]
    factor = math.sqrt(pixels / (height * width))
    return max(2, round(factor * height)), max(2, round(factor * width))


def _resized(frame: Frame, pixels: int) -> np.ndarray:
    """Return the image (3, h, w) uint8 with about this number of pixels."""
    return resize_array(frame.image, *_sides(frame, pixels))


def _first_minute(footage: Footage) -> Iterator[Still]:
    """Yield the frames of a video.

    Raises:
        DataError: the video is longer than `MAX_SECONDS`, as announced or as read.
    """
    seconds = footage.count / footage.fps if footage.count else 0
    for still in footage:
        seconds = max(seconds, still.time)
        if seconds > MAX_SECONDS:
            raise DataError(f"{footage.source} is longer than {MAX_SECONDS} seconds; cut it, or "
                            "predict it with test_simple.py --image_path")
        yield still
