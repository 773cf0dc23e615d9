"""Run rows of a list for several seeds, and print means and spreads: `python -m experiments.run`.

A line of a list is a row of a table: command lines of this project, joined by `&&`, in which $DATA,
$OUT and $SEED stand for the folder of the images, that of the runs, and the seed.
"""
from __future__ import annotations

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from string import Template
from typing import NamedTuple

from metrics import DEPTH_METRICS
from options import DEPTH, POSE, MonodepthOptions, natural, positive
from results import JSON_NAME, read_means
from trajectories import SCORES_NAME, read_five_frame_error
from utils import DataError, readlines, run, sec_to_hm_str

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = re.compile(r"\$OUT/(\w+)_\$SEED")
SHOWN = ("abs_rel", "a1")  # of the depth errors, unless --metrics says otherwise


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: of the folder in $OUT that its line ends with.
        needs: the rows whose weights it begins with, or evaluates.
        line: of the list.
    """

    name: str
    needs: set[str]
    line: str

    def commands(self, data_path: str, out: Path, seed: int) -> list[list[str]]:
        """Return the words of each command, the script's name first."""
        line = Template(self.line).substitute(
            DATA=shlex.quote(data_path), OUT=shlex.quote(str(out)), SEED=seed)
        return [shlex.split(command)[1:] for command in line.split(" && ")]


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a list.

    Raises:
        DataError: it is missing, or a line is none of a row.
    """
    rows = {}
    for number, line in enumerate(readlines(path), 1):
        if line.strip() and not line.startswith("#"):
            row = parse_row(line, f"{path}, line {number}")
            if row.name in rows:
                raise DataError(f"{path}, line {number} is another row {row.name}; rename one")
            rows[row.name] = row
    return list(rows.values())


def parse_row(line: str, where: str) -> Row:
    """Return the row that a line is; `where` is for errors.

    Raises:
        DataError: it is none.
    """
    folders = FOLDER.findall(line)
    if not folders or not all(command.startswith("python ") for command in line.split(" && ")):
        raise DataError(f"{where}: found {line!r}; expected commands such as `python train.py ...`,"
                        " joined by ` && `, the last one with a folder $OUT/NAME_$SEED")
    row = Row(folders[-1], set(folders) - {folders[-1]}, line)
    try:
        row.commands("", Path(), 0)
    except KeyError as error:
        raise DataError(f"{where}: found ${error.args[0]}; a line knows $DATA, $OUT and "
                        "$SEED") from None
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    return row


def choose(rows: list[Row], only: list[str] | None) -> list[Row]:
    """Return the rows that --only names.

    Raises:
        DataError: there is no such row.
    """
    names = [row.name for row in rows]
    for name in only or []:
        if name not in names:
            raise DataError(f"--only {name} is no row of the list; it has {' '.join(names)}")
    return [row for row in rows if not only or row.name in only]


def run_row(row: Row, opts: argparse.Namespace, seed: int, before: list[Future]) -> bool:
    """Run a row's commands, output to a log; return whether all went well.

    Args:
        row: that is run.
        opts: of the command line.
        seed: of the run.
        before: the rows that it needs, which are waited for.
    """
    for future in before:
        future.result()
    name, started = f"{row.name}_{seed}", time.monotonic()
    log = opts.out / f"{name}.log"
    environment = dict(os.environ)
    if opts.jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // opts.jobs)))
    print(f"{name}: begun; its output is in {log}", flush=True)
    with log.open("w") as file:
        for words in row.commands(opts.data_path, opts.out, seed):
            status = subprocess.run([sys.executable, *words], cwd=PROJECT, env=environment,
                                    stdout=file, stderr=subprocess.STDOUT).returncode
            if status:
                print(f"{name}: {words[0]} ended with status {status}; see {log}", flush=True)
                return False
    print(f"{name}: done in {sec_to_hm_str(time.monotonic() - started)}", flush=True)
    return True


def run_rows(rows: list[Row], opts: argparse.Namespace) -> int:
    """Run rows for all seeds, --jobs at once; return how many failed."""
    opts.out.mkdir(parents=True, exist_ok=True)
    futures: dict[tuple[str, int], Future] = {}
    pool = ThreadPoolExecutor(opts.jobs)
    try:
        for row, seed in product(rows, opts.seeds):
            before = [futures[name, seed] for name in row.needs if (name, seed) in futures]
            futures[row.name, seed] = pool.submit(run_row, row, opts, seed, before)
        return sum(not future.result() for future in futures.values())
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, which what runs gets too


def found_errors(row: Row, opts: argparse.Namespace, seed: int) -> dict[str, float]:
    """Return the errors that a row's evaluations have written, by name; none before they ran."""
    errors = {}
    for script, *words in row.commands(opts.data_path, opts.out, seed):
        kind = script.removesuffix(".py")
        if kind not in (DEPTH, POSE):
            continue
        evaluation = MonodepthOptions(kind).parse(words)
        folder = Path(evaluation.eval_out_dir or evaluation.load_weights_folder)
        if kind == DEPTH and (folder / JSON_NAME).is_file():
            means = read_means(folder / JSON_NAME)
            errors |= {name: means[name] for name in opts.metrics}
        elif kind == POSE:
            for path in sorted(folder.glob(SCORES_NAME.format("*"))):
                errors[f"5-frame {path.stem[-2:]}"] = read_five_frame_error(path)
    return errors


def table(rows: list[Row], opts: argparse.Namespace) -> str:
    """Return the means and standard deviations over seeds as a table of markdown."""
    found = {row.name: [errors for seed in opts.seeds
                        if (errors := found_errors(row, opts, seed))] for row in rows}
    columns = list(dict.fromkeys(name for runs in found.values() for one in runs for name in one))
    lines = [["row", "seeds", *columns], ["---"] * (2 + len(columns))]
    for name, runs in found.items():
        values = [[one[column] for one in runs if column in one] for column in columns]
        lines.append([name, str(len(runs)), *map(mean_and_spread, values)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_spread(values: list[float]) -> str:
    """Return "mean ± standard deviation" (of a sample: n - 1), as far as there are values."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.run",
                                     description="Run rows of a list for several seeds.")
    parser.add_argument("list", help="such as experiments/table_1.sh")
    parser.add_argument("--data_path", default=str(PROJECT / "kitti_data"),
                        help="$DATA of its lines (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path.home() / "tmp",
                        help="$OUT: weights, results and output of each run (%(default)s)")
    parser.add_argument("--seeds", nargs="+", type=natural, default=[1],
                        help="$SEED; the table has their mean and standard deviation (1)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="run these rows (default: all)")
    parser.add_argument("--jobs", type=positive(int), default=1,
                        help="rows to run at once; on a CPU they share its cores (%(default)s)")
    parser.add_argument("--metrics", nargs="+", default=SHOWN, choices=DEPTH_METRICS,
                        help="depth errors in the table (abs_rel a1)")
    parser.add_argument("--table", action="store_true", help="print the table of what has run")
    opts = parser.parse_args()
    opts.out = opts.out.expanduser().resolve()
    opts.data_path = str(Path(opts.data_path).resolve())
    return opts


def main() -> None:
    """Run, and print the table."""
    opts = parse()
    rows = choose(read_rows(opts.list), opts.only)
    failed = 0 if opts.table else run_rows(rows, opts)
    print(f"\n{table(rows, opts)}")
    if failed:
        raise DataError(f"{failed} of {len(rows) * len(opts.seeds)} runs failed; see above, and "
                        "run the same command again: what is finished is not trained again")


if __name__ == "__main__":
    run(main)
