"""Read KITTI's calibration, velodyne scans and poses, and project scans into depth maps."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.errors import DataError, counted
from runtime.files import MAX_PIXELS, readlines

# the names that `from kitti_utils import *` gives to code written against Monodepth2
__all__ = ["generate_depth_map", "load_velodyne_points", "read_calib_file", "sub2ind"]

DEPTH_PNG_SCALE = 256.0  # KITTI's depth PNGs store metres x 256; 0 marks pixels without depth
ROTATION_TOLERANCE = 1e-2  # of R R^T - 1: files have few digits
POINT_BYTES = 16         # one velodyne point: x, y, z in metres and reflectance, each float32
# metres: a lidar's largest coordinate is between these; other types read as float32 are not
SMALLEST_SCAN, LARGEST_SCAN = 0.01, 1000.0
LOWEST_REFLECTANCE = -1.0  # the lowest number is far below if points have 3 or 5 numbers


def read_calib_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read the lines `key: numbers` of a calibration file; lines such as dates are skipped.

    Raises:
        DataError: the file is missing or not text.
    """
    calibration = {}
    for line in readlines(path):
        key, _, values = line.partition(":")
        try:
            calibration[key.strip()] = np.array([float(v) for v in values.split()])
        except ValueError:
            continue
    return calibration


def _read_calibration_entries(path: Path, **sizes: int) -> list[np.ndarray]:
    """Return the calibration entries named by `sizes`, whose values are the expected lengths.

    Raises:
        DataError: an entry is missing, has another length, or is not finite.
    """
    found = read_calib_file(path)
    for key, size in sizes.items():
        if key not in found or found[key].size != size or not np.isfinite(found[key]).all():
            raise DataError(f"{path} has no {key} of {size} finite numbers; extract the date's "
                            "calibration again (<date>_calib.zip)")
    return [found[key] for key in sizes]


def load_velodyne_points(filename: str | Path) -> np.ndarray:
    """Read a velodyne scan as (N, 4) homogeneous points: x forward, y left, z up, in metres.

    Raises:
        DataError: the file is missing, or does not hold the float32 points of a lidar.
    """
    try:
        content = np.fromfile(filename, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{filename} is missing; extract the drive's velodyne_points "
                        "(<drive>_sync.zip)") from None
    except OSError as error:
        raise DataError(f"{filename} cannot be read: {error}") from None
    if fault := _find_scan_fault(content):
        raise DataError(f"{filename} {fault}; extract it again, or write it as float32: x, y, z "
                        "in metres and reflectance of each point")
    points = content.view(np.float32).reshape(-1, 4)
    points[:, 3] = 1
    return points


@np.errstate(invalid="ignore")  # of bit patterns that are no numbers
def _find_scan_fault(content: np.ndarray) -> str | None:
    """Describe why bytes are not the points of a scan; None if they are."""
    if content.size == 0 or content.size % POINT_BYTES:
        is_text = content.size and _is_text(content)
        return (f"has {content.size} bytes{' of text' if is_text else ''}, expected a multiple of "
                f"{POINT_BYTES} (whole points)")
    points = content.view(np.float32).reshape(-1, 4)
    # of all values at once, which takes a twentieth of the time that columns take
    if SMALLEST_SCAN < max(points.max(), -points.min()) < LARGEST_SCAN:
        lowest = points[:, 3].min()
        return None if lowest >= LOWEST_REFLECTANCE else (
            f"has {lowest:g} as a reflectance, as if its points had 3 or 5 numbers each")
    if _is_text(content):
        return "is text"
    doubles = abs(content.view(np.float64))
    if doubles.max(initial=0) < LARGEST_SCAN and np.median(doubles) > SMALLEST_SCAN:
        return "has numbers of 64 bits"
    if not np.isfinite(points).all():
        return "has points that are not finite"
    largest = abs(points[:, :3]).max()  # reflectance may have any range
    if largest == 0 or SMALLEST_SCAN < largest < LARGEST_SCAN:
        return None
    return f"has {largest:g} m as its largest coordinate, which no lidar measures"


def _is_text(content: np.ndarray) -> bool:
    """Return whether bytes are ASCII text; a number of a scan has zeros or other bytes too."""
    return content.tobytes().isascii() and content.all()


def sub2ind(matrixSize: tuple[int, int], rowSub: np.ndarray, colSub: np.ndarray) -> np.ndarray:
    """Return rowSub * (n - 1) + colSub - 1 for a matrix of n columns, as KITTI's matlab code does.

    Two entries of a matrix can share such an index: row r, column n - 1, and row r + 1, column 0.
    """
    return rowSub * (matrixSize[1] - 1) + colSub - 1


def generate_depth_map(calib_dir: str | Path, velo_filename: str | Path, cam: int = 2,
                       vel_depth: bool = False) -> np.ndarray:
    """Project a velodyne scan into a colour camera.

    Args:
        calib_dir: folder of a date, with calib_cam_to_cam.txt and calib_velo_to_cam.txt.
        velo_filename: the scan.
        cam: 2 (left) or 3 (right).
        vel_depth: store the scanner's forward distance instead of the camera's z.

    Returns:
        (H, W) float32 metres, 0 at pixels without a point.

    Raises:
        DataError: a file is missing or incomplete.
    """
    calib_dir = Path(calib_dir)
    velo_to_image, shape = _read_projection(calib_dir, cam)
    points = load_velodyne_points(velo_filename)
    points = points[_find_visible_points(points, velo_to_image, shape)]
    u, v, z = _project(points, velo_to_image)
    in_front = z > 0
    pixels = np.stack([v[in_front], u[in_front]]) / z[in_front]            # (2, N) row, column
    # Faithful: eigen's ground truth is the scanner's forward distance, not the camera's z
    depth = (points[:, 0] if vel_depth else z)[in_front]                   # (N,)
    return nearest_returns(pixels, depth, shape)


@np.errstate(all="ignore")  # of numbers that are too large
def are_rotations(R: np.ndarray) -> np.ndarray:
    """Return whether each matrix of (..., 3, 3) is a rotation, as exactly as files state it."""
    difference = abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max((-2, -1))
    return (difference < ROTATION_TOLERANCE) & (np.linalg.det(R) > 0)


def _read_projection(calib_dir: Path, cam: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the (3, 4) projection from velodyne to camera `cam`, and its image size (H, W)."""
    path = calib_dir / "calib_cam_to_cam.txt"
    size, R_rect, P_rect = _read_calibration_entries(
        path, **{"S_rect_02": 2, "R_rect_00": 9, f"P_rect_0{cam}": 12})
    R, t = _read_calibration_entries(calib_dir / "calib_velo_to_cam.txt", R=9, T=3)
    for rotation, file in (R, "calib_velo_to_cam.txt"), (R_rect, path.name):
        if not are_rotations(rotation.reshape(3, 3)):
            raise DataError(f"{calib_dir / file} has a matrix R that is no rotation; extract the "
                            "date's calibration again (<date>_calib.zip)")
    velo_to_cam, rectify = np.eye(4), np.eye(4)
    velo_to_cam[:3, :3], velo_to_cam[:3, 3] = R.reshape(3, 3), t
    rectify[:3, :3] = R_rect.reshape(3, 3)
    if not (size.min() >= 1 and size.prod() <= MAX_PIXELS):
        raise DataError(f"{path} has an S_rect_02 of {size[0]:g}x{size[1]:g} pixels, expected 1 to "
                        f"{MAX_PIXELS:,} pixels; extract the date's calibration again "
                        "(<date>_calib.zip)")
    width, height = map(int, size)
    return P_rect.reshape(3, 4) @ rectify @ velo_to_cam, (height, width)


def _project(points: np.ndarray, matrix: np.ndarray) -> list[np.ndarray]:
    """Return the rows of `matrix` (3, 4) @ `points` (N, 4), in the precision of `matrix`."""
    # written out because @ starts threads, which compete with the loader's other processes
    x, y, z = points[:, :3].T.astype(matrix.dtype, order="C")
    return [a * x + b * y + c * z + d for a, b, c, d in matrix]


def _find_visible_points(points: np.ndarray, velo_to_image: np.ndarray,
                         shape: tuple[int, int]) -> np.ndarray:
    """Return the indices of the points (N, 4) ahead that fall into the image or right beside it.

    About a fifth of a scan remains. Single precision makes this first selection faster.
    """
    u, v, z = _project(points, velo_to_image.astype(np.float32))
    margin = z + 1  # one pixel and, for small z, more than the rounding error of float32
    return np.flatnonzero((points[:, 0] >= 0)
                          & (v > -margin) & (v < shape[0] * z + margin)
                          & (u > -margin) & (u < shape[1] * z + margin))


def nearest_returns(pixels: np.ndarray, depth: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Draw points into a depth map; of several points at one pixel the nearest wins.

    Args:
        pixels: (2, N) row and column of each point, counted from 1.
        depth: (N,) metres.
        shape: (H, W) of the map.

    Returns:
        (H, W) float32 metres, 0 at pixels without a point.
    """
    # Faithful: rounded, then minus 1, since KITTI's matlab code counts pixels from 1
    rows, columns = np.round(pixels) - 1
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    index = (rows * shape[1] + columns)[inside].astype(int)
    depth = depth[inside]
    farthest_first = np.argsort(-depth)  # the last assignment to a pixel wins: the nearest point
    nearest = np.zeros(shape[0] * shape[1], np.float32)
    nearest[index[farthest_first]] = depth[farthest_first]
    return nearest.reshape(shape)


def read_poses(path: str | Path) -> np.ndarray:
    """Read KITTI odometry poses: 12 numbers a line, camera to world.

    Returns:
        (N, 4, 4) float64, metres.

    Raises:
        DataError: the file is missing or empty, or a line (named) does not have 12 numbers.
    """
    poses = []
    for number, line in enumerate(readlines(path), 1):
        if not line.strip():
            continue
        try:
            pose = np.array([float(v) for v in line.split()]).reshape(3, 4)
        except ValueError:
            pose = np.array(np.nan)
        if not np.isfinite(pose).all():
            raise DataError(f"{path}, line {number}: expected the 12 numbers of a pose, found "
                            f"{counted(len(line.split()), 'word')}, {line[:60]!r}; extract the "
                            "poses again (data_odometry_poses.zip)")
        poses.append(pose)
    if not poses:
        raise DataError(f"{path} is empty; expected poses of 12 numbers a line")
    last_rows = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(poses), 1, 4))
    return np.concatenate([np.stack(poses), last_rows], 1)
