"""Write the outputs of each frame: arrays, 16-bit PNGs, pictures and point clouds."""
from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from checkpoints.training_camera import Unit
from datasets.intrinsics import Intrinsics, find_intrinsics, from_numbers, read_intrinsics
from kitti_utils import DEPTH_PNG_SCALE
from prediction.images import ArrayPredictor, Frame
from runtime.errors import DataError
from runtime.files import npy, write_atomically

# A point of a cloud, in the byte order of the PLY file
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
                  ("red", "u1"), ("green", "u1"), ("blue", "u1")])
PLY_TYPES = {"f4": "float", "u1": "uchar"}
ASPECT_TOLERANCE = 0.02  # relative difference of aspect ratios that training's K still fits
BRIGHTEST = 95  # percentile of a disparity map that is painted white


class OutputOptions(NamedTuple):
    """Choose the outputs that are written for each frame, their place and their look.

    Attributes:
        kinds: "disp", "depth" (.npy), "png" (16 bits, x 256), "picture", "ply", "video".
        folder: of all files; None: next to each image.
        at_image_size: write .npy at the size of the image instead of the network's.
        disp_range: disparities in (0, 1) that are painted black and white; None: per frame.
        intrinsics: fx, fy, cx, cy of the images in pixels, for point clouds; None: from an
            intrinsics.json beside the images, or from training.
        colormap: of pictures and videos, one of OpenCV's.
    """

    kinds: set[str]
    folder: Path | None = None
    at_image_size: bool = False
    disp_range: tuple[float, float] | None = None
    intrinsics: list[float] | None = None
    colormap: str = "magma"


class FrameWriter:
    """Write the outputs of predicted frames.

    Args:
        options: the outputs to write.
        predictor: that the frames are from; its camera has the depth range and intrinsics.
        unit: of depth.
        is_video: whether the frames come from one video; their files go to a folder of its name.

    Attributes:
        disp_range: disparities in (0, 1) that are painted black and white; None: per frame.
    """

    def __init__(self, options: OutputOptions, predictor: ArrayPredictor, unit: Unit,
                 is_video: bool = False):
        self.options, self.predictor, self.unit = options, predictor, unit
        self.is_video, self.disp_range = is_video, options.disp_range

    def path_stem(self, name: Path, parts: int = 1) -> str:
        """Return the common start of output paths; `folder` keeps the last `parts` of the name."""
        folder = self.options.folder
        return str(name if folder is None else folder.joinpath(*name.parts[-parts:]))

    def write(self, frame: Frame) -> list[str]:
        """Write all outputs of a frame except the video; return their paths."""
        encoders = {"disp": ("_disp.npy", self._disp_npy), "depth": ("_depth.npy", self._depth_npy),
                    "png": ("_depth.png", self._depth_png), "picture": ("_disp.jpeg", self._jpeg),
                    "ply": ("_cloud.ply", self._ply)}
        stem, paths = self.path_stem(frame.name, 2 if self.is_video else 1), []
        for kind, (ending, encode) in encoders.items():
            if kind in self.options.kinds:
                paths.append(stem + ending)
                write_atomically(paths[-1], encode(frame))
        return paths

    def _disp_npy(self, frame: Frame) -> bytes:
        return npy(self.predictor.training_camera.disp_to_depth(self._array_disp(frame))[0])

    def _depth_npy(self, frame: Frame) -> bytes:
        return npy(self.depth(self._array_disp(frame)))

    def _depth_png(self, frame: Frame) -> bytes:
        return depth_png(self._depth_at_image_size(frame))

    def _jpeg(self, frame: Frame) -> bytes:
        picture = io.BytesIO()
        Image.fromarray(self.paint(frame)).save(picture, "JPEG")
        return picture.getvalue()

    def _ply(self, frame: Frame) -> bytes:
        return ply(self._depth_at_image_size(frame), frame.image, self.intrinsics(frame),
                   self.unit.words)

    def _array_disp(self, frame: Frame) -> np.ndarray:
        """Return the (1, 1, h, w) disparity at the size of .npy files."""
        return self._disp_at_image_size(frame) if self.options.at_image_size else frame.disp

    def _disp_at_image_size(self, frame: Frame) -> np.ndarray:
        # disparity is resized, not depth: the mean of a near and a far depth lies between objects
        return self.predictor.resize_disp(frame.disp, *frame.image.shape[1:])

    def _depth_at_image_size(self, frame: Frame) -> np.ndarray:
        return self.depth(self._disp_at_image_size(frame))[0, 0]

    def depth(self, disp: np.ndarray) -> np.ndarray:
        """Convert the network's disparity in (0, 1) to depth in `unit`."""
        return self.unit.factor * self.predictor.training_camera.disp_to_depth(disp)[1]

    def paint(self, frame: Frame) -> np.ndarray:
        """Colour the disparity at the size of the image: (H, W, 3) uint8 RGB."""
        return colorize(self._disp_at_image_size(frame)[0, 0], self.disp_range,
                        self.options.colormap)

    def paint_beside(self, frame: Frame) -> np.ndarray:
        """Put the coloured disparity to the right of the image: (H, 2 W, 3) uint8 RGB."""
        return np.hstack([frame.image.transpose(1, 2, 0), self.paint(frame)])

    def fix_disp_range(self, batch: list[Frame]) -> None:
        """Paint all further frames with the range of this batch: ranges per frame would flicker."""
        disps = np.concatenate([frame.disp for frame in batch])
        self.disp_range = float(disps.min()), float(np.percentile(disps, BRIGHTEST))

    def intrinsics(self, frame: Frame) -> Intrinsics:
        """Find the intrinsics of a frame: from the options, beside the image, or from training."""
        height, width = frame.image.shape[1:]
        if self.options.intrinsics is not None:
            return from_numbers(self.options.intrinsics, width, height)
        folder = frame.name.parent.parent if self.is_video else frame.name.parent
        try:
            path = find_intrinsics(folder, folder.parent)
        except DataError:
            return self._training_intrinsics(frame, height, width)
        intrinsics = read_intrinsics(path)
        if (intrinsics.width, intrinsics.height) != (width, height):
            raise DataError(f"{frame.label} has {width}x{height} pixels, {path} is for "
                            f"{intrinsics.width}x{intrinsics.height}; give --intrinsics FX FY CX "
                            "CY")
        return intrinsics

    def _training_intrinsics(self, frame: Frame, height: int, width: int) -> Intrinsics:
        training_camera = self.predictor.training_camera
        intrinsics, size = training_camera.intrinsics(width, height), training_camera.image_size
        if intrinsics is None:
            raise DataError(f"{frame.label}: its intrinsics are unknown, because the weights were "
                            "trained with several cameras; give --intrinsics FX FY CX CY, in "
                            "pixels")
        if size and abs(width * size[1] / (height * size[0]) - 1) > ASPECT_TOLERANCE:
            raise DataError(f"{frame.label} has {width}x{height} pixels, and the images of "
                            f"training had another aspect ratio, {size[0]}x{size[1]}; give "
                            "--intrinsics FX FY CX CY of this camera")
        return intrinsics


def depth_png(depth: np.ndarray) -> bytes:
    """Encode a depth map as KITTI's 16-bit PNG: depth x 256, clipped to 1 / 256 and 255.99."""
    values = (depth * DEPTH_PNG_SCALE).round().clip(1, np.iinfo(np.uint16).max)  # 0 = unknown
    return cv2.imencode(".png", values.astype(np.uint16))[1].tobytes()


def ply(depth: np.ndarray, image: np.ndarray, intrinsics: Intrinsics, unit: str) -> bytes:
    """Encode a binary PLY file with a coloured point for each pixel, from the camera.

    Args:
        depth: (H, W) along the optical axis.
        image: (3, H, W) uint8 RGB.
        intrinsics: of the image.
        unit: of depth, for the header.
    """
    return cloud_ply(pixel_points(depth, intrinsics), image.reshape(3, -1).T, unit)


def pixel_points(depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Lift every pixel to the point that it sees: (H * W, 3), x right, y down, z forward.

    Args:
        depth: (H, W) along the optical axis.
        intrinsics: of an image of this size.
    """
    v, u = np.indices(depth.shape)
    return np.stack([(u - intrinsics.cx) / intrinsics.fx * depth,
                     (v - intrinsics.cy) / intrinsics.fy * depth, depth], -1).reshape(-1, 3)


def cloud_ply(points: np.ndarray, colours: np.ndarray, unit: str,
              origin: str = "the camera") -> bytes:
    """Encode a binary PLY file of coloured points: x right, y down, z forward.

    Args:
        points: (N, 3).
        colours: (N, 3) uint8 RGB.
        unit: of the points, for the header.
        origin: where they are seen from, for the header.
    """
    vertices = np.empty(len(points), POINT)
    for name, values in zip(POINT.names, (*points.T, *colours.T), strict=True):
        vertices[name] = values
    properties = "".join(f"property {PLY_TYPES[kind.str[1:]]} {name}\n"
                         for name, (kind, _) in POINT.fields.items())
    header = ("ply\nformat binary_little_endian 1.0\n"
              f"comment x right, y down, z forward, from {origin}\n"
              f"comment unit: {unit.encode('ascii', 'replace').decode()}\n"
              f"element vertex {len(vertices)}\n{properties}end_header\n")
    return header.encode() + vertices.tobytes()


def colorize(disp: np.ndarray, disp_range: tuple[float, float] | None = None,
             colormap: str = "magma") -> np.ndarray:
    """Colour a disparity map; in matplotlib's magma, near is bright.

    Args:
        disp: (H, W).
        disp_range: disparities painted with the first and the last colour; if None, the minimum
            and the 95th percentile of the map.
        colormap: one of OpenCV's.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    low, high = disp_range or (disp.min(), np.percentile(disp, BRIGHTEST))
    level = np.clip((disp - low) / max(high - low, 1e-12), 0, 1)
    painted = cv2.applyColorMap((255 * level).astype(np.uint8),
                                getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return cv2.cvtColor(painted, cv2.COLOR_BGR2RGB)
