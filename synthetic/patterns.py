"""Paint the surfaces of the rendered street with patterns.

A pattern turns the N samples of a `Surface` into RGB colours (3, N), roughly in [0, 1]. It averages
over each pixel: edges are soft and detail finer than a pixel fades, so that two views of the same
place agree.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

KERB, GRASS = 5.8, 8.0  # m from the centre line

OCTAVES = tuple(5.0 / 2.4**i for i in range(6))  # m, spacing of the random values of each octave
OCTAVE_WEIGHT = 0.35
LATTICE = np.random.default_rng(0).uniform(-1, 1, 1 << 16).astype(np.float32)  # 256 x 256, periodic


class Surface(NamedTuple):
    """Samples of one face of a box, in metres.

    Attributes:
        axis: axis of the box that is perpendicular to the face: 0 sides, 1 top, 2 ends.
        width: width of the face, along u.
        u: (N,) distance from the middle of the face.
        v: (N,) height above the base; on the top, distance from its middle along the box.
        du: (N,) change of u over one pixel.
        dv: (N,) change of v over one pixel.
    """

    axis: int
    width: float
    u: np.ndarray
    v: np.ndarray
    du: np.ndarray
    dv: np.ndarray


def noise(u: np.ndarray, v: np.ndarray, seed: int) -> np.ndarray:
    """Interpolate smoothly between random values in [-1, 1] at whole numbers."""
    column, row = np.floor(u), np.floor(v)
    u, v = u - column, v - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    left, top = column.astype(np.int32) + 101 * seed & 255, row.astype(np.int32) + 57 * seed & 255
    right, top, bottom = left + 1 & 255, top << 8, (top + 1 & 255) << 8
    a, b, c, d = (LATTICE.take(i) for i in (top | left, top | right, bottom | left, bottom | right))
    above = a + (b - a) * u
    return above + (c + (d - c) * u - above) * v


def grain(s: Surface, seed: int, stretch: float = 1.0) -> np.ndarray:
    """Sum octaves of noise; octaves finer than a pixel fade out. `stretch` lengthens v."""
    v, pixel = s.v / stretch, np.maximum(s.du, s.dv / stretch)
    total = np.zeros_like(s.u)
    for i, size in enumerate(OCTAVES):
        seen = np.flatnonzero(pixel < size)
        if not seen.size:
            break
        fade = np.minimum(2 - 2 * pixel[seen] / size, 1)
        total[seen] += OCTAVE_WEIGHT * fade * noise(s.u[seen] / size, v[seen] / size, seed + i)
    return total


def band(x: np.ndarray, dx: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the share of each pixel [x - dx/2, x + dx/2] that lies in [low, high]."""
    return (np.clip(x + dx / 2, low, high) - np.clip(x - dx / 2, low, high)) / dx


def stripes(x: np.ndarray, dx: np.ndarray, period: float, low: float, high: float) -> np.ndarray:
    """Return the share of each pixel that lies in a stripe [low, high], repeated every `period`."""
    def covered(x: np.ndarray) -> np.ndarray:
        whole = np.floor(x / period)
        return whole * (high - low) + np.clip(x - whole * period, low, high)
    return (covered(x + dx / 2) - covered(x - dx / 2)) / dx


def tint(colour: np.ndarray | tuple[float, ...], brightness: np.ndarray) -> np.ndarray:
    """Return a colour (3, N) at N brightnesses."""
    return np.asarray(colour, np.float32)[:, None] * brightness


def mix(below: np.ndarray, above: np.ndarray | tuple[float, ...], share: np.ndarray) -> np.ndarray:
    """Cover the colours `below` (3, N) with one colour, or N colours, by a share (N,)."""
    return below + (np.asarray(above, np.float32).reshape(3, -1) - below) * share


def plain(s: Surface, colour: np.ndarray, contrast: float, seed: int) -> np.ndarray:
    """Paint one colour with grain."""
    return tint(colour, 1 + contrast * grain(s, seed))


def facade(s: Surface, colour: np.ndarray, bay: float, storey: float, seed: int) -> np.ndarray:
    """Paint a wall with a window in every bay of every storey."""
    def opening(rim: float) -> np.ndarray:
        return (stripes(u, s.du, bay, 0.22 * bay + rim, 0.78 * bay - rim)
                * stripes(s.v, s.dv, storey, 0.28 * storey + rim, 0.8 * storey - rim))
    u, rough = s.u + s.width / 2, grain(s, seed)
    wall = tint(colour, 1 + 0.45 * rough)
    wall = mix(wall, 0.55 * colour, band(s.v, s.dv, 0, 0.7))
    wall = mix(wall, 1.25 * colour, stripes(s.v, s.dv, storey, storey - 0.25, storey))
    wall = mix(wall, (0.8, 0.78, 0.72), opening(0))
    curtain = noise(np.floor(u / bay), np.floor(s.v / storey), seed) * (s.du < bay / 2)
    glass = tint((0.22, 0.26, 0.32), 1 + 0.6 * curtain + 0.5 * rough)
    return mix(wall, glass, opening(0.14))


def bodywork(s: Surface, colour: np.ndarray, seed: int) -> np.ndarray:
    """Paint the lower box of a car: lamps and plate at its ends, wheels and doors on its sides."""
    paint = plain(s, colour, 0.25, seed)
    if s.axis == 1:
        return paint
    paint = mix(paint, (0.08, 0.08, 0.09), band(s.v, s.dv, 0, 0.22))
    if s.axis == 2:
        lamps = band(np.abs(s.u), s.du, 0.5, 0.8) * band(s.v, s.dv, 0.55, 0.72)
        plate = band(s.u, s.du, -0.26, 0.26) * band(s.v, s.dv, 0.38, 0.5)
        return mix(mix(paint, (0.9, 0.5, 0.4), lamps), (0.9, 0.9, 0.85), plate)
    paint = mix(paint, 0.4 * colour, band(np.abs(s.u - 0.1), s.du, 0.52, 0.56))
    hub, pixel = np.hypot(np.abs(s.u) - 1.3, s.v - 0.31), np.maximum(s.du, s.dv)
    for radius, grey in ((0.34, 0.06), (0.2, 0.55), (0.08, 0.15)):
        paint = mix(paint, (grey,) * 3, np.clip((radius - hub) / pixel + 0.5, 0, 1))
    return paint


def cabin(s: Surface, colour: np.ndarray, seed: int) -> np.ndarray:
    """Paint the upper box of a car: two windows on each side, one at each end."""
    rough = grain(s, seed)
    paint, glass = tint(colour, 1 + 0.25 * rough), tint((0.14, 0.17, 0.2), 1 + 0.5 * rough)
    if s.axis == 1:
        return paint
    pane = s.width / 2 if s.axis == 0 else s.width
    panes = stripes(s.u + s.width / 2, s.du, pane, 0.08, pane - 0.08)
    return mix(paint, glass, panes * band(s.v, s.dv, 0.06, 0.46))


def street(s: Surface, centre: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Paint the ground on both sides of the line u = centre(v): lanes, parking, pavement, grass."""
    s = s._replace(u=s.u - centre(s.v))
    side = np.abs(s.u)
    wear = 0.4 * grain(s, seed=90, stretch=12)
    ground = tint((0.37, 0.37, 0.39), 1 + 0.4 * grain(s, seed=30) + wear)
    dashes = band(s.u, s.du, -0.07, 0.07) * stripes(s.v, s.dv, 6, 0, 3)
    parking = band(side, s.du, 3.65, KERB) * stripes(s.v, s.dv, 6.5, 0, 0.12)
    marks = dashes + parking + band(side, s.du, 3.55, 3.65)
    ground = mix(ground, (0.85, 0.85, 0.8), np.clip(marks * (0.85 + wear), 0, 1))
    joints = np.maximum(stripes(s.v, s.dv, 0.9, 0, 0.05), stripes(side, s.du, 0.75, 0, 0.04))
    slabs = tint((0.58, 0.55, 0.5), (1 + 0.35 * grain(s, seed=50)) * (1 - 0.35 * joints))
    ground = mix(ground, slabs, band(side, s.du, KERB, np.inf))
    ground = mix(ground, (0.72, 0.71, 0.69), band(side, s.du, KERB, KERB + 0.18))
    grass = tint((0.33, 0.42, 0.18), 1 + 0.7 * grain(s, seed=70))
    return mix(ground, grass, band(side, s.du, GRASS, np.inf))


def sky(rays: np.ndarray) -> np.ndarray:
    """Paint the clouds seen along rays (3, N)."""
    azimuth, height = np.arctan2(rays[0], rays[2]), -rays[1] / np.hypot(rays[0], rays[2])
    apart = np.full_like(height, 0.1)
    clouds = grain(Surface(1, 0, 8 * azimuth, 20 * height, apart, apart), seed=120)
    blue = tint((0.62, 0.74, 0.88), 1 - 0.4 * np.clip(height, 0, 1))
    return mix(blue, (0.93, 0.94, 0.95), np.clip(0.5 + 0.9 * clouds, 0, 1))
