"""Evaluate depth: predict the test images, measure the errors, write results and the table."""
from __future__ import annotations

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from checkpoints.architecture import read_input_format
from checkpoints.frames_seen import FramesSeen, describe_list, find_leak, read_frames_seen
from checkpoints.weights import find_weights_folders
from datasets.ground_truth import GroundTruth
from evaluation.disparities import read_disparities, warn_of_depth
from evaluation.results import (
    FIXED,
    JSON_NAME,
    PIXELS,
    RATIO,
    SHIFT,
    chosen_alignment,
    compute_intervals,
    describe_evaluation,
    evaluation_name,
    print_intervals,
    write_results,
)
from evaluation.test_set import (
    TestSet,
    asked_extension,
    is_benchmark,
    load_batches,
    read_test_set,
)
from kitti_utils import DEPTH_PNG_SCALE
from metrics.alignment import Alignment, describe_alignment
from metrics.boundaries import boundary_f1
from metrics.breakdown import breakdown, edge_errors, edge_mask, surface_mask
from metrics.clouds import back_project, cloud_errors, normal_angle
from metrics.depth import (
    DEPTH_METRICS,
    MAX_DEPTH,
    MIN_DEPTH,
    STEREO_SCALE_FACTOR,
    compute_errors,
    depths_at,
    evaluated_mask,
)
from metrics.intervals import Interval
from prediction.predictor import Predictor
from runtime.distributed import World, init_distributed, shut_down_distributed
from runtime.errors import DataError, counted
from runtime.files import (
    check_data_path,
    check_out_dir,
    save_array,
    write_atomically,
)

BENCHMARK_SIZE = (1216, 352)  # width, height of KITTI's depth prediction test images


class Predicted(NamedTuple):
    """Hold the disparities of the test images: predicted by a weights folder, or given.

    Attributes:
        disps: (N, h, w) scaled disparities.
        metres: per unit of the predicted depth after stereo training.
    """

    disps: np.ndarray
    metres: float


def evaluate_depth(opts: Namespace) -> None:
    """Evaluate a weights folder, all weights folders of a run, or given disparities.

    Args:
        opts: flags of evaluate_depth.py.

    Raises:
        DataError: a file is missing or broken, or cannot be written.
    """
    if opts.save_figures or opts.eval_all:
        import evaluation.depth_figures  # noqa: F401 - fails before an hour of prediction
    world = init_distributed(opts.no_cuda)
    runs = options_by_epoch(opts)
    # faults of folders and of ground truth are reported before an hour of prediction
    if opts.eval_out_dir and world.is_main and not opts.ext_disp_to_eval:
        check_out_dir(opts.eval_out_dir)
    test_set = read_test_set(
        opts, with_truth=world.is_main and not opts.no_eval and not is_benchmark(opts))
    if opts.edges and test_set.truth is not None:
        check_edges(test_set.truth)
    if opts.clouds:
        test_set.cameras()  # raises if intrinsics are missing
    errors = {}
    for epoch, own in runs.items():
        if opts.eval_all:
            world.print(f"\n{own.load_weights_folder}")
        weights = own.load_weights_folder
        seen = read_frames_seen(weights) if weights and world.is_main else None
        predicted = predict(own, test_set, world)
        if epoch == max(runs):
            shut_down_distributed()  # only the main process goes on
        if world.is_main:
            errors[epoch] = measure_and_write(own, test_set, predicted, seen)
    if opts.eval_all and world.is_main:
        write_epochs(opts, errors)


def options_by_epoch(opts: Namespace) -> dict[int | None, Namespace]:
    """Return the options for each weights folder of --eval_all by epoch; else {None: opts}."""
    if opts.eval_all is None:
        return {None: opts}
    return {epoch: Namespace(**vars(opts) | {
        "load_weights_folder": str(folder),
        "eval_out_dir": opts.eval_out_dir and str(Path(opts.eval_out_dir, folder.name))})
        for epoch, folder in find_weights_folders(opts.eval_all).items()}


def check_edges(truth: GroundTruth) -> None:
    """Raise a DataError if no image has dense ground truth with an edge."""
    if not any((edge_mask(gt) & evaluated_mask(gt, truth.eigen)).any() for gt in truth.depths):
        raise DataError("--edges needs dense ground truth, and no image has 3 x 3 pixels of depth "
                        "with an edge among them; scans have gaps: leave --edges out")


def predict(opts: Namespace, test_set: TestSet, world: World) -> Predicted | None:
    """Predict the disparities of the test images, or read --ext_disp_to_eval.

    Every process predicts its share of the images.

    Returns:
        All disparities in the main process, None in the others.

    Raises:
        DataError: the weights, an image or the disparities are missing or broken.
    """
    if opts.ext_disp_to_eval:
        disps = read_disparities(opts, test_set)
        if test_set.truth is not None:
            warn_of_depth(opts.ext_disp_to_eval, disps, test_set.truth)
        return Predicted(disps, STEREO_SCALE_FACTOR)
    check_data_path(opts.data_path)
    height, width, _ = read_input_format(opts.load_weights_folder)
    dataset = test_set.dataset(height, width)
    batches = load_batches(dataset, opts, world)  # its workers are forked before the networks load
    predictor = Predictor(opts.load_weights_folder, world.device, opts.min_depth, opts.max_depth)
    if opts.eval_stereo and not predictor.use_stereo and not predictor.training_camera.metres:
        world.print(f"warning: {opts.load_weights_folder} was trained without stereo, so its depth "
                    "has no known scale; --eval_mono finds one for each image")
    if predictor.training_camera.training == "mono+speed" and chosen_alignment(opts) == "median":
        world.print("note: these weights were trained with speed, so they know metres; --eval_mono "
                    "scales them away, --disable_median_scaling evaluates them")
    if dataset.img_ext != asked_extension(opts):
        world.print(f"the images of {opts.data_path} are {dataset.img_ext}, and are read as such")
    predictor.keep_freed_memory()
    disps = [np.empty((0, height, width), np.float32)]
    for batch in batches:
        disps.append(predictor.scaled_disparity(batch["color", 0, 0], opts.post_process))
    disps = world.gather_on_main(np.concatenate(disps))
    # Faithful: stereo depth is metric, x 5.4 on KITTI, and is not scaled by the median
    metres = predictor.training_camera.metres or STEREO_SCALE_FACTOR
    return Predicted(disps, metres) if world.is_main else None


def measure_and_write(opts: Namespace, test_set: TestSet, predicted: Predicted,
                      seen: FramesSeen | None) -> dict[str, Interval] | None:
    """Measure the errors of predicted disparities and write every output that the flags ask for.

    Args:
        opts: flags of the evaluation.
        test_set: the test images and their ground truth.
        predicted: disparities of the test images.
        seen: what training read; None if unknown.

    Returns:
        The mean of each error with its interval; None without ground truth.

    Raises:
        DataError: an output cannot be written, or an image has no evaluated pixel.
    """
    folder = Path(opts.eval_out_dir or opts.load_weights_folder
                  or Path(opts.ext_disp_to_eval).parent)
    if opts.save_pred_disps:
        path = folder / f"disps_{Path(opts.eval_split).name}_split.npy"
        save_array(path, predicted.disps)
        print(f"saved scaled disparities {predicted.disps.shape} to {path}")
    if opts.no_eval:
        return None
    if test_set.truth is None:
        if not opts.eval_stereo:
            print("warning: KITTI's server wants metres, and monocular depth has no known scale")
        write_benchmark(folder / "benchmark_predictions", predicted.disps,
                        predicted.metres * opts.pred_depth_scale_factor)
        return None
    factor = opts.pred_depth_scale_factor * (predicted.metres if opts.eval_stereo else 1)
    alignment = chosen_alignment(opts)
    columns = measure_errors(
        predicted.disps, test_set.truth.depths, eigen=test_set.truth.eigen, scale_factor=factor,
        alignment="none" if alignment == FIXED else alignment,
        max_depth=test_set.truth.max_depth, edges=opts.edges,
        cameras=test_set.cameras() if opts.clouds else None)
    intervals = write_errors(opts, folder, test_set, columns, factor, seen)
    if opts.save_figures:
        from evaluation.depth_figures import save_figures  # matplotlib takes a second to import
        fits = [Alignment(alignment, *fit) for fit in zip(
            columns[RATIO].tolist(), columns[SHIFT].tolist(), strict=True)]
        aligned = [1 / fit.apply(factor / disp).clip(MIN_DEPTH)  # affine depth can be below 0
                   for fit, disp in zip(fits, predicted.disps, strict=True)]
        save_figures(folder, evaluation_name(opts), test_set, np.stack(aligned), columns["abs_rel"])
    return intervals


def measure_errors(disps: np.ndarray, gt_depths: list[np.ndarray], *, eigen: bool = True,
                   scale_factor: float = 1.0, alignment: str = "median",
                   max_depth: float = MAX_DEPTH, edges: bool = False,
                   cameras: list[np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Measure the paper's errors and the errors of `breakdown` for each image.

    Args:
        disps: (N, h, w) scaled disparities.
        gt_depths: N maps (H, W), metres, 0 = no ground truth.
        eigen: evaluate only Eigen's crop and 1e-3 to 80 m, as on the eigen split.
        scale_factor: multiplies the predicted depth.
        alignment: of each predicted depth with its ground truth afterwards, one of `ALIGNMENTS`.
        max_depth: metres that the aligned depth is limited to.
        edges: also measure the errors at depth edges, and the boundary F1.
        cameras: N normalised K, with which point clouds and normals are compared too.

    Returns:
        (N,) values by name, NaN if an image has no value; the paper's seven errors, the scale and
        the shift of the alignment and the number of pixels always have a value.

    Raises:
        DataError: the numbers of maps differ, or an image has no evaluated pixel.
    """
    if len(disps) != len(gt_depths):
        raise DataError(f"{counted(len(disps), 'prediction')} for "
                        f"{counted(len(gt_depths), 'ground truth')}; run "
                        "export_gt_depth.py for the same split")
    rows = []
    for i, (disp, gt_map) in enumerate(zip(disps, gt_depths, strict=True)):
        mask = evaluated_mask(gt_map, eigen)
        if not mask.any():
            raise DataError(f"ground truth {i} has no depth where it is evaluated; export it "
                            "again, or look at its mask in --mask_dir")
        gt, pred, fit = depths_at(gt_map, disp, mask, scale_factor, alignment, max_depth)
        row = dict(zip(DEPTH_METRICS, compute_errors(gt, pred), strict=True))
        row |= breakdown(gt, pred, max_depth)
        if edges:
            is_edge = edge_mask(gt_map)[mask]
            row |= edge_errors(is_edge, gt, pred)
            # also in a scan, a few neighbours have depth by chance
            row["boundary_f1"] = (
                boundary_f1(*maps_of(mask, gt, pred)) if is_edge.any() else float("nan"))
        if cameras:
            row |= measure_points(*maps_of(mask, gt, pred), cameras[i])
        rows.append(row | {RATIO: fit.scale, SHIFT: fit.shift, PIXELS: len(gt)})
    return {name: np.array([row[name] for row in rows], int if name == PIXELS else float)
            for name in rows[0]}


def maps_of(mask: np.ndarray, gt: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Return the true and the predicted depth (N,) as maps (2, H, W), 0 where `mask` is false."""
    maps = np.zeros((2, *mask.shape))
    maps[:, mask] = gt, pred
    return maps


def measure_points(gt: np.ndarray, pred: np.ndarray, K: np.ndarray) -> dict[str, float]:
    """Measure the errors of point clouds and of surface normals of an image.

    Args:
        gt: (H, W) true depth, metres, 0 where it is not evaluated.
        pred: (H, W) predicted depth, metres.
        K: normalised intrinsics.
    """
    points = [back_project(depth, K) for depth in (gt, pred)]
    clouds = cloud_errors(*(each[gt > 0] for each in points))
    return clouds | {"normal_angle": normal_angle(*points, surface_mask(gt))}


def write_errors(opts: Namespace, folder: Path, test_set: TestSet, columns: dict[str, np.ndarray],
                 factor: float, seen: FramesSeen | None) -> dict[str, Interval]:
    """Write the results; print the leak, the alignment, the intervals and, last, the paper's table.

    Args:
        opts: flags of the evaluation.
        folder: where the two files go.
        test_set: the test images.
        columns: (N,) values by name, as `measure_errors` returns them.
        factor: that multiplied the predicted depth.
        seen: what training read; None if unknown.

    Returns:
        The mean of each error with its interval.
    """
    intervals, resampled = compute_intervals(test_set.lines, columns)
    truth = test_set.truth
    ground_truth = {"kind": truth.kind, "source": str(truth.source.resolve()),
                    "pixels": "Eigen's crop" if truth.eigen else "all that have depth"}
    leak = find_leak(seen, test_set.layout, test_set.lines)
    print(leak.describe())
    lists = {"test": describe_list(opts.eval_split, test_set.lines),
             "training": seen and seen.lists}
    origin = describe_evaluation(opts) | {
        "lists": lists, "ground_truth": ground_truth, "scale_factor": factor,
        "seen_in_training": leak._asdict()}
    alignment = chosen_alignment(opts)
    try:
        write_results(folder / JSON_NAME.format(evaluation_name(opts)), test_set.lines, columns,
                      intervals, resampled, origin)
    finally:  # a full disk must not hide the errors of an hour of prediction
        print_intervals(intervals, resampled, alignment)
        print(f"alignment: {describe_alignment(alignment, factor)}")
        if alignment == "median":
            ratios = columns[RATIO]
            med = np.median(ratios)
            print(f" Scaling ratios | med: {med:0.3f} | std: {np.std(ratios / med):0.3f}")
        print("\n  " + ("{:>8} | " * 7).format(*DEPTH_METRICS))
        print(_table_row([columns[name].mean() for name in DEPTH_METRICS]) + "\\\\")
    return intervals


def _table_row(errors: list[float]) -> str:
    """Format the seven errors as a row of a LaTeX table."""
    return ("&{: 8.3f}  " * 7).format(*errors)


def write_benchmark(folder: Path, disps: np.ndarray, scale_factor: float) -> None:
    """Write predictions in the format of KITTI's server: 16-bit PNGs of metres x 256.

    Args:
        folder: where 0000000000.png, 0000000001.png, ... go.
        disps: (N, h, w) scaled disparities.
        scale_factor: metres per unit of the predicted depth.
    """
    def write(i: int) -> None:
        depth = (scale_factor / cv2.resize(disps[i], BENCHMARK_SIZE)).clip(0, MAX_DEPTH)
        png = cv2.imencode(".png", (depth * DEPTH_PNG_SCALE).astype(np.uint16))[1]
        write_atomically(folder / f"{i:010d}.png", png.tobytes())

    with ThreadPoolExecutor() as pool:
        written = pool.map(write, range(len(disps)))
        for _ in tqdm(written, desc="writing PNGs", total=len(disps), dynamic_ncols=True):
            pass
    print(f"wrote {counted(len(disps), 'PNG')} to {folder}; zip them and upload to KITTI's depth "
          "prediction benchmark, which alone has the ground truth")


def write_epochs(opts: Namespace, errors: dict[int, dict[str, Interval]]) -> None:
    """Print a table of the epochs of a run and draw their errors.

    Args:
        opts: flags of the evaluation.
        errors: for each epoch, the mean of each error with its interval.
    """
    from evaluation.depth_figures import EPOCHS, draw_epochs, save_figure  # imports matplotlib
    print(f"\nalignment {chosen_alignment(opts)}\n  {'epoch':>8} | "
          + ("{:>8} | " * 7).format(*DEPTH_METRICS))
    for epoch, found in errors.items():
        print(f"  {epoch:>8}  " + _table_row([found[name].mean for name in DEPTH_METRICS]))
    print("the epoch with the least error here is not a result: it was chosen by the test images")
    folder = Path(opts.eval_out_dir or opts.eval_all)
    save_figure(draw_epochs(errors), folder / EPOCHS.format(evaluation_name(opts)))
