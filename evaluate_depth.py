"""Evaluate depth: predict a split's test images, compare with ground truth, print the table."""
from __future__ import annotations

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from evaluation.results import (
    PIXELS,
    RATIO,
    compare,
    describe,
    errors_of,
    print_intervals,
    write_results,
)
from metrics.breakdown import breakdown, edge_errors, edge_mask
from metrics.depth import (
    DEPTH_METRICS,
    MAX_DEPTH,
    STEREO_SCALE_FACTOR,
    batch_post_process_disparity,
    compute_errors,
    depths_at,
    evaluated_mask,
)
from metrics.intervals import Interval, bootstrap
from options import DEPTH, MonodepthOptions
from runtime.errors import DataError, run
from runtime.files import save_array, write_atomically

if TYPE_CHECKING:  # it imports PyTorch
    from datasets.ground_truth import GroundTruth

__all__ = ["STEREO_SCALE_FACTOR", "batch_post_process_disparity", "compute_errors", "evaluate"]

BENCHMARK_SIZE = (1216, 352)  # width, height of KITTI's depth prediction test images


def measure(disps: np.ndarray, gt_depths: list[np.ndarray], *, eigen: bool = True,
            scale_factor: float = 1.0, median_scaling: bool = True,
            edges: bool = False) -> dict[str, np.ndarray]:
    """Compare disparities with ground truth, by the paper's errors and those of `breakdown`.

    Args:
        disps: (N, h, w) scaled disparities.
        gt_depths: N maps (H, W) in metres, 0 = none.
        eigen: only Eigen's crop and 1e-3 to 80 m, as the eigen split is evaluated.
        scale_factor: multiplies predicted depths.
        median_scaling: then match each image's median.
        edges: also the errors at depth edges.

    Returns:
        (N,) values by name, NaN where an image has none; the paper's seven, and the ratio of
        medians and the number of pixels, are never NaN.

    Raises:
        DataError: the numbers of maps differ, or an image has no ground truth.
    """
    if len(disps) != len(gt_depths):
        raise DataError(f"{len(disps)} predictions for {len(gt_depths)} ground truths; run "
                        "export_gt_depth.py for the same split")
    rows = []
    for i, (disp, gt_map) in enumerate(zip(disps, gt_depths, strict=True)):
        mask = evaluated_mask(gt_map, eigen)
        if not mask.any():
            raise DataError(f"ground truth {i} has no depth where it is evaluated; export it again")
        gt, pred, ratio = depths_at(gt_map, disp, mask, scale_factor, median_scaling)
        row = dict(zip(DEPTH_METRICS, compute_errors(gt, pred), strict=True)) | breakdown(gt, pred)
        if edges:
            row |= edge_errors(edge_mask(gt_map)[mask], gt, pred)
        rows.append(row | {RATIO: ratio, PIXELS: len(gt)})
    return {name: np.array([row[name] for row in rows], int if name == PIXELS else float)
            for name in rows[0]}


def evaluate(disps: np.ndarray, gt_depths: list[np.ndarray], *, eigen: bool = True,
             scale_factor: float = 1.0,
             median_scaling: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the paper's (N, 7) errors and the (N,) ratios of medians; all else as `measure`."""
    columns = measure(disps, gt_depths, eigen=eigen, scale_factor=scale_factor,
                      median_scaling=median_scaling)
    return np.stack([columns[name] for name in DEPTH_METRICS], 1), columns[RATIO]


def write_benchmark(disps: np.ndarray, folder: Path, scale_factor: float) -> None:
    """Write predictions as KITTI's server wants them: 16-bit PNGs of metres x 256.

    Args:
        disps: (N, h, w) scaled disparities.
        folder: where 0000000000.png and so on go.
        scale_factor: metres in the unit of the predicted depth.
    """
    import cv2

    from kitti_utils import DEPTH_PNG_SCALE

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
    from checkpoints.training_camera import read_training_camera
    # Faithful: stereo depth is metric, x 5.4 on KITTI, and is not scaled by the median
    return (weights and read_training_camera(weights, True).metres) or STEREO_SCALE_FACTOR


def print_table(errors: np.ndarray) -> None:
    """Print the mean of (N, 7) errors as a row of a LaTeX table."""
    print("\n  " + ("{:>8} | " * 7).format(*DEPTH_METRICS))
    print(("&{: 8.3f}  " * 7).format(*errors.mean(0)) + "\\\\")


def report(opts: Namespace, out_dir: Path, disps: np.ndarray,
           truth: GroundTruth) -> dict[str, Interval]:
    """Evaluate disparities; write results.json and results.csv, print the table last.

    Returns:
        The mean of each error, with its interval.
    """
    from datasets.splits import read_split, split_path
    factor = opts.pred_depth_scale_factor * (
        stereo_factor(opts.load_weights_folder) if opts.eval_stereo else 1)
    median_scaling = opts.eval_mono and not opts.disable_median_scaling
    columns = measure(disps, truth.depths, eigen=truth.eigen, scale_factor=factor,
                      median_scaling=median_scaling, edges=opts.edges)
    intervals = bootstrap(errors_of(columns))
    ground_truth = {"source": str(truth.source.resolve()),
                    "pixels": "Eigen's crop" if truth.eigen else "all that have depth"}
    lines = read_split(split_path(opts.eval_split, "test_files.txt"))
    try:
        write_results(out_dir, lines, columns, intervals,
                      describe(opts) | {"ground_truth": ground_truth, "scale_factor": factor})
    finally:  # what an hour of predicting found is shown, whatever the disk does
        print_intervals(intervals)
        if median_scaling:
            ratios = columns[RATIO]
            med = np.median(ratios)
            print(f" Scaling ratios | med: {med:0.3f} | std: {np.std(ratios / med):0.3f}")
        print_table(np.stack([columns[name] for name in DEPTH_METRICS], 1))
    if opts.save_figures:
        from evaluation.depth_figures import save_figures
        unit = (factor * columns[RATIO]).astype(np.float32)[:, None, None]  # metres
        save_figures(opts, out_dir, disps / unit, truth, columns["abs_rel"])
    return intervals


def finish(opts: Namespace, disps: np.ndarray,
           truth: GroundTruth | None) -> dict[str, Interval] | None:
    """Do with a weights folder's disparities what the command line says; `report` errors."""
    name = Path(opts.eval_split).name
    out_dir = Path(opts.eval_out_dir or opts.load_weights_folder
                   or Path(opts.ext_disp_to_eval).parent)
    if opts.save_pred_disps:
        path = out_dir / f"disps_{name}_split.npy"
        save_array(path, disps)
        print(f"saved scaled disparities {disps.shape} to {path}")
    if opts.no_eval:
        return None
    if truth is not None:
        return report(opts, out_dir, disps, truth)
    if opts.eval_mono:
        print("warning: KITTI's server wants metres, and monocular depth has no known scale")
    write_benchmark(disps, out_dir / "benchmark_predictions",
                    stereo_factor(opts.load_weights_folder) * opts.pred_depth_scale_factor)
    return None


def check_edges(truth: GroundTruth) -> None:
    """Raise a DataError where no image has dense ground truth with an edge."""
    if not any((edge_mask(gt) & evaluated_mask(gt, truth.eigen)).any() for gt in truth.depths):
        raise DataError("--edges needs dense ground truth, and no image has 3 x 3 pixels of depth "
                        "with an edge among them; scans have gaps: leave --edges out")


def runs_of(opts: Namespace) -> dict[int | None, Namespace]:
    """Return the options of each weights folder to evaluate, by epoch; by None if there is one."""
    from checkpoints.weights import find_weights_folders
    if opts.eval_all is None:
        return {None: opts}
    return {epoch: Namespace(**vars(opts) | {
        "load_weights_folder": str(folder),
        "eval_out_dir": opts.eval_out_dir and str(Path(opts.eval_out_dir, folder.name))})
        for epoch, folder in find_weights_folders(opts.eval_all).items()}


def report_epochs(opts: Namespace, found: dict[int, dict[str, Interval]]) -> None:
    """Print and draw the errors of a run's epochs."""
    from evaluation.depth_figures import EPOCHS, draw_epochs, save_figure
    print(f"\n  {'epoch':>8} | " + ("{:>8} | " * 7).format(*DEPTH_METRICS))
    for epoch, errors in found.items():
        means = [errors[name].mean for name in DEPTH_METRICS]
        print(f"  {epoch:>8}  " + ("&{: 8.3f}  " * 7).format(*means))
    print("the epoch with the least error here is not a result: it was chosen by the test images")
    save_figure(draw_epochs(found), Path(opts.eval_out_dir or opts.eval_all) / EPOCHS)


def main() -> None:
    """Evaluate as the command line says."""
    opts = MonodepthOptions(DEPTH).parse()
    if opts.compare:
        print(compare(*opts.compare))
        return
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from datasets.ground_truth import load_ground_truth
    from evaluation.test_set import load_disparities, predict_disparities
    from runtime.distributed import init_distributed, shut_down_distributed
    if opts.save_figures or opts.eval_all:
        pass
    world = init_distributed(opts.no_cuda)
    runs = runs_of(opts)
    compares = not opts.no_eval and Path(opts.eval_split).name != "benchmark"
    # ground truth first: what is missing is said before an hour of predicting
    truth = load_ground_truth(opts.data_path, opts.eval_split, opts.num_workers,
                              opts.gt_disparity) if compares and world.is_main else None
    if opts.edges and truth is not None:
        check_edges(truth)
    found = {}
    for epoch, own in runs.items():
        if opts.eval_all:
            world.print(f"\n{own.load_weights_folder}")
        disps = load_disparities(own) if own.ext_disp_to_eval else predict_disparities(own, world)
        if epoch == max(runs):  # the last
            shut_down_distributed()
        if world.is_main:
            found[epoch] = finish(own, disps, truth)
    if opts.eval_all and world.is_main:
        report_epochs(opts, found)


if __name__ == "__main__":
    run(main)
