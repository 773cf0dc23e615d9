"""Evaluate depth: predict a split's test images, compare with ground truth, print the table."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from metrics import (
    DEPTH_METRICS,
    MAX_DEPTH,
    STEREO_SCALE_FACTOR,
    batch_post_process_disparity,
    compute_errors,
    depth_errors,
    evaluated_mask,
)
from options import DEPTH, MonodepthOptions
from utils import DataError, run, save_array, write_atomically

__all__ = ["STEREO_SCALE_FACTOR", "batch_post_process_disparity", "compute_errors", "evaluate"]

BENCHMARK_SIZE = (1216, 352)  # width, height of KITTI's depth prediction test images


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
        mask = evaluated_mask(gt, eigen)
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
    import cv2

    from datasets.kitti_utils import DEPTH_PNG_SCALE

    def write(i: int) -> None:
        depth = (scale_factor / cv2.resize(disps[i], BENCHMARK_SIZE)).clip(0, MAX_DEPTH)
        png = cv2.imencode(".png", (depth * DEPTH_PNG_SCALE).astype(np.uint16))[1]
        write_atomically(folder / f"{i:010d}.png", png.tobytes())

    with ThreadPoolExecutor() as pool:
        written = pool.map(write, range(len(disps)))
        for _ in tqdm(written, desc="writing PNGs", total=len(disps), dynamic_ncols=True):
            pass
    print(f"wrote {len(disps)} PNGs to {folder}; zip them and upload to KITTI's depth prediction "
          "benchmark, which alone has the ground truth")


def stereo_factor(weights: str | None) -> float:
    """Return the metres in the unit of a stereo-trained folder's depth; KITTI's if it says none."""
    from camera import read_camera
    # Faithful: stereo depth is metric, x 5.4 on KITTI, and is not scaled by the median
    return (weights and read_camera(weights, True).metres) or STEREO_SCALE_FACTOR


def print_table(errors: np.ndarray) -> None:
    """Print the mean of (N, 7) errors as a row of a LaTeX table."""
    print("\n  " + ("{:>8} | " * 7).format(*DEPTH_METRICS))
    print(("&{: 8.3f}  " * 7).format(*errors.mean(0)) + "\\\\")


def main() -> None:
    """Evaluate as the command line says."""
    opts = MonodepthOptions(DEPTH).parse()
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from datasets.ground_truth import load_or_export_gt_depths
    from distributed import join_world, leave_world
    from prediction import load_disparities, predict_disparities
    if opts.save_figures:
        from figures import save_figures
    world = join_world(opts.no_cuda)
    name = Path(opts.eval_split).name
    compares = not opts.no_eval and name != "benchmark"
    # ground truth first: what is missing is said before an hour of predicting
    gt_depths = load_or_export_gt_depths(opts.data_path, opts.eval_split, opts.num_workers) if (
        compares and world.is_main) else None
    disps = load_disparities(opts) if opts.ext_disp_to_eval else predict_disparities(opts, world)
    leave_world()
    if not world.is_main:
        return
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
                        stereo_factor(opts.load_weights_folder) * opts.pred_depth_scale_factor)
        return
    factor = opts.pred_depth_scale_factor * (
        stereo_factor(opts.load_weights_folder) if opts.eval_stereo else 1)
    median_scaling = opts.eval_mono and not opts.disable_median_scaling
    errors, ratios = evaluate(disps, gt_depths, eigen=name != "eigen_benchmark",
                              scale_factor=factor, median_scaling=median_scaling)
    if median_scaling:
        med = np.median(ratios)
        print(f" Scaling ratios | med: {med:0.3f} | std: {np.std(ratios / med):0.3f}")
    print_table(errors)
    if opts.save_figures:
        unit = (factor * ratios).astype(np.float32)[:, None, None]  # metres
        save_figures(opts, out_dir, disps / unit, gt_depths, errors[:, 0])


if __name__ == "__main__":
    run(main)
