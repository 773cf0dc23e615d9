"""Read ground-truth disparity of rectified stereo pairs as depth."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.intrinsics import FILE_NAME, read_intrinsics
from datasets.kitti_dataset import read_depth_png
from kitti_utils import read_calib_file
from runtime.errors import DataError

CALIBRATION = "calib_cam_to_cam"  # KITTI 2015's folder of calibrations, beside disp_occ_0
PROJECTIONS = ("P_rect_02", "P_rect_03")  # of the left and the right colour camera


def read_depth_of_disparity(path: Path) -> np.ndarray:
    """Read a disparity PNG as depth: focal length x baseline / disparity.

    Args:
        path: of a 16-bit PNG of pixels x 256, 0 = no ground truth, as in KITTI 2015's disp_occ_0.

    Returns:
        (H, W) float32 metres along the optical axis, 0 = no ground truth.

    Raises:
        DataError: the PNG or its calibration is missing or broken.
    """
    disp = read_depth_png(path)
    focal, baseline = stereo_calibration(path, disp.shape[1])
    return np.divide(focal * baseline, disp, out=np.zeros_like(disp), where=disp > 0)


def stereo_calibration(path: Path, width: int) -> tuple[float, float]:
    """Return the focal length (pixels) and the baseline (metres) of a disparity PNG.

    Args:
        path: of the PNG. KITTI 2015 has the calibration of 000000_10.png in
            ../calib_cam_to_cam/000000.txt; without this folder, the calibration is an
            `intrinsics.json` with a baseline, beside the PNG or in the folder above.
        width: of the PNG, pixels.

    Raises:
        DataError: the calibration is missing, broken or for images of another width.
    """
    kitti = path.parent.parent / CALIBRATION
    if kitti.is_dir():
        return _kitti_calibration(kitti / f"{path.stem.partition('_')[0]}.txt")
    found = [folder / FILE_NAME for folder in (path.parent, path.parent.parent)
             if (folder / FILE_NAME).is_file()]
    if not found:
        raise DataError(f"{path} has no calibration: there is neither {kitti} (KITTI 2015's, "
                        "data_scene_flow_calib.zip, 1 MB: unzip it where data_scene_flow.zip is) "
                        f"nor {path.with_name(FILE_NAME)} (docs/own_data.md)")
    intrinsics = read_intrinsics(found[0])
    if intrinsics.baseline is None:
        raise DataError(f'{found[0]} has no baseline; add "baseline": the metres between the two '
                        "cameras")
    if intrinsics.width != width:
        raise DataError(f"{path} is {width} pixels wide, {found[0]} is for {intrinsics.width}; a "
                        "disparity is valid for one size only")
    return intrinsics.fx, intrinsics.baseline


def _kitti_calibration(path: Path) -> tuple[float, float]:
    """Return focal length and baseline; P[0, 3] of a rectified camera is -f x its x position."""
    entries = read_calib_file(path)
    left, right = (entries.get(name, np.empty(0)) for name in PROJECTIONS)
    if left.size != 12 or right.size != 12 or not left[0] > 0 or not left[3] > right[3]:
        raise DataError(f"{path} has no {' and '.join(PROJECTIONS)} of a stereo pair; extract "
                        "data_scene_flow_calib.zip again")
    return float(left[0]), float((left[3] - right[3]) / left[0])
