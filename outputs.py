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

from camera import Camera
from datasets.intrinsics import Intrinsics, find_intrinsics, read_intrinsics
from datasets.kitti_utils import DEPTH_PNG_SCALE
from footage import VideoFile
from layers import disp_to_depth, resize_disp
from prediction import Frame
from utils import BRIGHTEST, DataError, colorize, save_array, write_atomically

# Of a point cloud, in the order of its bytes
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
                  ("red", "u1"), ("green", "u1"), ("blue", "u1")])
PLY_TYPES = {"f4": "float", "u1": "uchar"}


class Unit(NamedTuple):
    """What a written depth is: the network's times `factor`, and in which unit that is.

    Attributes:
        factor: by which the network's depth is multiplied.
        words: the unit, and why.
    """

    factor: float
    words: str


def unit_of(camera: Camera, scale: float | None = None, fitted_to: str | None = None) -> Unit:
    """Return the unit of depth of a weights folder.

    Args:
        camera: of the folder.
        scale: the user's factor for the network's depth, which wins.
        fitted_to: the ground truth that the scale was fitted to.
    """
    if fitted_to:
        return Unit(scale, f"metres: {scale:g} x the network's depth, fitted to {fitted_to}")
    if scale is not None:
        return Unit(scale, f"{scale:g} x the network's depth, as --scale says")
    return Unit(camera.metres or 1.0, camera.unit())


def outputs_of(args: Namespace, kinds: set[str], camera: Camera) -> Outputs:
    """Return what a command line of test_simple.py asks for.

    Raises:
        DataError: --intrinsics or its output folder cannot be used.
    """
    if args.output_dir is not None:
        try:
            args.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--output_dir {args.output_dir} cannot be made: "
                            f"{error.strerror}") from None
    return Outputs(kinds, camera, unit_of(camera, args.scale, args.scale_from), args.output_dir,
                   args.size == "image", args.disp_range and tuple(args.disp_range),
                   args.intrinsics)


class Outputs:
    """What is written of each frame, and where.

    Args:
        kinds: some of "disp", "depth" (.npy), "png" (16 bits, x 256), "picture", "ply", "video".
        camera: of the weights folder: the depth range, and K where there is no better.
        unit: of depth.
        folder: for all files; beside each image if None.
        at_image_size: .npy have the size of the image, not the network's.
        disp_range: disparities in (0, 1) that are painted black and white; each frame's own if
            None, but those of its first frames for a video.
        intrinsics: fx, fy, cx, cy of the images in pixels, for point clouds; read from beside them
            or taken from `camera` if None.
    """

    def __init__(self, kinds: set[str], camera: Camera, unit: Unit, folder: Path | None = None,
                 at_image_size: bool = False, disp_range: tuple[float, float] | None = None,
                 intrinsics: list[float] | None = None):
        self.kinds, self.camera, self.unit, self.folder = kinds, camera, unit, folder
        self.at_image_size, self.disp_range = at_image_size, disp_range
        self.intrinsics = intrinsics

    def stem(self, name: Path) -> str:
        """Return where the files of a frame (or a video) go, without their ends."""
        return str(name if self.folder is None else self.folder / name.name)

    def save(self, frame: Frame) -> str:
        """Write all but the video of a frame; return a line that says what."""
        stem = self.stem(frame.name)
        scaled_disp, depth = disp_to_depth(frame.disp, self.camera.min_depth, self.camera.max_depth)
        full_depth = self._depth(resize_disp(frame.disp, *frame.image.shape[1:]))
        written = []
        if "disp" in self.kinds:
            written.append(self._save_array(f"{stem}_disp.npy", scaled_disp, frame))
        if "depth" in self.kinds:
            # the mean of depths between a near and a far one is nowhere: disparity is resized
            values = full_depth if self.at_image_size else self.unit.factor * depth
            written.append(f"{stem}_depth.npy")
            save_array(written[-1], values.numpy())
        if "png" in self.kinds:
            written.append(f"{stem}_depth.png")
            write_atomically(written[-1], depth_png(full_depth[0, 0].numpy()))
        if "picture" in self.kinds:
            written.append(f"{stem}_disp.jpeg")
            picture = io.BytesIO()
            Image.fromarray(self.paint(frame)).save(picture, "JPEG")
            write_atomically(written[-1], picture.getvalue())
        if "ply" in self.kinds:
            written.append(f"{stem}_cloud.ply")
            write_atomically(written[-1], ply(full_depth[0, 0].numpy(), frame.image,
                                              self._intrinsics_of(frame), self.unit.words))
        *first, last = written
        return f"{frame.label}: wrote {', '.join(first)}{' and ' * bool(first)}{last}"

    def _save_array(self, path: str, values: Tensor, frame: Frame) -> str:
        if self.at_image_size:
            values = resize_disp(values, *frame.image.shape[1:])
        save_array(path, values.numpy())
        return path

    def _depth(self, disp: Tensor) -> Tensor:
        return self.unit.factor * disp_to_depth(disp, self.camera.min_depth,
                                                self.camera.max_depth)[1]

    def paint(self, frame: Frame) -> np.ndarray:
        """Return the disparity at the image's size, (H, W, 3) uint8 RGB."""
        full_size = resize_disp(frame.disp, *frame.image.shape[1:])[0, 0].numpy()
        return colorize(full_size, self.disp_range)

    def append(self, batch: list[Frame], video: VideoFile) -> None:
        """Append frames to a video, their disparities to the right of them."""
        if self.disp_range is None:  # from then on fixed, or each frame would change all colours
            disps = np.concatenate([frame.disp.numpy() for frame in batch])
            self.disp_range = float(disps.min()), float(np.percentile(disps, BRIGHTEST))
        for frame in batch:
            video.write(np.hstack([frame.image.permute(1, 2, 0).numpy(), self.paint(frame)]))

    def _intrinsics_of(self, frame: Frame) -> Intrinsics:
        """Return the camera of a frame: given, beside the image, or that of the weights."""
        height, width = frame.image.shape[1:]
        folder = frame.name.parent
        if self.intrinsics is not None:
            return Intrinsics(*self.intrinsics, width, height)
        try:
            path = find_intrinsics(folder, folder.parent)
        except DataError:
            camera = self.camera.intrinsics(width, height)
        else:
            camera = read_intrinsics(path)
        if camera is None:
            raise DataError(f"{frame.label}: its camera is not known, for the weights were trained "
                            "on several; give --intrinsics fx fy cx cy, in pixels")
        if (camera.width, camera.height) != (width, height):
            raise DataError(f"{frame.label} has {width}x{height} pixels, its intrinsics are for "
                            f"{camera.width}x{camera.height}; give --intrinsics fx fy cx cy")
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
