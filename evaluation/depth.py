"""Evaluate depth: predict the test images, measure the errors, write results and the table."""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.architecture import read_input_format
from checkpoints.frames_seen import FramesSeen, describe_list, find_leak, read_frames_seen
from checkpoints.weights import find_weights_folders
from datasets import MonoDataset
from evaluation.benchmark import write_benchmark
from evaluation.depth_errors import check_edges, measure_errors
from evaluation.disparities import read_disparities, warn_of_depth
from evaluation.results import (
    FIXED,
    JSON_NAME,
    RATIO,
    chosen_alignment,
    compute_intervals,
    describe_alignment,
    describe_evaluation,
    evaluation_name,
    print_intervals,
    write_results,
)
from evaluation.temporal import Video, measure_video, predict_video, read_video
from evaluation.test_set import (
    TestSet,
    asked_extension,
    is_benchmark,
    load_batches,
    read_test_set,
)
from metrics.depth import DEPTH_METRICS, STEREO_SCALE_FACTOR, evaluated_mask
from metrics.intervals import Interval
from prediction.predictor import Predictor
from runtime.distributed import World, init_distributed, shut_down_distributed
from runtime.files import check_data_path, check_out_dir, save_array


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
    if opts.save_figures or opts.eval_all or opts.report:
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
    video = read_video(opts, test_set) if opts.temporal else None
    errors = {}
    for epoch, own in runs.items():
        if opts.eval_all:
            world.print(f"\n{own.load_weights_folder}")
        weights = own.load_weights_folder
        seen = read_frames_seen(weights) if weights and world.is_main else None
        moved = video and predict_video(own, test_set, video, world)
        predicted = predict(own, test_set, world)
        if epoch == max(runs):
            shut_down_distributed()  # only the main process goes on
        if world.is_main:
            errors[epoch] = measure_and_write(own, test_set, predicted, seen, moved)
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


def predict(opts: Namespace, test_set: TestSet, world: World,
            with_notes: bool = True) -> Predicted | None:
    """Predict the disparities of the test images, or read --ext_disp_to_eval.

    Every process predicts its share of the images.

    Args:
        opts: flags of the evaluation.
        test_set: the test images.
        world: the processes.
        with_notes: print what the flags or the images have of note.

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
    if with_notes:
        print_notes(opts, predictor, dataset, world)
    predictor.keep_freed_memory()
    disps = [np.empty((0, height, width), np.float32)]
    for batch in batches:
        disps.append(predictor.scaled_disparity(batch["color", 0, 0], opts.post_process))
    disps = world.gather_on_main(np.concatenate(disps))
    # Faithful: stereo depth is metric, x 5.4 on KITTI, and is not scaled by the median
    metres = predictor.training_camera.metres or STEREO_SCALE_FACTOR
    return Predicted(disps, metres) if world.is_main else None


def print_notes(opts: Namespace, predictor: Predictor, dataset: MonoDataset, world: World) -> None:
    """Print what a user may overlook about the scale of the depth and the kind of images."""
    if opts.eval_stereo and not predictor.use_stereo and not predictor.training_camera.metres:
        world.print(f"warning: {opts.load_weights_folder} was trained without stereo, so its depth "
                    "has no known scale; --eval_mono finds one for each image")
    if predictor.training_camera.training == "mono+speed" and chosen_alignment(opts) == "median":
        world.print("note: these weights were trained with speed, so they know metres; --eval_mono "
                    "scales them away, --disable_median_scaling evaluates them")
    if dataset.img_ext != asked_extension(opts):
        world.print(f"the images of {opts.data_path} are {dataset.img_ext}, and are read as such")


def measure_and_write(opts: Namespace, test_set: TestSet, predicted: Predicted,
                      seen: FramesSeen | None,
                      video: Video | None = None) -> dict[str, Interval] | None:
    """Measure the errors of predicted disparities and write every output that the flags ask for.

    Args:
        opts: flags of the evaluation.
        test_set: the test images and their ground truth.
        predicted: disparities of the test images.
        seen: what training read; None if unknown.
        video: the test images that have a next frame, for --temporal.

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
    columns, factor = measure(opts, test_set, predicted)
    if video:
        columns |= measure_video(opts, test_set, video, predicted.disps, columns, factor)
    intervals = write_errors(opts, folder, test_set, columns, factor, seen)
    if opts.save_figures or opts.report:
        from evaluation.depth_figures import save_figures  # matplotlib takes a second to import
        save_figures(folder, evaluation_name(opts), test_set, predicted.disps, columns["abs_rel"],
                     factor, fitted_alignment(opts))
    if opts.report:
        from evaluation.report import write_report  # imports matplotlib
        write_report(folder, evaluation_name(opts))
    return intervals


def measure(opts: Namespace, test_set: TestSet, predicted: Predicted
            ) -> tuple[dict[str, np.ndarray], float]:
    """Measure the errors of predicted disparities as the flags say.

    Returns:
        (N,) values by name, as `measure_errors` does, and the factor of all predictions.
    """
    factor = opts.pred_depth_scale_factor * (predicted.metres if opts.eval_stereo else 1)
    return measure_errors(
        predicted.disps, test_set.truth.depths, eigen=test_set.truth.eigen, scale_factor=factor,
        alignment=fitted_alignment(opts),
        max_depth=test_set.truth.max_depth, edges=opts.edges,
        cameras=test_set.cameras() if opts.clouds else None), factor


def fitted_alignment(opts: Namespace) -> str:
    """Return how each prediction is fitted to its ground truth; one of `ALIGNMENTS`."""
    alignment = chosen_alignment(opts)
    return "none" if alignment == FIXED else alignment


def describe_origin(opts: Namespace, test_set: TestSet, seen: FramesSeen | None) -> dict:
    """Return how results were made: flags, weights, lists, ground truth; print the leak."""
    truth = test_set.truth
    leak = find_leak(seen, test_set.layout, test_set.lines, opts.data_path)
    print(leak.describe())
    return describe_evaluation(opts) | {
        "lists": {"test": describe_list(opts.eval_split, test_set.lines),
                  "training": seen and seen.lists},
        "ground_truth": {"kind": truth.kind, "source": str(truth.source.resolve()),
                         "pixels": "Eigen's crop" if truth.eigen else "all that have depth",
                         "count": int(sum(evaluated_mask(depth, truth.eigen).sum()
                                          for depth in truth.depths))},
        "seen_in_training": leak._asdict()}


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
    origin = describe_origin(opts, test_set, seen) | {"scale_factor": factor}
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
