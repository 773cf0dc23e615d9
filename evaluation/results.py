"""The results of a depth evaluation: files, intervals, and the difference of two results."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from metrics.depth import DEPTH_METRICS
from metrics.intervals import (
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    Resampled,
    bootstrap,
    choose_resampled,
)
from options import DEPTH, PROJECT, MonodepthOptions
from runtime.errors import DataError
from runtime.files import write_atomically

JSON_NAME, CSV_NAME = "results.json", "results.csv"
RATIO, PIXELS = "scaling_ratio", "pixels"  # columns that hold no errors
READ_FROM_WEIGHTS = ("encoder.pth", "depth.pth", "camera.json")
HIGHER_IS_BETTER = ("a1", "a2", "a3", "edge_a1")
# flags that change the errors of one prediction
METHOD_FLAGS = ("eval_split", "eval_mono", "eval_stereo", "disable_median_scaling", "post_process",
                "pred_depth_scale_factor", "min_depth", "max_depth", "gt_disparity",
                "eval_eigen_to_benchmark", "mask_dir")
SOURCE_FLAGS = ("load_weights_folder", "ext_disp_to_eval")  # flags that name the prediction


def error_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns that hold errors."""
    return {name: values for name, values in columns.items() if name not in (RATIO, PIXELS)}


def compute_intervals(lines: Sequence[str], columns: dict[str, np.ndarray]
                      ) -> tuple[dict[str, Interval], Resampled]:
    """Compute the mean of each error with its interval, and say what was resampled.

    Args:
        lines: split lines of the N images, whose folders are the drives.
        columns: (N,) values by name; NaN if an image has no value.
    """
    resampled = choose_resampled([" ".join(line.split()[:1]) for line in lines])
    return bootstrap(error_columns(columns), resampled.units), resampled


def print_intervals(intervals: dict[str, Interval], resampled: Resampled) -> None:
    """Print each mean with its interval."""
    print(f"means over images, {LEVEL:.0%} intervals by {resampled.describe()}")
    for name, (mean, low, high, images) in intervals.items():
        print(f"  {name:14} {mean:9.4f}   {low:9.4f} to {high:9.4f}   {images:6,} images")


def describe_evaluation(opts: Namespace) -> dict:
    """Return the origin of an evaluation: date, commit, flags, weights and their hashes."""
    if opts.ext_disp_to_eval:
        folder, names = Path(opts.ext_disp_to_eval).parent, [Path(opts.ext_disp_to_eval).name]
    else:
        folder, names = Path(opts.load_weights_folder), READ_FROM_WEIGHTS
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
              for name in names if (folder / name).is_file()}
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": project_commit(), "flags": MonodepthOptions(DEPTH).used(opts),
            "weights": {"folder": str(folder.resolve()), "sha256": hashes}}


def project_commit() -> str | None:
    """Return the commit of this project, with -dirty if files differ from it; None without git."""
    words = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"]
    if (PROJECT / ".git").exists():  # otherwise git would name a repository around the project
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(words, capture_output=True, text=True, check=True,
                                  timeout=60).stdout.strip()
    return None


def write_results(folder: Path, lines: Sequence[str], columns: dict[str, np.ndarray],
                  intervals: dict[str, Interval], resampled: Resampled, origin: dict) -> None:
    """Write results.json and results.csv.

    Args:
        folder: where the two files go.
        lines: split lines of the N images.
        columns: (N,) values by name.
        intervals: of the errors among the columns.
        resampled: what the intervals were resampled over.
        origin: further fields of results.json, as `describe_evaluation` returns them.

    Raises:
        DataError: a file cannot be written.
    """
    content = origin | {
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED,
                      "over": resampled.kind},
        "metrics": {name: {field: _finite(value) for field, value in interval._asdict().items()}
                    for name, interval in intervals.items()},
        "lines": list(lines),
        "images": {name: [_finite(value) for value in values.tolist()]
                   for name, values in columns.items()}}
    changes = _changed_flags(_read_flags(folder / JSON_NAME), origin.get("flags", {}),
                             SOURCE_FLAGS + METHOD_FLAGS)
    write_atomically(folder / JSON_NAME, (json.dumps(content, indent=1) + "\n").encode())
    write_atomically(folder / CSV_NAME, _csv_text(lines, columns).encode())
    print(f"wrote {folder / JSON_NAME} and {CSV_NAME}")
    if changes:
        print(f"they replace the results of another evaluation (then / now: {', '.join(changes)}); "
              "--eval_out_dir keeps both")


def _csv_text(lines: Sequence[str], columns: dict[str, np.ndarray]) -> str:
    """Format a row for each image, with an empty field for NaN."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "line", *columns])
    for i, (line, *values) in enumerate(zip(lines, *columns.values(), strict=True)):
        writer.writerow([i, line, *("" if np.isnan(value) else value for value in values)])
    return table.getvalue()


def _finite(value: float) -> float | None:
    """Replace NaN and infinity by None, which becomes null in JSON."""
    return value if math.isfinite(value) else None


def _read_flags(path: str | Path) -> dict:
    """Return the flags in a results.json; an empty dict if the file is missing or broken."""
    try:
        flags = json.loads(Path(path).read_bytes())["flags"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return flags if isinstance(flags, dict) else {}


def _changed_flags(a: dict, b: dict, names: Sequence[str]) -> list[str]:
    """Return `--flag a / b` for each of these flags that is in both dicts and differs."""
    return [f"--{name} {a[name]} / {b[name]}" for name in names
            if name in a and name in b and a[name] != b[name]]


def _results_path(path: str | Path) -> Path:
    """Return the path of a results.json, given itself or its folder."""
    return Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)


def read_results(path: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read a results.json, as `parse_results` returns it.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        return parse_results(Path(path).read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a results.json that "
                        "evaluate_depth.py wrote") from None


def parse_results(content: bytes, name: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Parse and validate the content of a results.json.

    Args:
        content: of the file.
        name: of the file, for the error.

    Returns:
        The split lines of the N images, and (N,) values by name, NaN for null.

    Raises:
        DataError: the content is broken.
    """
    try:
        fields = json.loads(content)
        lines = fields["lines"]
        columns = {column: np.array(values, float)  # null becomes NaN
                   for column, values in fields["images"].items()}
        is_valid = (isinstance(lines, list) and all(isinstance(line, str) for line in lines)
                    and len(lines) > 0 and {PIXELS, DEPTH_METRICS[0]} <= columns.keys()
                    and all(values.shape == (len(lines),) and not np.isinf(values).any()
                            for values in columns.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        is_valid = False
    if not is_valid:
        raise DataError(f"{name} is not a results.json of a depth evaluation; evaluate again")
    return lines, columns


def read_means(path: str | Path) -> dict[str, float]:
    """Return the mean over images of each error in a results.json.

    Raises:
        DataError: the file is missing or broken.
    """
    _, columns = read_results(path)
    return {name: float(np.nanmean(values)) for name, values in error_columns(columns).items()
            if not np.isnan(values).all()}


def compare_results(path_a: str | Path, path_b: str | Path) -> str:
    """Return a table of the differences between two evaluations of the same images.

    Args:
        path_a: a results.json, or its folder.
        path_b: a results.json, or its folder.

    Raises:
        DataError: a file is broken, or the two differ in their images or their evaluated pixels.
    """
    path_a, path_b = _results_path(path_a), _results_path(path_b)
    (lines, a), (other_lines, b) = read_results(path_a), read_results(path_b)
    if lines != other_lines:
        raise DataError(f"{path_a} has {len(lines)} images, {path_b} has {len(other_lines)}, and "
                        "the images or their order differ; evaluate both on one --eval_split")
    if (a[PIXELS] != b[PIXELS]).any():
        raise DataError(f"{path_a} and {path_b} differ in their ground truth: image "
                        f"{int((a[PIXELS] != b[PIXELS]).argmax())} has other pixels; evaluate both "
                        "with the same ground truth")
    # the difference of each image; resampled by drive, as the errors of one result are
    differences, resampled = compute_intervals(
        lines, {name: b[name] - a[name] for name in error_columns(a) if name in b})
    rows = [f"A {path_a}", f"B {path_b}",
            *(f"A / B differ in {change}"
              for change in _changed_flags(_read_flags(path_a), _read_flags(path_b), METHOD_FLAGS)),
            f"B - A of {len(lines):,} images, paired, {LEVEL:.0%} intervals by "
            f"{resampled.describe()}",
            f"  {'':14} {'A':>9} {'B':>9} {'B - A':>9}   {'interval':^20}"]
    for name, found in differences.items():
        both = ~np.isnan(b[name] - a[name])
        means = [values[name][both].mean() if both.any() else math.nan for values in (a, b)]
        rows.append(f"  {name:14} {means[0]:9.4f} {means[1]:9.4f} {found.mean:+9.4f}   "
                    f"{found.low:+8.4f} to {found.high:+8.4f}   "
                    f"{_verdict(name, found, resampled.kind)}")
    return "\n".join(rows)


def _verdict(name: str, difference: Interval, kind: str) -> str:
    """Say which of A and B is better, or why this cannot be said; `kind` is what was resampled."""
    if math.isnan(difference.low):
        return f"too few {kind}"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.is_noise:
        return "noise: the interval contains 0"
    is_higher_better = name.startswith(HIGHER_IS_BETTER)
    return f"{'B' if (difference.mean > 0) == is_higher_better else 'A'} is better"
