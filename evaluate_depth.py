"""Evaluate depth: predict a split's test images, compare with ground truth, print the table."""
from __future__ import annotations

import zipfile
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoints import load_model
from datasets import as_float, dataset_class
from datasets.ground_truth import load_or_export_gt_depths
from datasets.kitti_utils import DEPTH_PNG_SCALE
from datasets.splits import eigen_to_benchmark_ids, read_split, split_path
from layers import disp_to_depth
from metrics import (
    DEPTH_METRICS,
    MAX_DEPTH,
    STEREO_SCALE_FACTOR,
    batch_post_process_disparity,
    compute_errors,
    depth_errors,
    eigen_mask,
)
from options import DEPTH, MonodepthOptions
from utils import DataError, check_data_path, get_device, run, save_array, write_atomically

__all__ = ["STEREO_SCALE_FACTOR", "batch_post_process_disparity", "compute_errors", "evaluate"]

BENCHMARK_SIZE = (1216, 352)  # width, height of KITTI's depth prediction test images


@torch.no_grad()
def predict(opts: Namespace) -> np.ndarray:
    """Return the (N, h, w) scaled disparities of the split's test images, at network size."""
    check_data_path(opts.data_path)
    device = get_device(opts.no_cuda)
    model, (height, width, use_stereo) = load_model(opts.load_weights_folder, device=device)
    if opts.eval_stereo and not use_stereo:
        print(f"warning: {opts.load_weights_folder} was trained without stereo, so its depth has "
              "no known scale; --eval_mono finds one for each image")
    kind = "kitti_test" if Path(opts.eval_split).name == "benchmark" else opts.dataset
    lines = read_split(split_path(opts.eval_split, "test_files.txt"))
    dataset = dataset_class(kind)(opts.data_path, lines, height, width, [0], 1,
                                  img_ext=".png" if opts.png else ".jpg", load_depth=False)
    loader = DataLoader(dataset, opts.batch_size, num_workers=opts.num_workers)
    disps = []
    for batch in tqdm(loader, desc=f"predicting at {width}x{height}", dynamic_ncols=True):
        images = as_float(batch["color", 0, 0].to(device))
        if opts.post_process:
            images = torch.cat([images, images.flip(3)])
        disp = disp_to_depth(model.disparity(images), opts.min_depth, opts.max_depth)[0]
        disp = disp[:, 0].cpu().numpy()
        if opts.post_process:
            plain, mirrored = np.split(disp, 2)
            disp = batch_post_process_disparity(plain, mirrored[:, :, ::-1])
        disps.append(disp)
    return np.concatenate(disps)


def load_disparities(opts: Namespace) -> np.ndarray:
    """Read --ext_disp_to_eval: (N, h, w) scaled disparities, one per test image.

    Raises:
        DataError: the file is missing, is no .npy, or has another shape.
    """
    path = opts.ext_disp_to_eval
    try:
        disps = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"--ext_disp_to_eval {path} does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path} cannot be read as a .npy array; expected what np.save writes of "
                        "floats") from None
    split = "eigen" if opts.eval_eigen_to_benchmark else opts.eval_split
    expected = len(read_split(split_path(split, "test_files.txt")))
    shape = getattr(disps, "shape", ())
    if len(shape) != 3 or 0 in shape or shape[0] != expected or disps.dtype.kind != "f":
        raise DataError(f"{path} is {getattr(disps, 'dtype', 'an archive')} of shape {shape}; "
                        f"expected floats of shape ({expected}, height, width), a map for each "
                        f"image of the {split} split")
    disps = disps.astype(np.float32)
    return disps[eigen_to_benchmark_ids()] if opts.eval_eigen_to_benchmark else disps


def evaluate(disps: np.ndarray, gt_depths: list[np.ndarray], *, eigen: bool = True,
             scale_factor: float = 1.0,
             median_scaling: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Compare disparities with ground truth.

    Args:
        disps: (N, h, w) scaled disparities.
        gt_depths: N maps (H, W) in metres, 0 = none.
        eigen: only Eigen's crop and 1e-3 to 80 m, as the eigen split is evaluated.
        scale_factor: multiplies predicted depths.
        median_scaling: then match each image's median.

    Returns:
        (N, 7) errors and (N,) ratios of medians.

    Raises:
        DataError: the numbers of maps differ, or an image has no ground truth.
    """
    if len(disps) != len(gt_depths):
        raise DataError(f"{len(disps)} predictions for {len(gt_depths)} ground truths; run "
                        "export_gt_depth.py for the same split")
    errors, ratios = [], []
    for i, (disp, gt) in enumerate(zip(disps, gt_depths, strict=True)):
        mask = eigen_mask(gt) if eigen else gt > 0
        if not mask.any():
            raise DataError(f"ground truth {i} has no depth where it is evaluated; export it again")
        error, ratio = depth_errors(gt, disp, mask, scale_factor, median_scaling)
        errors.append(error)
        ratios.append(ratio)
    return np.array(errors), np.array(ratios)


def write_benchmark(disps: np.ndarray, folder: Path, scale_factor: float) -> None:
    """Write predictions as KITTI's server wants them: 16-bit PNGs of metres x 256.

    Args:
        disps: (N, h, w) scaled disparities.
        folder: where 0000000000.png and so on go.
        scale_factor: metres in the unit of the predicted depth.
    """
    for i, disp in enumerate(tqdm(disps, desc="writing PNGs", dynamic_ncols=True)):
        depth = (scale_factor / cv2.resize(disp, BENCHMARK_SIZE)).clip(0, MAX_DEPTH)
        png = cv2.imencode(".png", (depth * DEPTH_PNG_SCALE).astype(np.uint16))[1]
        write_atomically(folder / f"{i:010d}.png", png.tobytes())
    print(f"wrote {len(disps)} PNGs to {folder}; zip them and upload to KITTI's depth prediction "
          "benchmark, which alone has the ground truth")


def print_table(errors: np.ndarray) -> None:
    """Print the mean of (N, 7) errors as a row of a LaTeX table."""
    print("\n  " + ("{:>8} | " * 7).format(*DEPTH_METRICS))
    print(("&{: 8.3f}  " * 7).format(*errors.mean(0)) + "\\\\")


def main() -> None:
    """Evaluate as the command line says."""
    opts = MonodepthOptions(DEPTH).parse()
    name = Path(opts.eval_split).name
    compares = not opts.no_eval and name != "benchmark"
    # ground truth first: what is missing is said before an hour of predicting
    gt_depths = load_or_export_gt_depths(opts.data_path, opts.eval_split) if compares else None
    disps = load_disparities(opts) if opts.ext_disp_to_eval else predict(opts)
    out_dir = Path(opts.eval_out_dir or opts.load_weights_folder
                   or Path(opts.ext_disp_to_eval).parent)
    if opts.save_pred_disps:
        path = out_dir / f"disps_{name}_split.npy"
        save_array(path, disps)
        print(f"saved scaled disparities {disps.shape} to {path}")
    if opts.no_eval:
        return
    if not compares:
        if opts.eval_mono:
            print("warning: KITTI's server wants metres, and monocular depth has no known scale")
        write_benchmark(disps, out_dir / "benchmark_predictions",
                        STEREO_SCALE_FACTOR * opts.pred_depth_scale_factor)
        return
    # Faithful: stereo depth is metric, x 5.4, and is not scaled by the median
    factor = opts.pred_depth_scale_factor * (STEREO_SCALE_FACTOR if opts.eval_stereo else 1)
    median_scaling = opts.eval_mono and not opts.disable_median_scaling
    errors, ratios = evaluate(disps, gt_depths, eigen=name != "eigen_benchmark",
                              scale_factor=factor, median_scaling=median_scaling)
    if median_scaling:
        med = np.median(ratios)
        print(f" Scaling ratios | med: {med:0.3f} | std: {np.std(ratios / med):0.3f}")
    print_table(errors)


if __name__ == "__main__":
    run(main)
