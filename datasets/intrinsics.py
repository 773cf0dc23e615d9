"""The pinhole camera of a sequence, as `intrinsics.json` holds it."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.errors import DataError
from runtime.files import write_atomically

FILE_NAME = "intrinsics.json"
MAX_SIDE = 100_000  # pixels; no image is wider or higher
EXPECTED = ('expected {"fx": 721.5, "fy": 721.5, "cx": 609.6, "cy": 172.9, "width": 1242, '
            '"height": 375} in pixels, and "baseline" in metres for stereo pairs')


class Intrinsics(NamedTuple):
    """A pinhole camera without distortion, and the images it took.

    Convention: pixels count from 0 at the centre of the top left one, as OpenCV's calibration does.

    Attributes:
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels.
        width, height: of the images, pixels.
        baseline: metres between the two cameras of a rectified stereo pair; None without one.
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
        """K in units of the image's width and height, (4, 4) float32; 0.5 is the middle."""
        K = np.eye(4, dtype=np.float32)
        K[0, 0], K[0, 2] = self.fx / self.width, (self.cx + 0.5) / self.width
        K[1, 1], K[1, 2] = self.fy / self.height, (self.cy + 0.5) / self.height
        return K

    def resized(self, width: int, height: int) -> Intrinsics:
        """Return the camera of the same images at another size."""
        x, y = width / self.width, height / self.height
        return self._replace(fx=self.fx * x, fy=self.fy * y, cx=(self.cx + 0.5) * x - 0.5,
                             cy=(self.cy + 0.5) * y - 0.5, width=width, height=height)


def from_normalised(K: np.ndarray, width: int, height: int) -> Intrinsics:
    """Return the camera with a normalised K (3, 3) or (4, 4) for images of this size."""
    return Intrinsics(float(K[0][0]) * width, float(K[1][1]) * height,
                      float(K[0][2]) * width - 0.5, float(K[1][2]) * height - 0.5, width, height)


def from_field_of_view(degrees: float, width: int, height: int) -> Intrinsics:
    """Return a camera of square pixels that looks through the middle of its images.

    Args:
        degrees: horizontal field of view, from the left edge to the right one.
        width: of the images, pixels.
        height: the same.
    """
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def from_numbers(numbers: Sequence[float], width: int, height: int) -> Intrinsics:
    """Return the camera of --intrinsics FX FY CX CY, for images of this size.

    Raises:
        DataError: no camera has such numbers.
    """
    fields = dict(zip(Intrinsics._fields[:6], [*numbers, width, height], strict=True))
    return parse_intrinsics(json.dumps(fields).encode(), "--intrinsics")


def parse_intrinsics(content: bytes, name: str | Path) -> Intrinsics:
    """Read the content of an intrinsics file.

    Args:
        content: JSON with the fields of `Intrinsics`; others are passed over.
        name: of the file, for the error.

    Raises:
        DataError: it is no such JSON, or no camera has such numbers.
    """
    try:
        fields = json.loads(content)
        values = [fields[field] for field in Intrinsics._fields[:6]]
        baseline = fields.get("baseline")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is no intrinsics file ({type(error).__name__}: "
                        f"{str(error)[:60]}); {EXPECTED}") from None
    numbers = values + [baseline] * (baseline is not None)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not abs(v) < 1e9
           for v in numbers):
        raise DataError(f"{name} has a value that is no number; {EXPECTED}")
    camera = Intrinsics(*map(float, values[:4]), *map(int, values[4:]),
                        None if baseline is None else float(baseline))
    if fault := _fault(camera, values[4:]):
        raise DataError(f"{name}: {fault}; {EXPECTED}")
    return camera


def _fault(camera: Intrinsics, size: list[float]) -> str | None:
    """Return what no camera has."""
    if list(size) != [camera.width, camera.height] or not all(1 <= s <= MAX_SIDE for s in size):
        return f"width and height are {size[0]} and {size[1]}, which are no sizes of an image"
    if min(camera.fx, camera.fy) < 1:
        return (f"fx and fy are {camera.fx:g} and {camera.fy:g}; focal lengths are in pixels, not "
                "in units of the image, and larger than 1")
    if not (0 <= camera.cx <= camera.width and 0 <= camera.cy <= camera.height):
        return (f"the principal point {camera.cx:g} {camera.cy:g} is outside of the image, "
                f"{camera.width}x{camera.height} pixels")
    if camera.baseline is not None and camera.baseline <= 0:
        return f"the baseline is {camera.baseline:g}; it is the distance of two cameras"
    return None


def read_intrinsics(path: str | Path) -> Intrinsics:
    """Read an intrinsics file.

    Raises:
        DataError: it is missing, cannot be read, or is none.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {EXPECTED}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parse_intrinsics(content, path)


def find_intrinsics(folder: str | Path, root: str | Path) -> Path:
    """Return the intrinsics file in a folder or the nearest one above it, up to `root`.

    Raises:
        DataError: there is none.
    """
    start = Path(folder)
    for place in (start, *start.parents):
        if (place / FILE_NAME).is_file():
            return place / FILE_NAME
        if place == Path(root):
            break
    raise DataError(f"{start / FILE_NAME} is missing, also in the folders above; {EXPECTED}")


def write_intrinsics(path: str | Path, camera: Intrinsics) -> None:
    """Write an intrinsics file."""
    fields = {key: value for key, value in camera._asdict().items() if value is not None}
    write_atomically(path, (json.dumps(fields, indent=2) + "\n").encode())
