"""Evaluate depth on corrupted images: the error of each corruption and severity, mCE and mRR."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoints.frames_seen import FramesSeen, read_frames_seen
from datasets.corruptions import CORRUPTIONS, SEVERITIES, choose_corruptions, corrupted
from datasets.splits import parse_line
from evaluation.corruption_figures import PLOT, SHEET, draw_plot, draw_sheet
from evaluation.depth import Predicted, describe_origin, measure, predict
from evaluation.depth_figures import save_figure
from evaluation.results import describe_alignment, evaluation_name
from evaluation.robustness_file import (
    ROBUSTNESS,
    SCHEMA,
    differing,
    network_of,
    read_baseline,
    read_robustness,
    write_robustness,
)
from evaluation.test_set import TestSet, read_test_set
from metrics.depth import DEPTH_METRICS
from metrics.robustness import corruption_errors, depth_estimation_error, resilience_rates
from runtime.distributed import init_distributed, shut_down_distributed
from runtime.errors import DataError
from runtime.files import check_out_dir


def evaluate_corruptions(opts: Namespace) -> None:
    """Predict and measure the test images under each corruption and severity of the flags.

    The file of results is written after each of them; the same command continues from it.

    Args:
        opts: flags of evaluate_depth.py.

    Raises:
        DataError: a file is missing or broken, belongs to another evaluation, or cannot be written.
    """
    names = choose_corruptions(opts.corruptions)
    severities = sorted(set(opts.severities or SEVERITIES))
    world = init_distributed(opts.no_cuda)
    if opts.eval_out_dir and world.is_main:
        check_out_dir(opts.eval_out_dir)
    test_set = read_test_set(opts, with_truth=world.is_main)
    seen = read_frames_seen(opts.load_weights_folder) if world.is_main else None
    robustness, baseline = world.broadcast_from_main(
        start_robustness, opts, test_set, seen, names, severities)
    path = robustness_path(opts)
    clean = predict(opts, test_set, world)
    if world.is_main:
        robustness["clean"], robustness["scale_factor"] = measure_means(opts, test_set, clean)
    todo = [(name, severity) for name in names for severity in severities
            if str(severity) not in robustness["corrupted"].get(name, {})]
    for name, severity in todo:
        predicted = predict(opts, corrupt_test_set(test_set, name, severity), world,
                            with_notes=False)
        if world.is_main:
            means, _ = measure_means(opts, test_set, predicted)
            robustness["corrupted"].setdefault(name, {})[str(severity)] = means
            write_robustness(path, robustness)
            print(f"{name} {severity}: DEE {means['dee']:.3f}", flush=True)
    shut_down_distributed()  # only the main process goes on
    if world.is_main:
        robustness["scores"] = compute_scores(robustness, names, severities, baseline) | {
            "baseline": opts.robustness_baseline}
        try:
            write_robustness(path, robustness)
            save_figures(opts, test_set, robustness)
        finally:  # a full disk must not hide the scores of hours of prediction
            print_scores(robustness)


def robustness_path(opts: Namespace) -> Path:
    """Return the path of the robustness file."""
    return Path(opts.eval_out_dir or opts.load_weights_folder,
                ROBUSTNESS.format(evaluation_name(opts)))


def start_robustness(opts: Namespace, test_set: TestSet, seen: FramesSeen | None,
                     names: Sequence[str], severities: Sequence[int]
                     ) -> tuple[dict, dict | None]:
    """Return the robustness file of this evaluation, with what an earlier run has measured.

    Args:
        opts: flags of the evaluation.
        test_set: the test images and their ground truth.
        seen: what training read; None if unknown.
        names: of the corruptions.
        severities: of each corruption.

    Returns:
        Its fields, and those of --robustness_baseline, None without it.

    Raises:
        DataError: a file is broken, belongs to another evaluation, or lacks a corruption.
    """
    origin = describe_origin(opts, test_set, seen)
    baseline = opts.robustness_baseline and read_baseline(
        Path(opts.robustness_baseline), origin, names, severities)
    robustness = {"schema": SCHEMA} | origin | {"corrupted": {}}
    path = robustness_path(opts)
    if path.exists():
        former = read_robustness(path)
        if changed := differing(network_of(former), network_of(robustness)):
            raise DataError(f"{path} holds an evaluation that differs in {', '.join(changed)}; "
                            "give another --eval_out_dir, or move it away")
        robustness["corrupted"] = former["corrupted"]
        done = sum(str(severity) in former["corrupted"].get(name, {})
                   for name in names for severity in severities)
        print(f"{path} has {done} of {len(names) * len(severities)} pairs of corruption and "
              "severity; measuring the others")
    return robustness, baseline


def corrupt_test_set(test_set: TestSet, name: str, severity: int) -> TestSet:
    """Return a test set whose images are corrupted."""
    return test_set._replace(dataset=lambda height, width: corrupted(
        test_set.dataset(height, width), name, severity))


def measure_means(opts: Namespace, test_set: TestSet, predicted: Predicted
                  ) -> tuple[dict[str, float], float]:
    """Measure the means over images of the paper's errors and of the DEE.

    Returns:
        The means by name, and the factor of all predictions.
    """
    columns, factor = measure(opts, test_set, predicted)
    means = {name: float(columns[name].mean()) for name in DEPTH_METRICS}
    return means | {"dee": depth_estimation_error(means["abs_rel"], means["a1"])}, factor


def dee_of(robustness: dict, names: Sequence[str], severities: Sequence[int]) -> np.ndarray:
    """Return the (C, S) DEE of C corruptions at S severities."""
    return np.array([[robustness["corrupted"][name][str(severity)]["dee"]
                      for severity in severities] for name in names])


def compute_scores(robustness: dict, names: list[str], severities: list[int],
                   baseline: dict | None) -> dict:
    """Compute the scores of a network from its errors and from the baseline's.

    Returns:
        The corruptions and the severities, the "rr" and, with a baseline, the "ce" of each
        corruption, and their means "mrr" and "mce"; percent.
    """
    dee = dee_of(robustness, names, severities)
    rates = {"rr": resilience_rates(dee, robustness["clean"]["dee"])}
    if baseline:
        rates["ce"] = corruption_errors(dee, dee_of(baseline, names, severities))
    return {"corruptions": names, "severities": severities,
            **{f"m{rate}": values.mean() for rate, values in rates.items()},
            **{rate: dict(zip(names, values.tolist(), strict=True))
               for rate, values in rates.items()}}


def save_figures(opts: Namespace, test_set: TestSet, robustness: dict) -> None:
    """Write the sheet of the first test image and the plot of the errors.

    Raises:
        DataError: a figure cannot be written.
    """
    folder, name = robustness_path(opts).parent, evaluation_name(opts)
    names, severities = (robustness["scores"][key] for key in ("corruptions", "severities"))
    severity = severities[len(severities) // 2]
    line, images = test_set.lines[0], test_set.dataset(1, 1)
    shown = {"as it is": images} | {each: corrupted(images, each, severity) for each in names}
    sheet = {each: np.asarray(dataset.get_color(*parse_line(line), False))
             for each, dataset in shown.items()}
    save_figure(draw_sheet(sheet, f"{line}, severity {severity}"),
                folder / SHEET.format(name))
    dee = dict(zip(names, dee_of(robustness, names, severities), strict=True))
    save_figure(draw_plot(dee, severities, robustness["clean"]["dee"]), folder / PLOT.format(name))


def print_scores(robustness: dict) -> None:
    """Print the errors and the scores of each corruption, and their means."""
    scores = robustness["scores"]
    names, severities, ces = scores["corruptions"], scores["severities"], scores.get("ce")
    print("\nalignment: "
          + describe_alignment(robustness["alignment"], robustness["scale_factor"]))
    print(f"DEE = (abs_rel - a1 + 1) / 2; clean {robustness['clean']['dee']:.3f}; CE and RR in "
          "percent")
    columns = "  ".join(f"{severity:>5}" for severity in severities)
    print(f"  {'severity':17}  {columns}   mean      CE      RR")
    for name, dee in zip(names, dee_of(robustness, names, severities), strict=True):
        ce = f"{ces[name]:.2f}" if ces else "-"
        print(f"  {name:17}  {'  '.join(f'{each:.3f}' for each in dee)}  {dee.mean():.3f}  "
              f"{ce:>6}  {scores['rr'][name]:6.2f}")
    mean = (f"mCE {scores['mce']:.2f} (100 = {scores['baseline']})" if ces
            else "mCE needs --robustness_baseline")
    print(f"{mean}; mRR {scores['mrr']:.2f}")
    if len(names) < len(CORRUPTIONS) or len(severities) < len(SEVERITIES):
        print(f"these are means over {len(names)} of {len(CORRUPTIONS)} corruptions and "
              f"{len(severities)} of {len(SEVERITIES)} severities: published ones are over all")
