"""Build a street of boxes and render it for a stereo camera that drives along it.

Lengths are in metres. World and cameras have KITTI's axes: x right, y down, z forward; the ground
is y = 0. Every ray has a z of 1 in its camera's axes, so the distance along a ray is depth.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from datasets.kitti_dataset import KITTIDataset
from synthetic.patterns import Surface, bodywork, cabin, facade, plain, sky, street

BASELINE = 0.54       # m, between KITTI's colour cameras
CAMERA_HEIGHT = 1.65  # m, KITTI's sensor setup

SUPERSAMPLING = 3     # rays per pixel in each direction; odd, so that one ray meets the centre
STATIC_SHARE = 0.08   # share of a drive's frames; at its start the camera stands still
SPEED = (0.8, 0.2)    # m a frame: mean and amplitude
WAVES = ((5.0, 45.0), (1.2, 17.0))  # m, bends of the road: amplitude, wavelength / 2 pi
# m, bends so narrow that the camera turns by up to 4.5 degrees a frame, as a car at a crossing does
TURNS = ((4.8, 8.0), (1.2, 17.0))
VIEW = 140.0          # m of street built beyond the last frame
LANE, PARKED, POSTS, TREES, HOUSES = 1.75, 4.7, 6.2, 7.3, 9.2  # m from the centre line
TRAFFIC_GAP, TRAFFIC_SPEED = 75.0, 0.7  # m, m a frame
SUN, AMBIENT = np.array([0.48, -0.8, -0.36]), 0.62  # direction to the sun; light without sun


class View(NamedTuple):
    """Rays from a camera.

    Attributes:
        origin: (3,) position of the camera.
        rays: (3, ...) direction of each ray.
        steps: (3, 2) change of a ray to the next pixel of its row and of its column.
    """

    origin: np.ndarray
    rays: np.ndarray
    steps: np.ndarray


class Box:
    """An upright box with a pattern on its faces.

    Args:
        base: centre of the bottom face.
        size: (width, height, length).
        yaw: rotation about the vertical axis, in radians from z towards x.
        paint: function that turns the samples of a `Surface` into colours (3, N).

    Attributes:
        low, high: (3,) opposite corners, in the box's own axes.
        corners: (3, 8) corners in the world.
    """

    def __init__(self, base: tuple[float, float, float], size: tuple[float, float, float],
                 yaw: float, paint: Callable[[Surface], np.ndarray]):
        width, height, length = size
        self.base, self.yaw, self.paint = np.array(base, np.float32), yaw, paint
        self.low = np.array([-width / 2, -height, -length / 2], np.float32)
        self.high = np.array([width / 2, 0, length / 2], np.float32)
        ends = np.array(np.meshgrid(*zip(self.low, self.high, strict=True))).reshape(3, 8)
        self.corners = rotate_yaw(ends, -yaw) + self.base[:, None]

    def to_own_axes(self, view: View) -> View:
        """Return the view in the box's own axes, whose origin is the centre of the bottom face."""
        return View(*(rotate_yaw(part, self.yaw) for part in
                      (view.origin - self.base, view.rays, view.steps)))

    def intersect(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Return the depths at which rays enter the box.

        Returns:
            (h, w) depth, inf for rays that miss the box; and (3, h, w) depth at which each ray
            enters the slab between the two faces of each axis.
        """
        origin, rays = (rotate_yaw(part, self.yaw) for part in (view.origin - self.base, view.rays))
        with np.errstate(divide="ignore"):
            inverse = 1 / rays
        first = (self.low - origin)[:, None, None] * inverse
        second = (self.high - origin)[:, None, None] * inverse
        enter, leave = np.minimum(first, second), np.maximum(first, second).min(0)
        depth = enter.max(0)
        return np.where((depth > 0) & (depth < leave), depth, np.inf), enter

    def shade(self, axis: int, view: View) -> np.ndarray:
        """Return the lit colours (3, N) at which N rays meet the face of `axis`."""
        view = self.to_own_axes(view)
        low = view.origin[axis] < self.low[axis]
        depth = ((self.low if low else self.high)[axis] - view.origin[axis]) / view.rays[axis]
        # size of a pixel on the face: a step off the face is projected back along the ray
        slide = view.rays / view.rays[axis]
        moves = (np.abs(step[:, None] - step[axis] * slide) for step in view.steps.T)
        at, spread = view.origin[:, None] + depth * view.rays, depth * sum(moves) + 1e-4
        u, v = ((2, 1), (0, 2), (0, 1))[axis]
        normal = np.zeros(3, np.float32)
        normal[axis] = -1 if low else 1
        light = AMBIENT + (1 - AMBIENT) * max(0.0, float(rotate_yaw(normal, -self.yaw) @ SUN))
        return light * self.paint(Surface(axis, float(self.high[u] - self.low[u]), at[u],
                                          -at[v] if v == 1 else at[v], spread[u], spread[v]))


def rotate_yaw(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """Return vectors (3, ...) in axes rotated by `yaw` about the vertical, from z towards x."""
    x, y, z = vectors
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    rotated = np.empty(vectors.shape, vectors.dtype)  # a third faster than np.stack
    np.subtract(cos * x, sin * z, out=rotated[0, ...])
    rotated[1] = y
    np.add(sin * x, cos * z, out=rotated[2, ...])
    return rotated


class Road:
    """A road with a winding centre line x = centre(z).

    Args:
        rng: draws the phases of the bends.
        waves: amplitude and wavelength / 2 pi of each bend, metres.
    """

    def __init__(self, rng: np.random.Generator, waves: Sequence[tuple[float, float]] = WAVES):
        self.waves, self.phases = waves, rng.uniform(0, 2 * np.pi, len(waves)).tolist()

    def centre(self, z: np.ndarray | float) -> np.ndarray | float:
        """Return the x of the centre line at z."""
        return sum(amplitude * np.sin(z / length + phase)
                   for (amplitude, length), phase in zip(self.waves, self.phases, strict=True))

    def yaw(self, z: float) -> float:
        """Return the direction of the road at z, in radians from z towards x."""
        return float(np.arctan((self.centre(z + 0.01) - self.centre(z - 0.01)) / 0.02))

    def place_box(self, z: float, lateral: float, size: tuple[float, float, float],
                  paint: Callable[[Surface], np.ndarray], up: float = 0.0,
                  yaw: float = 0.0) -> Box:
        """Place a box beside the centre line.

        Args:
            z: position along the road.
            lateral: distance to the right of the centre line.
            size: (width, height, length).
            paint: pattern of the faces.
            up: height of the bottom face above the ground.
            yaw: rotation from the direction of the road, radians.
        """
        return Box((self.centre(z) + lateral, -up, z), size, self.yaw(z) + yaw, paint)


def build_car(road: Road, z: float, lateral: float, yaw: float, seed: int) -> Iterator[Box]:
    """Build a car of two boxes, a body and a cabin."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(0.2, 0.85) * rng.uniform(0.6, 1.1, 3)
    for paint, size, up in ((bodywork, (1.75, 0.85, 4.2), 0.0), (cabin, (1.5, 0.55, 2.3), 0.85)):
        yield road.place_box(z, lateral, size, partial(paint, colour=colour, seed=seed), up, yaw)


def build_tree(road: Road, z: float, lateral: float, rng: np.random.Generator) -> Iterator[Box]:
    """Build a tree of a trunk and three crossed boxes as its crown."""
    wide, tall, seed = rng.uniform(1.6, 2.2), rng.uniform(2.0, 3.5), int(rng.integers(256))
    leaf = np.array([0.3, 0.4, 0.17]) * rng.uniform(0.8, 1.3)
    bark = partial(plain, colour=np.array([0.36, 0.29, 0.22]), contrast=0.6, seed=seed)
    crown = partial(plain, colour=leaf, contrast=0.9, seed=seed)
    yield road.place_box(z, lateral, (0.3, 2.4, 0.3), bark)
    yield road.place_box(z, lateral, (wide, tall, wide), crown, 2.2)
    yield road.place_box(z, lateral, (wide, tall, wide), crown, 2.2, np.pi / 4)
    yield road.place_box(z, lateral, (0.7 * wide, tall + 0.9, 0.7 * wide), crown, 1.9, np.pi / 8)


def build_house(road: Road, z: float, side: int, rng: np.random.Generator) -> Box:
    """Build a house from `z` on, whose faces hold whole numbers of window bays."""
    bay, storey, seed = rng.uniform(2.2, 3.4), rng.uniform(2.7, 3.3), int(rng.integers(256))
    size = 3 * bay, int(rng.integers(2, 6)) * storey + 0.5, int(rng.integers(3, 6)) * bay
    colour = rng.uniform(0.45, 0.8) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.5, 0.95)])
    lateral = side * (HOUSES + rng.uniform(0, 2.5) + size[0] / 2)
    return road.place_box(z + size[2] / 2, lateral, size,
                          partial(facade, colour=colour, bay=bay, storey=storey, seed=seed))


def build_street(road: Road, end: float, rng: np.random.Generator) -> Iterator[Box]:
    """Build houses, parked cars, trees and lamp posts on both sides of a road up to z = `end`."""
    def positions(low: float, high: float) -> Iterator[float]:
        z = -30 + rng.uniform(0, high)
        while z < end:
            yield z
            z += rng.uniform(low, high)
    metal = partial(plain, colour=np.array([0.4, 0.42, 0.44]), contrast=0.5, seed=7)
    for side in (-1, 1):
        z = -30.0
        while z < end:
            yield (house := build_house(road, z, side, rng))
            z += 2 * float(house.high[2]) + rng.choice([0.2, 0.2, 3.5])
        for z in positions(5.2, 10):
            yield from build_car(road, z, side * PARKED, np.pi * (side < 0),
                                 int(rng.integers(256)))
        for z in positions(11, 24):
            yield from build_tree(road, z, side * TREES, rng)
        for z in positions(24, 26):
            yield road.place_box(z, side * POSTS, (0.16, 6.0, 0.16), metal)


def kitti_K(height: int, width: int) -> np.ndarray:
    """Return KITTI's K (3, 3) in pixels; the centre of the first pixel is (0, 0)."""
    return KITTIDataset.K[:3, :3].astype(float) * [[width], [height], [1]]


def camera_view(pose: np.ndarray, height: int, width: int) -> View:
    """Return the rays of a camera: SUPERSAMPLING x SUPERSAMPLING for each pixel.

    Args:
        pose: (4, 4) camera to world.
        height: height of the image, pixels.
        width: width of the image, pixels.
    """
    to_ray = pose[:3, :3] @ np.linalg.inv(kitti_K(height, width))
    u, v = ((np.arange(n * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5 for n in (width, height))
    right, down, middle = to_ray.T[..., None, None]
    rays = right * u + down * v[:, None] + middle
    return View(*(part.astype(np.float32) for part in (pose[:3, 3], rays, to_ray[:, :2])))


def find_visible_boxes(boxes: list[Box], pose: np.ndarray, height: int,
                       width: int) -> Iterator[tuple[Box, tuple]]:
    """Yield the boxes that a camera may see, near boxes first, with the window of rays of each.

    Args:
        boxes: boxes to choose from.
        pose: (4, 4) camera to world.
        height: height of the image, pixels.
        width: width of the image, pixels.
    """
    corners = np.stack([box.corners for box in boxes]) - pose[:3, 3:]
    seen = kitti_K(height, width) @ pose[:3, :3].T @ corners               # (N, 3, 8)
    # A corner behind the camera is moved close before it, which makes the window large enough.
    at = (seen[:, :2] / np.maximum(seen[:, 2:], 0.1) + 0.5) * SUPERSAMPLING
    limits = np.array([width, height]) * SUPERSAMPLING
    low = np.floor(at.min(2)).clip(0, limits).astype(int)
    high = np.ceil(at.max(2)).clip(0, limits).astype(int)
    farthest = seen[:, 2].max(1)
    for i in farthest.argsort(kind="stable"):
        if farthest[i] > 0 and (low[i] < high[i]).all():
            yield boxes[i], (..., slice(low[i, 1], high[i, 1]), slice(low[i, 0], high[i, 0]))


def trace_rays(visible: list[tuple[Box, tuple]], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest face that each ray meets.

    Args:
        visible: boxes and their windows of rays.
        view: the rays, (3, h, w).

    Returns:
        (h, w) depth, inf in the sky; and (h, w) face: 3 times the index of the box in `visible`
        plus the axis, -1 in the sky.
    """
    depth = np.full(view.rays.shape[1:], np.inf, np.float32)
    face = np.full(depth.shape, -1)
    for i, (box, window) in enumerate(visible):
        here, enter = box.intersect(view._replace(rays=view.rays[window]))
        nearer = here < depth[window]
        depth[window][nearer] = here[nearer]
        face[window][nearer] = 3 * i + enter[:, nearer].argmax(0)
    return depth, face


def shade_pixels(visible: list[tuple[Box, tuple]], view: View, face: np.ndarray) -> np.ndarray:
    """Return the colours (3, H, W) of the pixels whose rays meet the faces `face` (h, w).

    The rays of a pixel that meet the same face are replaced by their mean: patterns average over
    the pixel themselves, so more samples would only be slower.
    """
    height, width = (n // SUPERSAMPLING for n in face.shape)
    pixel = np.arange(height * width).reshape(height, width)
    pixel = pixel.repeat(SUPERSAMPLING, 0).repeat(SUPERSAMPLING, 1).ravel()
    # sort rays by face and pixel, and average each group
    order = np.lexsort((pixel, face.ravel()))
    face, pixel = face.ravel()[order], pixel[order]
    first = np.flatnonzero(np.diff(face, prepend=-2) | np.diff(pixel, prepend=-1))
    count = np.diff(first, append=face.size).astype(np.float32)
    rays = np.add.reduceat(view.rays.reshape(3, -1)[:, order], first, axis=1) / count
    # shade all samples of a face at once
    face, pixel, colour = face[first], pixel[first], np.empty_like(rays)
    for samples in np.split(np.arange(first.size), np.flatnonzero(np.diff(face)) + 1):
        number, axis = divmod(int(face[samples[0]]), 3)
        met = view._replace(rays=rays[:, samples])
        colour[:, samples] = visible[number][0].shade(axis, met) if number >= 0 else sky(met.rays)
    # average the samples of a pixel, weighted by their rays
    sums = [np.bincount(pixel, count * channel, height * width) for channel in colour]
    return np.reshape(sums, (3, height, width)) / SUPERSAMPLING**2


class Drive:
    """A street and a stereo camera, which stands still for a while and then drives along it.

    Args:
        seed: seed of the street.
        frames: number of frames.
        turns: whether the road turns left and right all the time, instead of bending slightly.
    """

    def __init__(self, seed: int, frames: int, turns: bool = False):
        rng = np.random.default_rng(seed)
        moving = np.arange(frames) - round(STATIC_SHARE * frames)
        speed = (SPEED[0] + SPEED[1] * np.sin(moving / 9)) * np.clip(moving / 5, 0, 1)
        self.frames, self.z, self.road = frames, np.cumsum(speed), Road(
            rng, TURNS if turns else WAVES)
        self.ground = Box((0, 1, 0), (4000, 1, 4000), 0, partial(street, centre=self.road.centre))
        self.still = list(build_street(self.road, self.z[-1] + VIEW, rng))

    def pose(self, frame: int) -> np.ndarray:
        """Return the camera-to-world matrix (4, 4) of the left camera; float64, metres."""
        z = float(self.z[frame])
        yaw = self.road.yaw(z) + 0.02 * np.sin(z / 13)
        pitch, roll = 0.006 * np.sin(z / 3.1), 0.005 * np.sin(z / 4.3)
        about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
        about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
        about_z = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
        pose = np.eye(4)
        pose[:3, :3] = np.array(about_y) @ about_x @ about_z
        x = self.road.centre(z) + LANE + 0.25 * np.sin(z / 17)
        pose[:3, 3] = x, 0.02 * np.sin(z / 2.3) - CAMERA_HEIGHT, z
        return pose

    def build_traffic(self, frame: int) -> Iterator[Box]:
        """Build the oncoming cars near the camera."""
        start = 30 - TRAFFIC_SPEED * frame
        first = int((self.z[frame] - start) // TRAFFIC_GAP)
        for i in range(first, first + 3):
            yield from build_car(self.road, start + i * TRAFFIC_GAP, -LANE, np.pi, 5 + i)

    def render(self, frame: int, side: str, height: int,
               width: int) -> tuple[np.ndarray, np.ndarray]:
        """Render one frame of the left ("l") or right ("r") camera.

        Returns:
            (H, W, 3) uint8 RGB image, and (H, W) float32 depth in metres at the pixel centres, inf
            in the sky.
        """
        pose = self.pose(frame)
        if side == "r":
            pose[:3, 3] += BASELINE * pose[:3, 0]
        view = camera_view(pose, height, width)
        boxes = [*self.still, *self.build_traffic(frame)]
        visible = [*find_visible_boxes(boxes, pose, height, width), (self.ground, (...,))]
        depth, face = trace_rays(visible, view)
        image = shade_pixels(visible, view, face).transpose(1, 2, 0)
        centres = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
        return np.rint(255 * image.clip(0, 1)).astype(np.uint8), depth[centres, centres]
