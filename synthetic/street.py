"""A street of boxes, and the camera that drives along it: true images, depth and poses.

Conventions: lengths are metres; world and cameras have KITTI's axes (x right, y down, z forward);
the ground is y = 0. A ray's camera z is 1, so the distance along it is depth.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from datasets.kitti_dataset import KITTIDataset
from synthetic.patterns import Surface, bodywork, cabin, facade, plain, sky, street

BASELINE = 0.54       # m, between KITTI's colour cameras
CAMERA_HEIGHT = 1.65  # m, KITTI's sensor setup

SUPERSAMPLING = 3     # rays a pixel, each way; odd, so that one of them is the pixel's own
STATIC_SHARE = 0.08   # of a drive's frames: the camera stands still at first
SPEED = (0.8, 0.2)    # m a frame: mean, and how far it swings
WAVES = ((5.0, 45.0), (1.2, 17.0))  # m, the road's bends: amplitude, wavelength / 2 pi
VIEW = 140.0          # m of street built beyond the last frame
LANE, PARKED, POSTS, TREES, HOUSES = 1.75, 4.7, 6.2, 7.3, 9.2  # m from the centre line
TRAFFIC_GAP, TRAFFIC_SPEED = 75.0, 0.7  # m, m a frame
SUN, AMBIENT = np.array([0.48, -0.8, -0.36]), 0.62  # direction to the sun; light without it


class View(NamedTuple):
    """The rays of a camera."""

    origin: np.ndarray  # (3,)
    rays: np.ndarray    # (3, ...)
    steps: np.ndarray   # (3, 2) change of a ray from a pixel to the next one in its row, its column


class Box:
    """An upright box that paints its own faces."""

    def __init__(self, base: tuple[float, float, float], size: tuple[float, float, float],
                 yaw: float, paint: Callable[[Surface], np.ndarray]):
        """Stand a box of `size` (width, height, length) on the point `base`, turned by `yaw`."""
        width, height, length = size
        self.base, self.yaw, self.paint = np.array(base, np.float32), yaw, paint
        self.low = np.array([-width / 2, -height, -length / 2], np.float32)
        self.high = np.array([width / 2, 0, length / 2], np.float32)
        ends = np.array(np.meshgrid(*zip(self.low, self.high, strict=True))).reshape(3, 8)
        self.corners = turn(ends, -yaw) + self.base[:, None]

    def inside(self, view: View) -> View:
        """Return the view in the box's own axes, from the middle of its base."""
        return View(*(turn(part, self.yaw) for part in
                      (view.origin - self.base, view.rays, view.steps)))

    def hit(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Return the depth (h, w) where rays meet the box, inf where they miss it.

        Also returns the depth (3, h, w) where they enter the slab between the faces of each axis.
        """
        view = self.inside(view)
        with np.errstate(divide="ignore"):
            inverse = 1 / view.rays
        first = (self.low - view.origin)[:, None, None] * inverse
        second = (self.high - view.origin)[:, None, None] * inverse
        enter, leave = np.minimum(first, second), np.maximum(first, second).min(0)
        depth = enter.max(0)
        return np.where((depth > 0) & (depth < leave), depth, np.inf), enter

    def shade(self, axis: int, view: View) -> np.ndarray:
        """Return the lit colours (3, N) where N rays meet the face of that axis."""
        view = self.inside(view)
        low = view.origin[axis] < self.low[axis]
        depth = ((self.low if low else self.high)[axis] - view.origin[axis]) / view.rays[axis]
        slide = view.rays / view.rays[axis]  # a step off the face leads back along the ray
        moves = (np.abs(step[:, None] - step[axis] * slide) for step in view.steps.T)
        at, spread = view.origin[:, None] + depth * view.rays, depth * sum(moves) + 1e-4
        u, v = ((2, 1), (0, 2), (0, 1))[axis]
        normal = np.zeros(3, np.float32)
        normal[axis] = -1 if low else 1
        light = AMBIENT + (1 - AMBIENT) * max(0.0, float(turn(normal, -self.yaw) @ SUN))
        return light * self.paint(Surface(axis, float(self.high[u] - self.low[u]), at[u],
                                          -at[v] if v == 1 else at[v], spread[u], spread[v]))


def turn(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """Return (3, ...) vectors in axes turned by `yaw` about the vertical, from z towards x."""
    x, y, z = vectors
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    return np.stack([cos * x - sin * z, y, sin * x + cos * z])


class Road:
    """A winding centre line, x = centre(z)."""

    def __init__(self, rng: np.random.Generator):
        self.phases = rng.uniform(0, 2 * np.pi, len(WAVES)).tolist()

    def centre(self, z: np.ndarray | float) -> np.ndarray | float:
        """Return x at z."""
        return sum(amplitude * np.sin(z / length + phase)
                   for (amplitude, length), phase in zip(WAVES, self.phases, strict=True))

    def yaw(self, z: float) -> float:
        """Return the direction at z, in radians from z towards x."""
        return float(np.arctan((self.centre(z + 0.01) - self.centre(z - 0.01)) / 0.02))

    def place(self, z: float, lateral: float, size: tuple[float, float, float],
              paint: Callable[[Surface], np.ndarray], up: float = 0.0, yaw: float = 0.0) -> Box:
        """Stand a box beside the centre line, turned by `yaw` from the road's direction."""
        return Box((self.centre(z) + lateral, -up, z), size, self.yaw(z) + yaw, paint)


def car(road: Road, z: float, lateral: float, yaw: float, seed: int) -> Iterator[Box]:
    """Build a car of a body and a cabin."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(0.2, 0.85) * rng.uniform(0.6, 1.1, 3)
    for paint, size, up in ((bodywork, (1.75, 0.85, 4.2), 0.0), (cabin, (1.5, 0.55, 2.3), 0.85)):
        yield road.place(z, lateral, size, partial(paint, colour=colour, seed=seed), up, yaw)


def tree(road: Road, z: float, lateral: float, rng: np.random.Generator) -> Iterator[Box]:
    """Build a trunk and a crown of three boxes, one inside the other."""
    wide, tall, seed = rng.uniform(1.6, 2.2), rng.uniform(2.0, 3.5), int(rng.integers(256))
    leaf = np.array([0.3, 0.4, 0.17]) * rng.uniform(0.8, 1.3)
    bark = partial(plain, colour=np.array([0.36, 0.29, 0.22]), contrast=0.6, seed=seed)
    crown = partial(plain, colour=leaf, contrast=0.9, seed=seed)
    yield road.place(z, lateral, (0.3, 2.4, 0.3), bark)
    yield road.place(z, lateral, (wide, tall, wide), crown, 2.2)
    yield road.place(z, lateral, (wide, tall, wide), crown, 2.2, np.pi / 4)
    yield road.place(z, lateral, (0.7 * wide, tall + 0.9, 0.7 * wide), crown, 1.9, np.pi / 8)


def house(road: Road, z: float, side: int, rng: np.random.Generator) -> Box:
    """Build a house that starts at `z`, a whole number of bays wide and long."""
    bay, storey, seed = rng.uniform(2.2, 3.4), rng.uniform(2.7, 3.3), int(rng.integers(256))
    size = 3 * bay, int(rng.integers(2, 6)) * storey + 0.5, int(rng.integers(3, 6)) * bay
    colour = rng.uniform(0.45, 0.8) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.5, 0.95)])
    lateral = side * (HOUSES + rng.uniform(0, 2.5) + size[0] / 2)
    return road.place(z + size[2] / 2, lateral, size,
                      partial(facade, colour=colour, bay=bay, storey=storey, seed=seed))


def furnish(road: Road, end: float, rng: np.random.Generator) -> Iterator[Box]:
    """Line both sides of a road, as far as z = `end`, with houses, cars, trees and lamp posts."""
    def along(low: float, high: float) -> Iterator[float]:
        z = -30 + rng.uniform(0, high)
        while z < end:
            yield z
            z += rng.uniform(low, high)
    metal = partial(plain, colour=np.array([0.4, 0.42, 0.44]), contrast=0.5, seed=7)
    for side in (-1, 1):
        z = -30.0
        while z < end:
            yield (home := house(road, z, side, rng))
            z += 2 * float(home.high[2]) + rng.choice([0.2, 0.2, 3.5])
        for z in along(5.2, 10):
            yield from car(road, z, side * PARKED, np.pi * (side < 0), int(rng.integers(256)))
        for z in along(11, 24):
            yield from tree(road, z, side * TREES, rng)
        for z in along(24, 26):
            yield road.place(z, side * POSTS, (0.16, 6.0, 0.16), metal)


def intrinsics(height: int, width: int) -> np.ndarray:
    """Return KITTI's K (3, 3) in pixels; the middle of the first pixel is (0, 0)."""
    return KITTIDataset.K[:3, :3].astype(float) * [[width], [height], [1]]


def look(pose: np.ndarray, height: int, width: int) -> View:
    """Return the view of a camera, SUPERSAMPLING squared rays a pixel; `pose` is to the world."""
    to_ray = pose[:3, :3] @ np.linalg.inv(intrinsics(height, width))
    u, v = ((np.arange(n * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5 for n in (width, height))
    right, down, middle = to_ray.T[..., None, None]
    rays = right * u + down * v[:, None] + middle
    return View(*(part.astype(np.float32) for part in (pose[:3, 3], rays, to_ray[:, :2])))


def in_sight(boxes: list[Box], pose: np.ndarray, height: int,
             width: int) -> Iterator[tuple[Box, tuple]]:
    """Find the boxes a camera may see, near ones first, and the window of rays each may fill."""
    corners = np.stack([box.corners for box in boxes]) - pose[:3, 3:]
    seen = intrinsics(height, width) @ pose[:3, :3].T @ corners  # (N, 3, 8)
    # A corner behind the camera counts as one close before it: that widens the window enough.
    at = (seen[:, :2] / np.maximum(seen[:, 2:], 0.1) + 0.5) * SUPERSAMPLING
    limits = np.array([width, height]) * SUPERSAMPLING
    low = np.floor(at.min(2)).clip(0, limits).astype(int)
    high = np.ceil(at.max(2)).clip(0, limits).astype(int)
    farthest = seen[:, 2].max(1)
    for i in farthest.argsort(kind="stable"):
        if farthest[i] > 0 and (low[i] < high[i]).all():
            yield boxes[i], (..., slice(low[i, 1], high[i, 1]), slice(low[i, 0], high[i, 0]))


def trace(sight: list[tuple[Box, tuple]], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth each ray of a view goes, and the face it meets there; both (h, w).

    A face is 3 times the number of its box in `sight`, plus its axis; the sky is -1, at depth inf.
    """
    depth = np.full(view.rays.shape[1:], np.inf, np.float32)
    face = np.full(depth.shape, -1)
    for i, (box, window) in enumerate(sight):
        here, enter = box.hit(view._replace(rays=view.rays[window]))
        nearer = here < depth[window]
        depth[window][nearer] = here[nearer]
        face[window][nearer] = 3 * i + enter[:, nearer].argmax(0)
    return depth, face


def develop(sight: list[tuple[Box, tuple]], view: View, face: np.ndarray) -> np.ndarray:
    """Return the colours (3, H, W) of the pixels whose rays meet these faces.

    The rays of a pixel that meet the same face are one sample, at their mean: patterns average over
    the pixel themselves, so more samples would only take longer.
    """
    height, width = (n // SUPERSAMPLING for n in face.shape)
    pixel = np.arange(height * width).reshape(height, width)
    pixel = pixel.repeat(SUPERSAMPLING, 0).repeat(SUPERSAMPLING, 1).ravel()
    order = np.lexsort((pixel, face.ravel()))
    face, pixel = face.ravel()[order], pixel[order]
    first = np.flatnonzero(np.diff(face, prepend=-2) | np.diff(pixel, prepend=-1))
    count = np.diff(first, append=face.size).astype(np.float32)
    rays = np.add.reduceat(view.rays.reshape(3, -1)[:, order], first, axis=1) / count
    face, pixel, colour = face[first], pixel[first], np.empty_like(rays)
    for its in np.split(np.arange(first.size), np.flatnonzero(np.diff(face)) + 1):
        number, axis = divmod(int(face[its[0]]), 3)
        met = view._replace(rays=rays[:, its])
        colour[:, its] = sight[number][0].shade(axis, met) if number >= 0 else sky(met.rays)
    sums = [np.bincount(pixel, count * channel, height * width) for channel in colour]
    return np.reshape(sums, (3, height, width)) / SUPERSAMPLING**2


class Drive:
    """A street and a stereo camera that stands in it for a while, then drives along it."""

    def __init__(self, seed: int, frames: int):
        rng = np.random.default_rng(seed)
        moving = np.arange(frames) - round(STATIC_SHARE * frames)
        speed = (SPEED[0] + SPEED[1] * np.sin(moving / 9)) * np.clip(moving / 5, 0, 1)
        self.frames, self.z, self.road = frames, np.cumsum(speed), Road(rng)
        self.ground = Box((0, 1, 0), (4000, 1, 4000), 0, partial(street, centre=self.road.centre))
        self.still = list(furnish(self.road, self.z[-1] + VIEW, rng))

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

    def traffic(self, frame: int) -> Iterator[Box]:
        """Build the cars that come along the other lane, one behind the other."""
        start = 30 - TRAFFIC_SPEED * frame
        first = int((self.z[frame] - start) // TRAFFIC_GAP)
        for i in range(first, first + 3):
            yield from car(self.road, start + i * TRAFFIC_GAP, -LANE, np.pi, 5 + i)

    def render(self, frame: int, side: str, height: int,
               width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the left ("l") or the right ("r") camera sees.

        Returns:
            (H, W, 3) uint8 RGB image, and (H, W) float32 depth in metres at the middles of its
            pixels, inf in the sky.
        """
        pose = self.pose(frame)
        pose[:3, 3] += BASELINE * (side == "r") * pose[:3, 0]
        view = look(pose, height, width)
        boxes = [*self.still, *self.traffic(frame)]
        sight = [*in_sight(boxes, pose, height, width), (self.ground, (...,))]
        depth, face = trace(sight, view)
        image = develop(sight, view, face).transpose(1, 2, 0)
        own = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
        return np.rint(255 * image.clip(0, 1)).astype(np.uint8), depth[own, own]
