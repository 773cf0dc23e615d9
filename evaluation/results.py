"""The results of a depth evaluation: files, intervals, and the difference of two of them."""
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
from metrics.intervals import LEVEL, METHOD, RESAMPLES, SEED, Interval, bootstrap
from options import DEPTH, PROJECT, MonodepthOptions
from runtime.errors import DataError
from runtime.files import write_atomically

JSON_NAME, CSV_NAME = "results.json", "results.csv"
RATIO, PIXELS = "scaling_ratio", "pixels"  # columns that are no errors
READ_FROM_WEIGHTS = ("encoder.pth", "depth.pth", "camera.json")
HIGHER_IS_BETTER = ("a1", "a2", "a3", "edge_a1")
FEW = 20  # images; a bootstrap of fewer gives intervals that are too narrow
# flags that change what the errors of one prediction are
HOW = ("eval_split", "eval_mono", "eval_stereo", "disable_median_scaling", "post_process",
       "pred_depth_scale_factor", "min_depth", "max_depth", "gt_disparity",
       "eval_eigen_to_benchmark")
WHAT = ("load_weights_folder", "ext_disp_to_eval")  # flags that say whose errors they are


def errors_of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return those columns that are errors."""
    return {name: values for name, values in columns.items() if name not in (RATIO, PIXELS)}


def print_intervals(intervals: dict[str, Interval]) -> None:
    """Print each mean with its interval."""
    few = max((interval.images for interval in intervals.values()), default=0) < FEW
    print(f"means over images, {LEVEL:.0%} intervals by {METHOD}"
          f"{f'; of fewer than {FEW} images they are too narrow' * few}")
    for name, (mean, low, high, images) in intervals.items():
        print(f"  {name:14} {mean:9.4f}   {low:9.4f} to {high:9.4f}   {images:6,} images")


def describe(opts: Namespace) -> dict:
    """Return what an evaluation was made of: date, commit, flags, weights and their hashes."""
    if opts.ext_disp_to_eval:
        source, names = Path(opts.ext_disp_to_eval).parent, [Path(opts.ext_disp_to_eval).name]
    else:
        source, names = Path(opts.load_weights_folder), READ_FROM_WEIGHTS
    hashes = {name: hashlib.sha256((source / name).read_bytes()).hexdigest()
              for name in names if (source / name).is_file()}
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": commit(),
            "flags": MonodepthOptions(DEPTH).used(opts),
            "weights": {"folder": str(source.resolve()), "sha256": hashes}}


def commit() -> str | None:
    """Return the commit of this project, with -dirty where files differ from it; None without."""
    words = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"]
    if (PROJECT / ".git").exists():  # not that of a repository that this one lies in
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(words, capture_output=True, text=True, check=True,
                                  timeout=60).stdout.strip()
    return None


def write_results(folder: Path, lines: Sequence[str], columns: dict[str, np.ndarray],
                  intervals: dict[str, Interval], facts: dict) -> None:
    """Write results.json and results.csv.

    Args:
        folder: where they go.
        lines: split lines of the N images.
        columns: (N,) values by name.
        intervals: of the errors among them.
        facts: what else results.json has.

    Raises:
        DataError: they cannot be written.
    """
    content = facts | {
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "over": "images"},
        "metrics": {name: {field: _finite(value) for field, value in interval._asdict().items()}
                    for name, interval in intervals.items()},
        "lines": list(lines),
        "images": {name: [_finite(value) for value in values.tolist()]
                   for name, values in columns.items()}}
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "line", *columns])
    for i, (line, *row) in enumerate(zip(lines, *columns.values(), strict=True)):
        writer.writerow([i, line, *("" if np.isnan(value) else value for value in row)])
    changes = _changes(_flags_in(folder / JSON_NAME), facts.get("flags", {}), WHAT + HOW)
    write_atomically(folder / JSON_NAME, (json.dumps(content, indent=1) + "\n").encode())
    write_atomically(folder / CSV_NAME, table.getvalue().encode())
    print(f"wrote {folder / JSON_NAME} and {CSV_NAME}")
    if changes:
        print(f"they replace the results of another evaluation (then / now: {', '.join(changes)}); "
              "--eval_out_dir keeps both")


def _finite(value: float) -> float | None:
    """Return null for what is no number, as JSON asks."""
    return value if math.isfinite(value) else None


def _flags_in(path: str | Path) -> dict:
    """Return the flags that a results.json was made with; none where it is missing or broken."""
    try:
        flags = json.loads(Path(path).read_bytes())["flags"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return flags if isinstance(flags, dict) else {}


def _changes(a: dict, b: dict, names: Sequence[str]) -> list[str]:
    """Return which of these flags differ, if both have them."""
    return [f"--{name} {a[name]} / {b[name]}" for name in names
            if name in a and name in b and a[name] != b[name]]


def _json_in(path: str | Path) -> Path:
    """Return the path of a results.json that is given, or of that in a folder."""
    return Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)


def read_results(path: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read a results.json, as `parse_results` returns it.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        return parse_results(Path(path).read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a results.json that "
                        "evaluate_depth.py wrote") from None


def parse_results(content: bytes, name: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read the content of a results.json.

    Returns:
        The split lines of the N images, and (N,) values by name, NaN where an image has none.

    Raises:
        DataError: it is broken.
    """
    try:
        fields = json.loads(content)
        lines = fields["lines"]
        # None becomes NaN
        columns = {column: np.array(values, float)
                   for column, values in fields["images"].items()}
        is_whole = (isinstance(lines, list) and all(isinstance(line, str) for line in lines)
                    and len(lines) > 0 and {PIXELS, DEPTH_METRICS[0]} <= columns.keys()
                    and all(values.shape == (len(lines),) and not np.isinf(values).any()
                            for values in columns.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{name} is no results.json of a depth evaluation; evaluate again")
    return lines, columns


def read_means(path: str | Path) -> dict[str, float]:
    """Return the mean over images of each error in a results.json.

    Raises:
        DataError: it is missing or broken.
    """
    _, columns = read_results(path)
    return {name: float(np.nanmean(values)) for name, values in errors_of(columns).items()
            if not np.isnan(values).all()}


def compare(path_a: str | Path, path_b: str | Path) -> str:
    """Return the text that says how much two evaluations of the same images differ.

    Args:
        path_a: a results.json, or the folder that it is in.
        path_b: the same.

    Raises:
        DataError: one is broken, or they are of other images or of other pixels of them.
    """
    path_a, path_b = _json_in(path_a), _json_in(path_b)
    (lines, a), (other_lines, b) = read_results(path_a), read_results(path_b)
    if lines != other_lines:
        raise DataError(f"{path_a} has {len(lines)} images, {path_b} has {len(other_lines)}, and "
                        "they are not the same in one order; evaluate both on one --eval_split")
    if (a[PIXELS] != b[PIXELS]).any():
        raise DataError(f"{path_a} and {path_b} compare with other ground truth: image "
                        f"{int((a[PIXELS] != b[PIXELS]).argmax())} has other pixels; evaluate both "
                        "with the same one")
    names = [name for name in errors_of(a) if name in b]
    differences = bootstrap({name: b[name] - a[name] for name in names})
    rows = [f"A {path_a}", f"B {path_b}",
            *(f"A / B differ in {change}"
              for change in _changes(_flags_in(path_a), _flags_in(path_b), HOW)),
            f"B - A of {len(lines):,} images, paired, {LEVEL:.0%} intervals by {METHOD}",
            f"  {'':14} {'A':>9} {'B':>9} {'B - A':>9}   {'interval':^20}"]
    for name, found in differences.items():
        both = ~np.isnan(b[name] - a[name])
        means = [values[name][both].mean() if both.any() else math.nan for values in (a, b)]
        rows.append(f"  {name:14} {means[0]:9.4f} {means[1]:9.4f} {found.mean:+9.4f}   "
                    f"{found.low:+8.4f} to {found.high:+8.4f}   {_verdict(name, found)}")
    return "\n".join(rows)


def _verdict(name: str, difference: Interval) -> str:
    if difference.images < 2:
        return "too few images"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.is_noise:
        return "noise: the interval contains 0"
    is_higher_better = name.startswith(HIGHER_IS_BETTER)
    return f"{'B' if (difference.mean > 0) == is_higher_better else 'A'} is better"
