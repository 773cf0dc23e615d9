"""What prediction writes: arrays, 16-bit PNGs, pictures, point clouds, videos; each in its unit."""
from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from checkpoints.training_camera import TrainingCamera
from datasets.intrinsics import Intrinsics, find_intrinsics, from_numbers, read_intrinsics
from kitti_utils import DEPTH_PNG_SCALE
from layers import disp_to_depth, resize_disp
from metrics.depth import STEREO_SCALE_FACTOR
from prediction.images import Frame
from prediction.video import VideoFile
from runtime.errors import DataError
from runtime.files import npy, write_atomically

# Of a point cloud, in the order of its bytes
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
                  ("red", "u1"), ("green", "u1"), ("blue", "u1")])
SAME_SHAPE = 0.02  # by how much the aspect of images may differ that one camera took
PLY_TYPES = {"f4": "float", "u1": "uchar"}


class Unit(NamedTuple):
    """What a written depth is: the network's times `factor`, and in which unit that is.

    Attributes:
        factor: by which the network's depth is multiplied.
        words: the unit, and why.
    """

    factor: float
    words: str


def unit_of(camera: TrainingCamera, scale: float | None = None, fitted_to: str | None = None,
            metric: bool = False) -> Unit:
    """Return the unit of depth of a weights folder.

    Args:
        camera: of the folder.
        scale: the user's factor for the network's depth, which wins.
        fitted_to: the ground truth that the scale was fitted to.
        metric: take KITTI's baseline where none is known, as --pred_metric_depth always did.
    """
    if fitted_to:
        return Unit(scale, f"metres: {scale:g} x the network's depth, fitted to {fitted_to}")
    if scale is not None:
        return Unit(scale, f"{scale:g} x the network's depth, as --scale says")
    if metric and camera.metres is None:
        return Unit(STEREO_SCALE_FACTOR, f"{STEREO_SCALE_FACTOR:g} x the network's depth, which "
                    "would be metres only after training with KITTI's stereo pairs")
    return Unit(camera.metres or 1.0, camera.unit())


def outputs_of(args: Namespace, kinds: set[str], camera: TrainingCamera, unit: Unit,
               is_video: bool) -> Outputs:
    """Return what a command line of test_simple.py asks for.

    Raises:
        DataError: its output folder cannot be made.
    """
    if args.output_dir is not None:
        try:
            args.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--output_dir {args.output_dir} cannot be made: "
                            f"{error.strerror}") from None
    return Outputs(kinds, camera, unit, args.output_dir, is_video, args.size == "image",
                   args.disp_range and tuple(args.disp_range), args.intrinsics, args.colormap)


class Outputs:
    """What is written of each frame, and where.

    Args:
        kinds: some of "disp", "depth" (.npy), "png" (16 bits, x 256), "picture", "ply", "video".
        camera: of the weights folder: the depth range, and K where there is no better.
        unit: of depth.
        folder: for all files; beside each image if None.
        is_video: the frames are a video's, and go to a folder of its name.
        at_image_size: .npy have the size of the image, not the network's.
        disp_range: disparities in (0, 1) that are painted black and white; each frame's own if
            None.
        intrinsics: fx, fy, cx, cy of the images in pixels, for point clouds; read from beside them
            or taken from `camera` if None.
        colormap: of pictures and videos.
    """

    def __init__(self, kinds: set[str], camera: TrainingCamera, unit: Unit,
                 folder: Path | None = None, is_video: bool = False, at_image_size: bool = False,
                 disp_range: tuple[float, float] | None = None,
                 intrinsics: list[float] | None = None, colormap: str = "magma"):
        self.kinds, self.camera, self.unit, self.folder = kinds, camera, unit, folder
        self.is_video, self.at_image_size = is_video, at_image_size
        self.disp_range, self.intrinsics, self.colormap = disp_range, intrinsics, colormap

    def stem(self, name: Path, parts: int = 1) -> str:
        """Return where files go, without their ends; `parts` of the name are kept in `folder`."""
        return str(name if self.folder is None else self.folder.joinpath(*name.parts[-parts:]))

    def save(self, frame: Frame) -> str:
        """Write all but the video of a frame; return a line that says what."""
        writers = {"disp": ("_disp.npy", self._disp), "depth": ("_depth.npy", self._depth_array),
                   "png": ("_depth.png", self._png), "picture": ("_disp.jpeg", self._picture),
                   "ply": ("_cloud.ply", self._ply)}
        stem, written = self.stem(frame.name, 1 + self.is_video), []
        for kind, (end, content_of) in writers.items():
            if kind in self.kinds:
                written.append(stem + end)
                write_atomically(written[-1], content_of(frame))
        *first, last = written
        return f"{frame.label}: wrote {', '.join(first)}{' and ' * bool(first)}{last}"

    def _disp(self, frame: Frame) -> bytes:
        disp = self._at_image_size(frame) if self.at_image_size else frame.disp
        return npy(disp_to_depth(disp, self.camera.min_depth, self.camera.max_depth)[0].numpy())

    def _depth_array(self, frame: Frame) -> bytes:
        # the mean of a near and a far depth is nowhere: disparity is resized
        disp = self._at_image_size(frame) if self.at_image_size else frame.disp
        return npy(self._depth(disp).numpy())

    def _png(self, frame: Frame) -> bytes:
        return depth_png(self._depth(self._at_image_size(frame))[0, 0].numpy())

    def _picture(self, frame: Frame) -> bytes:
        picture = io.BytesIO()
        Image.fromarray(self.paint(frame)).save(picture, "JPEG")
        return picture.getvalue()

    def _ply(self, frame: Frame) -> bytes:
        return ply(self._depth(self._at_image_size(frame))[0, 0].numpy(), frame.image,
                   self._intrinsics_of(frame), self.unit.words)

    def _at_image_size(self, frame: Frame) -> Tensor:
        return resize_disp(frame.disp, *frame.image.shape[1:])

    def _depth(self, disp: Tensor) -> Tensor:
        return self.unit.factor * disp_to_depth(disp, self.camera.min_depth,
                                                self.camera.max_depth)[1]

    def paint(self, frame: Frame) -> np.ndarray:
        """Return the disparity at the image's size, (H, W, 3) uint8 RGB."""
        return colorize(self._at_image_size(frame)[0, 0].numpy(), self.disp_range,
                        self.colormap)

    def fix_range(self, batch: list[Frame]) -> None:
        """Paint all frames from now on in the range of these: their own would make them flicker."""
        disps = np.concatenate([frame.disp.numpy() for frame in batch])
        self.disp_range = float(disps.min()), float(np.percentile(disps, BRIGHTEST))

    def append(self, batch: list[Frame], video: VideoFile) -> None:
        """Append frames to a video, their disparities to the right of them."""
        for frame in batch:
            video.write(np.hstack([frame.image.permute(1, 2, 0).numpy(), self.paint(frame)]))

    def _intrinsics_of(self, frame: Frame) -> Intrinsics:
        """Return the camera of a frame: given, beside the image, or that of the weights."""
        height, width = frame.image.shape[1:]
        folder = frame.name.parent.parent if self.is_video else frame.name.parent
        if self.intrinsics is not None:
            return from_numbers(self.intrinsics, width, height)
        try:
            path = find_intrinsics(folder, folder.parent)
        except DataError:
            return self._training_intrinsics(frame, height, width)
        camera = read_intrinsics(path)
        if (camera.width, camera.height) != (width, height):
            raise DataError(f"{frame.label} has {width}x{height} pixels, {path} is for "
                            f"{camera.width}x{camera.height}; give --intrinsics FX FY CX CY")
        return camera

    def _training_intrinsics(self, frame: Frame, height: int, width: int) -> Intrinsics:
        camera, size = self.camera.intrinsics(width, height), self.camera.image_size
        if camera is None:
            raise DataError(f"{frame.label}: its camera is not known, for the weights were trained "
                            "on several; give --intrinsics FX FY CX CY, in pixels")
        if size and abs(width * size[1] / (height * size[0]) - 1) > SAME_SHAPE:
            raise DataError(f"{frame.label} has {width}x{height} pixels, and the camera of "
                            f"training took images of another shape, {size[0]}x{size[1]}; give "
                            "--intrinsics FX FY CX CY of its own")
        return camera


def depth_png(depth: np.ndarray) -> bytes:
    """Return KITTI's 16-bit PNG of a depth map: x 256, from 1 / 256 to 255.99."""
    values = (depth * DEPTH_PNG_SCALE).round().clip(1, np.iinfo(np.uint16).max)  # 0 means none
    return cv2.imencode(".png", values.astype(np.uint16))[1].tobytes()


def ply(depth: np.ndarray, image: Tensor, camera: Intrinsics, unit: str) -> bytes:
    """Return a binary PLY file with a coloured point for each pixel.

    Convention: x right, y down, z forward; the origin is the camera.

    Args:
        depth: (H, W) along the optical axis.
        image: (3, H, W) uint8 RGB.
        camera: of images of that size.
        unit: of depth, for the header.
    """
    v, u = np.indices(depth.shape)
    points = np.empty(depth.size, POINT)
    points["x"] = ((u - camera.cx) / camera.fx * depth).ravel()
    points["y"] = ((v - camera.cy) / camera.fy * depth).ravel()
    points["z"] = depth.ravel()
    for name, channel in zip(("red", "green", "blue"), image.numpy(), strict=True):
        points[name] = channel.ravel()
    properties = "".join(f"property {PLY_TYPES[kind.str[1:]]} {name}\n"
                         for name, (kind, _) in POINT.fields.items())
    header = ("ply\nformat binary_little_endian 1.0\n"
              "comment x right, y down, z forward, from the camera\n"
              f"comment unit: {unit.encode('ascii', 'replace').decode()}\n"
              f"element vertex {points.size}\n{properties}end_header\n")
    return header.encode() + points.tobytes()



BRIGHTEST = 95  # percentile of a disparity map from which on it is painted white


def colorize(disp: np.ndarray, disp_range: tuple[float, float] | None = None,
             colormap: str = "magma") -> np.ndarray:
    """Paint a disparity map, in matplotlib's magma near is bright.

    Args:
        disp: (H, W).
        disp_range: what is painted black, and from where on all is white; if None, the map's
            minimum and its percentile `BRIGHTEST`.
        colormap: one of OpenCV's.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    low, high = disp_range or (disp.min(), np.percentile(disp, BRIGHTEST))
    level = np.clip((disp - low) / max(high - low, 1e-12), 0, 1)
    painted = cv2.applyColorMap((255 * level).astype(np.uint8),
                                getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return cv2.cvtColor(painted, cv2.COLOR_BGR2RGB)
