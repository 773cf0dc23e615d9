"""Evaluate depth on corrupted images: the error of each corruption and severity, mCE and mRR."""
from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.frames_seen import FramesSeen, read_frames_seen
from datasets.corruptions import CORRUPTIONS, SEVERITIES, choose_corruptions, corrupted
from evaluation.corruption_figures import PLOT, SHEET, draw_plot, draw_sheet
from evaluation.depth import Predicted, describe_origin, measure, predict
from evaluation.depth_figures import save_figure
from evaluation.results import METHOD_FLAGS, describe_alignment, evaluation_name
from evaluation.test_set import TestSet, read_test_set
from metrics.depth import DEPTH_METRICS
from metrics.robustness import corruption_errors, depth_estimation_error, resilience_rates
from runtime.distributed import World, init_distributed, shut_down_distributed
from runtime.errors import DataError
from runtime.files import check_out_dir, write_atomically

SCHEMA = 1  # version of the fields of a robustness file
JSON_NAME = "robustness_{}.json"  # takes an `evaluation_name`
EXPECTED = "expected a robustness_<split>_<alignment>.json of evaluate_depth.py --corruptions"
# flags that change the errors of one network on one list
OWN_FLAGS = (*METHOD_FLAGS, "data_path", "dataset", "png")


class Scores(NamedTuple):
    """Hold the robustness of a network to C corruptions at S severities.

    Attributes:
        names: C corruptions.
        severities: S severities.
        clean: DEE on the images as they are.
        dee: (C, S) DEE under corruption.
        rr: (C,) resilience rates, percent.
        ce: (C,) corruption errors, percent; None without a baseline.
    """

    names: list[str]
    severities: list[int]
    clean: float
    dee: np.ndarray
    rr: np.ndarray
    ce: np.ndarray | None

    def fields(self) -> dict:
        """Return what a robustness file says about the scores."""
        return {"corruptions": self.names, "severities": self.severities, "mrr": self.rr.mean(),
                "rr": dict(zip(self.names, self.rr.tolist(), strict=True))} | (
            {} if self.ce is None else {
                "mce": self.ce.mean(), "ce": dict(zip(self.names, self.ce.tolist(), strict=True))})


def evaluate_corruptions(opts: Namespace) -> None:
    """Predict and measure the test images under each corruption and severity of the flags.

    The file of results is written after each of them; the same command continues from it.

    Args:
        opts: flags of evaluate_depth.py.

    Raises:
        DataError: a file is missing or broken, belongs to another evaluation, or cannot be written.
    """
    names, severities = choose_corruptions(opts.corruptions), sorted(set(opts.severities))
    world = init_distributed(opts.no_cuda)
    if opts.eval_out_dir and world.is_main:
        check_out_dir(opts.eval_out_dir)
    test_set = read_test_set(opts, with_truth=world.is_main)
    seen = read_frames_seen(opts.load_weights_folder) if world.is_main else None
    report, baseline = world.broadcast_from_main(
        start_report, opts, test_set, seen, names, severities)
    path = report_path(opts)
    clean = predict(opts, test_set, world)
    if world.is_main:
        report["clean"], report["scale_factor"] = measure_means(opts, test_set, clean)
    todo = [(name, severity) for name in names for severity in severities
            if str(severity) not in report["corrupted"].get(name, {})]
    for name, severity in todo:
        measure_corruption(opts, test_set, world, report, name, severity)
        if world.is_main:
            write_report(path, report)
    shut_down_distributed()  # only the main process goes on
    if world.is_main:
        scores = compute_scores(report, names, severities, baseline)
        report["scores"] = scores.fields() | {"baseline": opts.robustness_baseline}
        try:
            write_report(path, report)
            save_figures(opts, test_set, scores)
        finally:  # a full disk must not hide the scores of hours of prediction
            print_scores(opts, report, scores)


def report_path(opts: Namespace) -> Path:
    """Return the path of the robustness file."""
    return Path(opts.eval_out_dir or opts.load_weights_folder,
                JSON_NAME.format(evaluation_name(opts)))


def start_report(opts: Namespace, test_set: TestSet, seen: FramesSeen | None,
                 names: Sequence[str], severities: Sequence[int]) -> tuple[dict, dict | None]:
    """Return the report of this evaluation, with the errors that an earlier run has measured.

    Args:
        opts: flags of the evaluation.
        test_set: the test images and their ground truth.
        seen: what training read; None if unknown.
        names: of the corruptions.
        severities: of each corruption.

    Returns:
        The report, and that of --robustness_baseline, None without it.

    Raises:
        DataError: a file is broken, belongs to another evaluation, or lacks a corruption.
    """
    origin = describe_origin(opts, test_set, seen)
    baseline = opts.robustness_baseline and read_baseline(
        Path(opts.robustness_baseline), origin, names, severities)
    report = {"schema": SCHEMA} | origin | {"corrupted": {}}
    path = report_path(opts)
    if path.exists():
        former = read_report(path)
        if changed := differing(network_of(former), network_of(report)):
            raise DataError(f"{path} holds an evaluation that differs in {', '.join(changed)}; "
                            "give another --eval_out_dir, or move it away")
        report["corrupted"] = former["corrupted"]
        done = sum(str(severity) in former["corrupted"].get(name, {})
                   for name in names for severity in severities)
        print(f"{path} has {done} of {len(names) * len(severities)} pairs of corruption and "
              "severity; measuring the others")
    return report, baseline


def protocol_of(report: dict) -> dict:
    """Return the fields of a report that must agree for a comparison of two networks."""
    return {"test list": report["lists"]["test"]["sha256"], "alignment": report["alignment"],
            "ground truth": [report["ground_truth"][name] for name in ("kind", "pixels")]}


def network_of(report: dict) -> dict:
    """Return the fields of a report that must agree if its errors are to be used again."""
    return protocol_of(report) | {"weights": report["weights"]["sha256"]} | {
        f"--{name}": report["flags"].get(name) for name in OWN_FLAGS}


def differing(a: dict, b: dict) -> list[str]:
    """Return the keys of two dicts of equal keys whose values differ."""
    return [name for name in a if a[name] != b[name]]


def read_baseline(path: Path, origin: dict, names: Sequence[str],
                  severities: Sequence[int]) -> dict:
    """Read the report of another network that was evaluated in the same way.

    Raises:
        DataError: the file is broken, was evaluated in another way, or lacks a corruption.
    """
    baseline = read_report(path)
    if changed := differing(protocol_of(origin), protocol_of(baseline)):
        raise DataError(f"--robustness_baseline {path} differs in {' and '.join(changed)}; "
                        "evaluate both networks with the same flags")
    missing = [name for name in names
               if not {*map(str, severities)} <= baseline["corrupted"].get(name, {}).keys()]
    if missing:
        raise DataError(f"--robustness_baseline {path} lacks {' '.join(missing)} at severities "
                        f"{' '.join(map(str, severities))}; evaluate its network with them")
    return baseline


def read_report(path: Path) -> dict:
    """Read and validate a robustness file.

    Raises:
        DataError: the file is missing or broken, or of a newer version of this project.
    """
    try:
        report = json.loads(path.read_bytes())
        is_newer = report["schema"] > SCHEMA
        if not is_newer:
            network_of(report)
            for errors in (report["clean"], *(
                    errors for by_severity in report["corrupted"].values()
                    for errors in by_severity.values())):
                if not 0 <= errors["dee"] < np.inf:
                    raise ValueError("a DEE is negative or infinite")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {EXPECTED}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path} is broken, or another kind of file; {EXPECTED}") from None
    if is_newer:
        raise DataError(f"{path} has schema {report['schema']}, and this version reads up to "
                        f"{SCHEMA}; update the project, or evaluate again")
    return report


def write_report(path: Path, report: dict) -> None:
    """Write a robustness file."""
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())


def corrupt_test_set(test_set: TestSet, name: str, severity: int) -> TestSet:
    """Return a test set whose images are corrupted."""
    return test_set._replace(dataset=lambda height, width: corrupted(
        test_set.dataset(height, width), name, severity))


def measure_corruption(opts: Namespace, test_set: TestSet, world: World, report: dict, name: str,
                       severity: int) -> None:
    """Predict corrupted images; in the main process, add their errors to the report."""
    predicted = predict(opts, corrupt_test_set(test_set, name, severity), world, with_notes=False)
    if world.is_main:
        means, _ = measure_means(opts, test_set, predicted)
        report["corrupted"].setdefault(name, {})[str(severity)] = means
        print(f"{name} {severity}: DEE {means['dee']:.3f}", flush=True)


def measure_means(opts: Namespace, test_set: TestSet, predicted: Predicted
                  ) -> tuple[dict[str, float], float]:
    """Measure the means over images of the paper's errors and of the DEE.

    Returns:
        The means by name, and the factor of all predictions.
    """
    columns, factor = measure(opts, test_set, predicted)
    means = {name: float(columns[name].mean()) for name in DEPTH_METRICS}
    return means | {"dee": depth_estimation_error(means["abs_rel"], means["a1"])}, factor


def compute_scores(report: dict, names: list[str], severities: list[int],
                   baseline: dict | None) -> Scores:
    """Compute the scores of a network from the errors in its report and in the baseline's."""
    dee, other = (np.array([[each["corrupted"][name][str(severity)]["dee"]
                             for severity in severities] for name in names])
                  for each in (report, baseline or report))
    clean = report["clean"]["dee"]
    return Scores(names, severities, clean, dee, resilience_rates(dee, clean),
                  corruption_errors(dee, other) if baseline else None)


def save_figures(opts: Namespace, test_set: TestSet, scores: Scores) -> None:
    """Write the sheet of the first test image and the plot of the errors.

    Raises:
        DataError: a figure cannot be written.
    """
    folder, name = report_path(opts).parent, evaluation_name(opts)
    severity = scores.severities[len(scores.severities) // 2]
    size = test_set.truth.depths[0].shape
    images = {"as it is": test_set.image(0, *size)} | {
        each: corrupt_test_set(test_set, each, severity).image(0, *size) for each in scores.names}
    save_figure(draw_sheet(images, f"{test_set.lines[0]}, severity {severity}"),
                folder / SHEET.format(name))
    save_figure(draw_plot(dict(zip(scores.names, scores.dee, strict=True)), scores.severities,
                          scores.clean), folder / PLOT.format(name))


def print_scores(opts: Namespace, report: dict, scores: Scores) -> None:
    """Print the errors and the scores of each corruption, and their means."""
    print(f"\nalignment: {describe_alignment(report['alignment'], report['scale_factor'])}")
    print(f"DEE = (abs_rel - a1 + 1) / 2; clean {scores.clean:.3f}; CE and RR in percent")
    columns = "  ".join(f"{severity:>5}" for severity in scores.severities)
    print(f"  {'severity':17}  {columns}   mean      CE      RR")
    ces = ["-"] * len(scores.names) if scores.ce is None else [f"{ce:.2f}" for ce in scores.ce]
    for name, dee, ce, rr in zip(scores.names, scores.dee, ces, scores.rr, strict=True):
        print(f"  {name:17}  {'  '.join(f'{each:.3f}' for each in dee)}  {dee.mean():.3f}  "
              f"{ce:>6}  {rr:6.2f}")
    mean = "mCE needs --robustness_baseline" if scores.ce is None else (
        f"mCE {scores.ce.mean():.2f} (100 = {opts.robustness_baseline})")
    print(f"{mean}; mRR {scores.rr.mean():.2f}")
    if len(scores.names) < len(CORRUPTIONS) or len(scores.severities) < len(SEVERITIES):
        print(f"these are means over {len(scores.names)} of {len(CORRUPTIONS)} corruptions and "
              f"{len(scores.severities)} of {len(SEVERITIES)} severities: published ones are over "
              "all")
