"""Read the disparities that another program predicted, and refuse what cannot be disparities."""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from datasets.ground_truth import LIST_NAME, GroundTruth, list_pngs, read_archive
from datasets.kitti_dataset import read_depth_png
from datasets.splits import eigen_to_benchmark_ids, read_split, split_path
from evaluation.test_set import TestSet
from metrics.alignment import SMALLEST
from metrics.depth import depths_at, evaluated_mask
from runtime.errors import DataError, counted
from runtime.files import read_array

EXPECTED = ("expected floats written by np.save or np.savez, or a folder of 16-bit PNGs of "
            "disparity x 256")
SAMPLED = 20  # images that `warn_of_depth` looks at
DEPTH_CORRELATION = -0.3  # with the truth, in logs; disparities give about 0.9, depths -0.9


def read_disparities(opts: Namespace, test_set: TestSet) -> np.ndarray:
    """Read --ext_disp_to_eval: (N, h, w) scaled disparities, one for each test image.

    Raises:
        DataError: the file is missing or broken, has another shape, or has values that are not
            finite and above 0.
    """
    path, split, lines = opts.ext_disp_to_eval, opts.eval_split, test_set.lines
    if opts.eval_eigen_to_benchmark:
        split, lines = "eigen", read_split(split_path("eigen", LIST_NAME))
    disps = _read_maps(Path(path))
    if disps.ndim != 3 or 0 in disps.shape or len(disps) != len(lines) or disps.dtype.kind != "f":
        cure = "; divide whole numbers by their factor" if disps.dtype.kind in "iu" else ""
        raise DataError(f"{path} is {disps.dtype} of shape {disps.shape}; "
                        f"expected floats of shape ({len(lines)}, height, width), a map for each "
                        f"image of the {split} split{cure}")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which is refused
        disps = disps.astype(np.float32)
    _check_values(path, disps, lines)
    return disps[eigen_to_benchmark_ids()] if opts.eval_eigen_to_benchmark else disps


def _read_maps(path: Path) -> np.ndarray:
    """Read the array of a .npy, the only array or the maps of a .npz, or the PNGs of a folder."""
    try:
        if path.is_dir():
            return _stack(path, [read_depth_png(png) for png in list_pngs(path)])
        content = path.read_bytes()
        if content[:2] != b"PK":
            return np.asarray(read_array(content))
        arrays = list(read_archive(path).values())
    except FileNotFoundError:
        raise DataError(f"--ext_disp_to_eval {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a .npy array ({error}); {EXPECTED}") from None
    return arrays[0] if len(arrays) == 1 and arrays[0].ndim == 3 else _stack(path, arrays)


def _stack(path: Path, maps: list[np.ndarray]) -> np.ndarray:
    """Stack the maps of a .npz or a folder to one array."""
    shapes = sorted({image.shape for image in maps})
    if not shapes:
        raise DataError(f"{path} has no maps; {EXPECTED}")
    if len(shapes) > 1:
        raise DataError(f"{path} has maps of shapes {shapes[0]} and {shapes[1]}; expected maps of "
                        "one size")
    return np.stack(maps)


def _check_values(path: str, disps: np.ndarray, lines: list[str]) -> None:
    """Raise a DataError that names the first of the images with impossible disparities."""
    # such pixels would get the nearest or the farthest depth, or errors that are NaN
    wrong = [i for i, disp in enumerate(disps)
             if not SMALLEST <= disp.min() <= disp.max() < np.inf]
    if wrong:
        first = disps[wrong[0]]
        values = first[~((first >= SMALLEST) & (first < np.inf))]
        raise DataError(f"{path} has values that are no disparities in "
                        f"{counted(len(wrong), 'image')}; the first is image {wrong[0]} "
                        f"({lines[wrong[0]]}), with {values.size} of {first.size} pixels, such as "
                        f"{values[0]:g}; expected finite values above 0")


@np.errstate(invalid="ignore", divide="ignore")  # of ground truth that is infinite or missing
def warn_of_depth(path: str, disps: np.ndarray, truth: GroundTruth) -> None:
    """Print a warning if values grow with the true depth, as depth does and disparity does not."""
    logs = []
    for disp, gt in list(zip(disps, truth.depths, strict=False))[::-(-len(disps) // SAMPLED)]:
        mask = evaluated_mask(gt, truth.eigen)
        if mask.any():
            found = np.log(depths_at(gt, disp, mask, alignment="none")[:2])    # (2, pixels)
            logs.append(found - found.mean(1, keepdims=True))  # images may differ in scale
    if not logs:
        return
    true, own = np.concatenate(logs, 1)
    if (true * own).mean() < DEPTH_CORRELATION * true.std() * own.std():
        print(f"warning: the values of {path} grow with the true depth, so they look like depth; "
              "disparity is 1 / depth")
