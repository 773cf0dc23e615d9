"""Read, convert and write the intrinsics of a pinhole camera, stored as `intrinsics.json`."""
from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.errors import DataError
from runtime.files import write_atomically

FILE_NAME = "intrinsics.json"
MAX_SIDE = 100_000  # pixels, the largest width or height accepted
LONG_BASELINE = 10.0  # metres; more than any rig has, so the number may be of millimetres
EXPECTED = ('expected {"fx": 721.5, "fy": 721.5, "cx": 609.6, "cy": 172.9, "width": 1242, '
            '"height": 375} in pixels, and "baseline" in metres for stereo pairs')


class Intrinsics(NamedTuple):
    """Intrinsics of a pinhole camera without distortion, in pixels of its images.

    The centre of the top left pixel is (0, 0), as in OpenCV's calibration.

    Attributes:
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels.
        width, height: image size, pixels.
        baseline: metres between the cameras of a rectified stereo pair; None for a single camera.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    baseline: float | None = None

    @property
    def normalised(self) -> np.ndarray:
        """K in units of the image's width and height, (4, 4) float32; 0.5 is the image centre."""
        K = np.eye(4, dtype=np.float32)
        K[0, 0], K[0, 2] = self.fx / self.width, (self.cx + 0.5) / self.width
        K[1, 1], K[1, 2] = self.fy / self.height, (self.cy + 0.5) / self.height
        return K

    @property
    def in_pixels(self) -> np.ndarray:
        """K, (4, 4) float32."""
        K = np.eye(4, dtype=np.float32)
        K[0, 0], K[0, 2], K[1, 1], K[1, 2] = self.fx, self.cx, self.fy, self.cy
        return K

    def resized(self, width: int, height: int) -> Intrinsics:
        """Return the intrinsics of the same images resized to `width` x `height`."""
        x, y = width / self.width, height / self.height
        return self._replace(fx=self.fx * x, fy=self.fy * y, cx=(self.cx + 0.5) * x - 0.5,
                             cy=(self.cy + 0.5) * y - 0.5, width=width, height=height)


def from_normalised(K: np.ndarray, width: int, height: int) -> Intrinsics:
    """Convert a normalised K, (3, 3) or (4, 4), to pixels of a `width` x `height` image."""
    return Intrinsics(float(K[0][0]) * width, float(K[1][1]) * height,
                      float(K[0][2]) * width - 0.5, float(K[1][2]) * height - 0.5, width, height)


def from_field_of_view(degrees: float, width: int, height: int) -> Intrinsics:
    """Return the intrinsics of a camera with square pixels and its principal point in the centre.

    Args:
        degrees: horizontal field of view, from the left edge to the right edge of the image.
        width: image width, pixels.
        height: image height, pixels.
    """
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def from_numbers(numbers: Sequence[float], width: int, height: int) -> Intrinsics:
    """Build the intrinsics of --intrinsics FX FY CX CY for `width` x `height` images.

    Raises:
        DataError: a value is impossible.
    """
    fields = dict(zip(Intrinsics._fields[:6], [*numbers, width, height], strict=True))
    return parse_intrinsics(json.dumps(fields).encode(), "--intrinsics")


def parse_intrinsics(content: bytes, name: str | Path) -> Intrinsics:
    """Parse and check the content of an intrinsics file.

    Args:
        content: JSON with the fields of `Intrinsics`; other fields are ignored.
        name: name of the file, for the error message.

    Raises:
        DataError: the JSON is malformed, a field is missing, or a value is impossible.
    """
    try:
        fields = json.loads(content)
        values = [fields[field] for field in Intrinsics._fields[:6]]
        baseline = fields.get("baseline")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is not an intrinsics file ({type(error).__name__}: "
                        f"{str(error)[:60]}); {EXPECTED}") from None
    numbers = values + [baseline] * (baseline is not None)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not abs(v) < 1e9
           for v in numbers):
        raise DataError(f"{name} has a value that is not a number; {EXPECTED}")
    intrinsics = Intrinsics(*map(float, values[:4]), *map(int, values[4:]),
                            None if baseline is None else float(baseline))
    if fault := _find_fault(intrinsics, values[4:]):
        raise DataError(f"{name}: {fault}; {EXPECTED}")
    warn_of_long_baseline(name, intrinsics.baseline)
    return intrinsics


@cache  # a file that many sequences share is warned of once
def warn_of_long_baseline(name: str | Path, baseline: float | None) -> None:
    """Print a warning if a baseline cannot be metres; `name` is the file or the flag it is from."""
    if baseline is not None and baseline > LONG_BASELINE:
        print(f"warning: {name}: a baseline of {baseline:g} metres makes every depth as long; if "
              f"these are millimetres, write {baseline / 1000:g}", file=sys.stderr, flush=True)


def _find_fault(intrinsics: Intrinsics, size: list[float]) -> str | None:
    """Describe an impossible value; None if all values are possible.

    Args:
        intrinsics: the values to check.
        size: width and height as written, before rounding to whole numbers.
    """
    fx, fy, cx, cy, width, height, baseline = intrinsics
    if list(size) != [width, height] or not all(1 <= s <= MAX_SIDE for s in size):
        return (f"width and height are {size[0]} and {size[1]}, expected whole numbers from 1 to "
                f"{MAX_SIDE}")
    if min(fx, fy) < 1:
        return (f"fx and fy are {fx:g} and {fy:g}; focal lengths are in pixels, not in units of "
                "the image, and larger than 1")
    if not (0 <= cx <= width and 0 <= cy <= height):
        return f"the principal point {cx:g} {cy:g} is outside the image, {width}x{height} pixels"
    if baseline is not None and baseline <= 0:
        return f"the baseline is {baseline:g}, expected metres between the cameras, above 0"
    return None


def read_intrinsics(path: str | Path) -> Intrinsics:
    """Read an intrinsics file.

    Raises:
        DataError: the file is missing, unreadable, or not an intrinsics file.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {EXPECTED}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parse_intrinsics(content, path)


def find_intrinsics(folder: str | Path, root: str | Path) -> Path:
    """Return the intrinsics file in `folder` or the nearest folder above it, up to `root`.

    Raises:
        DataError: none of these folders has an intrinsics file.
    """
    start = Path(folder)
    for place in (start, *start.parents):
        if (place / FILE_NAME).is_file():
            return place / FILE_NAME
        if place == Path(root):
            break
    raise DataError(f"{start / FILE_NAME} is missing, also in the folders above; {EXPECTED}")


def write_intrinsics(path: str | Path, intrinsics: Intrinsics) -> None:
    """Write an intrinsics file; a baseline of None is left out."""
    fields = {key: value for key, value in intrinsics._asdict().items() if value is not None}
    write_atomically(path, (json.dumps(fields, indent=2) + "\n").encode())
