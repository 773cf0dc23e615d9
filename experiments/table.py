"""Format the table of experiments: means and standard deviations of errors over seeds."""
from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from statistics import mean, stdev

from evaluation.results import find_results, list_results, read_means
from evaluation.trajectory_files import SCORES_NAME, read_five_frame_error


def markdown_table(names: Iterable[str], seeds: list[int], out: Path, metrics: list[str]) -> str:
    """Return a Markdown table with one row for each experiment.

    Args:
        names: of the experiments.
        seeds: with which they were run.
        out: folder of the results; those of a run are in its folder NAME_SEED.
        metrics: depth errors to show; odometry errors are always shown.
    """
    found = {name: [errors for seed in seeds if (errors := read_errors(
        out / f"{name}_{seed}", metrics))] for name in names}
    columns = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    lines = [["row", "seeds", *columns], ["---"] * (2 + len(columns))]
    for name, runs in found.items():
        values = ([run[column] for run in runs if column in run] for column in columns)
        lines.append([name, str(len(runs)), *(mean_and_spread(each, len(runs)) for each in values)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def read_errors(folder: Path, metrics: list[str]) -> dict[str, float]:
    """Return the errors that evaluations have written to a folder, by column of the table.

    Raises:
        DataError: a file is broken, or the folder has the results of several evaluations.
    """
    means = read_means(find_results(folder)) if list_results(folder) else {}
    errors = {metric: means[metric] for metric in metrics if metric in means}
    for path in sorted(folder.glob(SCORES_NAME.format("*"))):
        # files of several alignments have the same 5-frame error
        errors[f"5-frame {path.stem.split('_')[1]}, m"] = read_five_frame_error(path)
    return {column: error for column, error in errors.items() if isfinite(error)}


def mean_and_spread(values: list[float], runs: int) -> str:
    """Return "mean ± standard deviation" (of a sample: n - 1), and n where it is not `runs`."""
    if not values:
        return "-"
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    fewer = f" (of {len(values)})" if len(values) < runs else ""
    return f"{mean(values):.4f}{spread}{fewer}"
