"""The results of a depth evaluation: files, intervals, and the difference of two results."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import subprocess
from argparse import Namespace
from collections.abc import Iterable, Sequence
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
    correct_levels,
    sign_levels,
)
from options import DEPTH, PROJECT, MonodepthOptions
from runtime.errors import DataError
from runtime.files import write_atomically
from runtime.flag_rules import PREDICTED

SCHEMA = 1  # version of the fields of a results file
JSON_NAME = "results_{}.json"  # takes an `evaluation_name`
OLD_NAME = "results.json"  # of all splits, before there was a schema
EXPECTED = "give a results_<split>_<alignment>.json that evaluate_depth.py wrote"
NO_RESULTS = f"no results; {EXPECTED}"
# columns that hold no errors: scale and shift of the alignment, number of evaluated pixels
RATIO, SHIFT, PIXELS = "scaling_ratio", "scaling_shift", "pixels"
FIXED = "fixed"  # alignment of --eval_stereo
ALIGNMENT_WORDS = {"median": "each prediction is scaled to the median of its ground truth",
                   "none": "predictions are not fitted to the ground truth",
                   FIXED: "one known factor for all predictions",
                   "scale": "each prediction is scaled by least squares",
                   "affine_depth": "each prediction is scaled and shifted by least squares",
                   "affine_disparity": "each 1 / prediction is scaled and shifted by least squares"}
READ_FROM_WEIGHTS = ("encoder.pth", "depth.pth", "camera.json")
READ_FOR_MOTIONS = ("pose_encoder.pth", "pose.pth")
HIGHER_IS_BETTER = ("a1", "a2", "a3", "edge_a1", "boundary_f1", "cloud_f", "cloud_precision",
                    "cloud_recall")
ALIGNMENT_FLAGS = ("alignment", "eval_mono", "eval_stereo", "disable_median_scaling")
# further flags that change the errors of one prediction
METHOD_FLAGS = ("eval_split", "post_process", "pred_depth_scale_factor", "min_depth", "max_depth",
                "gt_disparity", "eval_eigen_to_benchmark", "mask_dir", "temporal")
SOURCE_FLAGS = ("load_weights_folder", "ext_disp_to_eval")  # flags that name the prediction


def error_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns that hold errors."""
    return {name: values for name, values in columns.items()
            if name not in (RATIO, SHIFT, PIXELS)}


def chosen_alignment(opts: Namespace) -> str:
    """Return how the flags align predictions: a key of `ALIGNMENT_WORDS`."""
    if opts.eval_stereo:
        return FIXED
    return opts.alignment or ("none" if opts.disable_median_scaling else "median")


def describe_alignment(alignment: str, factor: float) -> str:
    """Return an alignment in words, with the factor of all predictions if it is not 1."""
    before = f"; before, all are multiplied by {factor:g}" if factor != 1 else ""
    return f"{alignment} ({ALIGNMENT_WORDS[alignment]}{before})"


def compute_intervals(lines: Sequence[str], columns: dict[str, np.ndarray]
                      ) -> tuple[dict[str, Interval], Resampled]:
    """Compute the mean of each error with its interval, and say what was resampled.

    Args:
        lines: split lines of the N images, whose folders are the drives.
        columns: (N,) values by name; NaN if an image has no value.
    """
    resampled = resampled_of(lines)
    return bootstrap(error_columns(columns), resampled.units), resampled


def resampled_of(lines: Sequence[str]) -> Resampled:
    """Choose what to resample for the images of these split lines, whose folders are the drives."""
    return choose_resampled([" ".join(line.split()[:1]) for line in lines])


def print_intervals(intervals: dict[str, Interval], resampled: Resampled, alignment: str) -> None:
    """Print each mean with its interval."""
    print(f"means over images, alignment {alignment}, {LEVEL:.0%} intervals by "
          f"{resampled.describe()}")
    width = _name_width(intervals)
    for name, (mean, low, high, images) in intervals.items():
        print(f"  {name:{width}} {mean:9.4f}   {low:9.4f} to {high:9.4f}   {images:6,} images")


def _name_width(names: Iterable[str]) -> int:
    """Return the width of the first column of a table of errors."""
    return max(14, *map(len, names))


def describe_evaluation(opts: Namespace) -> dict:
    """Return the origin of an evaluation: date, commit, flags, weights and their hashes."""
    if opts.ext_disp_to_eval:
        folder, names = Path(opts.ext_disp_to_eval).parent, [Path(opts.ext_disp_to_eval).name]
    else:
        folder, names = Path(opts.load_weights_folder), READ_FROM_WEIGHTS
        names += READ_FOR_MOTIONS if opts.temporal == PREDICTED else ()
    hashes = {name: _hash(folder / name) for name in names if (folder / name).exists()}
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": project_commit(), "flags": MonodepthOptions(DEPTH).used(opts),
            "alignment": chosen_alignment(opts),
            "weights": {"folder": str(folder.resolve()), "sha256": hashes}}


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of the PNGs of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.png")) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def project_commit() -> str | None:
    """Return the commit of this project, with -dirty if files differ from it; None without git."""
    words = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"]
    if (PROJECT / ".git").exists():  # otherwise git would name a repository around the project
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(words, capture_output=True, text=True, check=True,
                                  timeout=60).stdout.strip()
    return None


def evaluation_name(opts: Namespace) -> str:
    """Return <split>_<alignment>, which names the files of an evaluation."""
    return f"{Path(os.path.abspath(opts.eval_split)).name}_{chosen_alignment(opts)}"


def write_results(path: Path, lines: Sequence[str], columns: dict[str, np.ndarray],
                  intervals: dict[str, Interval], resampled: Resampled, origin: dict) -> None:
    """Write results as JSON, and the values of the images as CSV beside it.

    Args:
        path: of the JSON file.
        lines: split lines of the N images.
        columns: (N,) values by name.
        intervals: of the errors among the columns.
        resampled: what the intervals were resampled over.
        origin: further fields of the JSON file, as `describe_evaluation` returns them.

    Raises:
        DataError: a file cannot be written.
    """
    content = {"schema": SCHEMA} | origin | {
        "bootstrap": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED,
                      "over": resampled.kind},
        "metrics": {name: {field: _finite(value) for field, value in interval._asdict().items()}
                    for name, interval in intervals.items()},
        "lines": list(lines),
        "images": {name: [_finite(value) for value in values.tolist()]
                   for name, values in columns.items()}}
    # not the alignment: it is in the name of the file, and two spellings give the same one
    changes = _changed_flags(_read_origin(path)["flags"], origin.get("flags", {}),
                             SOURCE_FLAGS + METHOD_FLAGS)
    table = path.with_suffix(".csv")
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    write_atomically(table, _csv_text(lines, columns).encode())
    print(f"wrote {path} and {table.name}")
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


def _read_origin(path: str | Path) -> dict:
    """Return the flags and the alignment in a results file; {} and "unknown" where it has none."""
    try:
        fields = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        fields = {}
    fields = fields if isinstance(fields, dict) else {}
    flags = fields.get("flags")
    return {"flags": flags if isinstance(flags, dict) else {},
            "alignment": fields.get("alignment", "unknown")}


def _changed_flags(a: dict, b: dict, names: Sequence[str]) -> list[str]:
    """Return `--flag a / b` for each of these flags that is in both dicts and differs."""
    return [f"--{name} {a[name]} / {b[name]}" for name in names
            if name in a and name in b and a[name] != b[name]]


def list_results(folder: Path) -> list[Path]:
    """Return the results files of a folder; that of an earlier version counts if it is alone."""
    found = sorted(folder.glob(JSON_NAME.format("*_*")))
    return found or [path for path in (folder / OLD_NAME,) if path.is_file()]


def find_results(path: str | Path) -> Path:
    """Return the path of a results file, given itself or its folder.

    Raises:
        DataError: the folder has no results file, or more than one.
    """
    path = Path(path)
    found = list_results(path) if path.is_dir() else [path]
    if len(found) != 1:
        names = " and ".join(each.name for each in found)
        cure = f"{names}; name one of them, or move the others" if found else NO_RESULTS
        raise DataError(f"{path} has {cure}")
    return found[0]


def read_results(path: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read a results file, as `parse_results` returns it.

    Raises:
        DataError: the file is missing or broken.
    """
    path = Path(path)
    try:
        return parse_results(path.read_bytes(), path)
    except OSError as error:
        others = " and ".join(each.name for each in list_results(path.parent))
        raise DataError(f"{path} cannot be read: {error.strerror}; "
                        f"{f'its folder has {others}' if others else EXPECTED}") from None


def parse_results(content: bytes, name: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Parse and validate the content of a results file.

    Args:
        content: of the file.
        name: of the file, for the error.

    Returns:
        The split lines of the N images, and (N,) values by name, NaN for null.

    Raises:
        DataError: the content is broken, or of a newer version of this project.
    """
    try:
        fields = json.loads(content)
        is_newer = fields.get("schema", 0) > SCHEMA
        lines = fields["lines"]
        columns = {column: np.array(values, float)  # null becomes NaN
                   for column, values in fields["images"].items()}
        is_valid = (isinstance(lines, list) and all(isinstance(line, str) for line in lines)
                    and len(lines) > 0 and {PIXELS, DEPTH_METRICS[0]} <= columns.keys()
                    and all(values.shape == (len(lines),) and not np.isinf(values).any()
                            for values in columns.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        is_valid = is_newer = False
    if is_newer:
        raise DataError(f"{name} has schema {fields['schema']}, and this version reads up to "
                        f"{SCHEMA}; update the project, or evaluate again")
    if not is_valid:
        raise DataError(f"{name} is not a results file of a depth evaluation; evaluate again")
    return lines, columns


def read_means(path: str | Path) -> dict[str, float]:
    """Return the mean over images of each error in a results file.

    Raises:
        DataError: the file is missing or broken.
    """
    _, columns = read_results(path)
    return {name: float(np.nanmean(values)) for name, values in error_columns(columns).items()
            if not np.isnan(values).all()}


def compare_results(path_a: str | Path, path_b: str | Path) -> str:
    """Return a table of the differences between two evaluations of the same images.

    Args:
        path_a: a results file, or its folder.
        path_b: a results file, or its folder.

    Raises:
        DataError: a file is broken, or the two differ in their images or their evaluated pixels.
    """
    path_a, path_b = find_results(path_a), find_results(path_b)
    (lines, a), (other_lines, b) = read_results(path_a), read_results(path_b)
    if lines != other_lines:
        raise DataError(f"{path_a} has {len(lines)} images, {path_b} has {len(other_lines)}, and "
                        "the images or their order differ; evaluate both on one --eval_split")
    if (a[PIXELS] != b[PIXELS]).any():
        raise DataError(f"{path_a} and {path_b} differ in their ground truth: image "
                        f"{int((a[PIXELS] != b[PIXELS]).argmax())} has other pixels; evaluate both "
                        "with the same ground truth")
    # the difference of each image; resampled by drive, as the errors of one result are
    columns = {name: b[name] - a[name] for name in error_columns(a) if name in b}
    differences, resampled = compute_intervals(lines, columns)
    levels = correct_levels({name: level for name, level in sign_levels(
        columns, resampled.units).items() if not math.isnan(differences[name].low)})
    origin_a, origin_b = _read_origin(path_a), _read_origin(path_b)
    changes = _changed_flags(origin_a["flags"], origin_b["flags"],
                             ALIGNMENT_FLAGS + METHOD_FLAGS)
    width = _name_width(differences)
    rows = [f"A {path_a}, alignment {origin_a['alignment']}",
            f"B {path_b}, alignment {origin_b['alignment']}",
            *(f"A / B differ in {change}" for change in changes),
            f"B - A of {len(lines):,} images, paired, {LEVEL:.0%} intervals by "
            f"{resampled.describe()}"]
    if len(levels) > 1:
        rows.append(f"who is better holds for all {len(levels)} errors together at "
                    f"{1 - LEVEL:.0%} (Holm's correction); the intervals hold for one error each")
    rows.append(f"  {'':{width}} {'A':>9} {'B':>9} {'B - A':>9}   {'interval':^20}")
    for name, found in differences.items():
        both = ~np.isnan(columns[name])
        means = [values[name][both].mean() if both.any() else math.nan for values in (a, b)]
        rows.append(f"  {name:{width}} {means[0]:9.4f} {means[1]:9.4f} {found.mean:+9.4f}   "
                    f"{found.low:+8.4f} to {found.high:+8.4f}   "
                    f"{_verdict(name, found, levels.get(name, 1), resampled.kind)}")
    return "\n".join(rows)


def _verdict(name: str, difference: Interval, level: float, kind: str) -> str:
    """Say which of A and B is better, or why this cannot be said.

    Args:
        name: of the error.
        difference: B - A.
        level: of the difference, corrected for the number of errors.
        kind: what was resampled.
    """
    if math.isnan(difference.low):
        return f"too few {kind}"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.is_noise:
        return "noise: the interval contains 0"
    if level > 1 - LEVEL:
        return "noise among so many errors (Holm)"
    is_higher_better = name.startswith(HIGHER_IS_BETTER)
    return f"{'B' if (difference.mean > 0) == is_higher_better else 'A'} is better"
