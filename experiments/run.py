"""Run rows of a list for several seeds, and print means and spreads: `python -m experiments.run`.

A line of a list is a row of a table: command lines of this project, joined by `&&`, in which $DATA,
$OUT and $SEED stand for the folder of the images, that of the runs, and the seed. A row's
evaluations write to the folder $OUT/NAME_$SEED, which is what the line ends with.
"""
from __future__ import annotations

import argparse
import io
import math
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from itertools import product
from pathlib import Path
from string import Template
from typing import NamedTuple, TextIO

from evaluation.results import JSON_NAME, read_means
from evaluation.trajectory_files import SCORES_NAME, read_five_frame_error
from metrics.depth import DEPTH_METRICS
from options import (
    DEPTH,
    POSE,
    PROJECT,
    TRAIN,
    MonodepthOptions,
    OneLineParser,
    non_negative_int,
    positive,
)
from runtime.errors import DataError, run
from runtime.files import check_data_path, lock, readlines
from utils import sec_to_hm_str

FOLDER = re.compile(r"\$OUT/(\w+)_\$SEED")
FORM = ("expected `python train.py ...`, evaluate_depth.py or evaluate_pose.py, joined by ` && `, "
        "and a folder \"$OUT\"/NAME_$SEED at the end, NAME of letters, digits and _")


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: of its folder.
        needs: the rows whose weights it begins with, or evaluates.
        words: of its line, as a shell splits it.
    """

    name: str
    needs: set[str]
    words: list[str]

    def commands(self, data_path: str, out: Path, seed: int) -> list[list[str]]:
        """Return the words of each command, the script's name first."""
        variables = {"DATA": data_path, "OUT": str(out), "SEED": seed}
        commands = [[]]
        for word in self.words:
            if word == "&&":
                commands.append([])
            else:
                commands[-1].append(Template(word).substitute(variables))
        return [command[1:] for command in commands]


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a list.

    Raises:
        DataError: it is missing, or a line (named) is no row, or not one after those it needs.
    """
    rows = {}
    lines = [(number, line) for number, line in enumerate(readlines(path), 1)
             if line.strip() and not line.startswith("#")]
    for number, line in lines:
        where = f"{path}, line {number}"
        row = parse_row(line, where)
        if row.name in rows:
            raise DataError(f"{where} is another row {row.name}; rename one")
        rows[row.name] = row
    if not rows:
        raise DataError(f"{path} has no rows; {FORM}")
    names = list(rows)
    for i, row in enumerate(rows.values()):
        if late := row.needs & set(names[i:]):
            raise DataError(f"{path}: the row {row.name} needs {', '.join(late)}, which comes "
                            "after it; put that first")
    return list(rows.values())


def parse_row(line: str, where: str) -> Row:
    """Return the row that a line is; `where` is for errors.

    Raises:
        DataError: it is none.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}; {FORM}") from None
    folders = FOLDER.findall(line.replace('"', ""))
    if not folders or FOLDER.fullmatch(words[-1]) is None:
        raise DataError(f"{where}: found {line!r}; {FORM}")
    row = Row(folders[-1], set(folders) - {folders[-1]}, words)
    try:
        commands = row.commands("DATA", Path("OUT"), 0)
    except (KeyError, ValueError) as error:
        raise DataError(f"{where}: found a $ that is none of $DATA, $OUT and $SEED ({error}); "
                        f"{FORM}") from None
    for command in commands:
        kind = command[0].removesuffix(".py") if command else ""
        if kind not in (TRAIN, DEPTH, POSE):
            raise DataError(f"{where}: found {line!r}; {FORM}")
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                MonodepthOptions(kind).parse(command[1:])
        except SystemExit:
            reason = said.getvalue().partition("error: ")[2].strip()
            raise DataError(f"{where}: {command[0]}: {reason}") from None
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


class Runner:
    """Runs rows, each in processes of their own; `stop` asks all of them to end."""

    def __init__(self, opts: argparse.Namespace):
        self.opts, self.stopped = opts, threading.Event()
        self.processes: set[subprocess.Popen] = set()
        self.environment = dict(os.environ)
        if opts.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // opts.jobs)
            self.environment.setdefault("OMP_NUM_THREADS", str(threads))

    def run_all(self, rows: list[Row]) -> int:
        """Run rows for all seeds, --jobs at once; return how many failed."""
        futures: dict[tuple[str, int], Future] = {}
        with ThreadPoolExecutor(self.opts.jobs) as pool, self._stopped_by_signals():
            for row, seed in product(rows, self.opts.seeds):
                needs = {name: futures[name, seed] for name in row.needs if (name, seed) in futures}
                futures[row.name, seed] = pool.submit(self._run, row, seed, needs)
            return sum(not future.result() for future in futures.values())

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Ask what runs to end when Ctrl-C or SIGTERM ends this; rows that wait do not begin."""
        former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.stopped.set()
            print("stopping what runs; the same command goes on", flush=True)
            for process in list(self.processes):
                process.terminate()  # train.py saves; a Ctrl-C just before counts as the same
            raise
        finally:
            signal.signal(signal.SIGTERM, former)

    def _run(self, row: Row, seed: int, needs: dict[str, Future]) -> bool:
        """Run a row once those that it needs have run; return whether all went well."""
        name, started = f"{row.name}_{seed}", time.monotonic()
        failed = [need for need, future in needs.items() if not future.result()]
        if failed and not self.stopped.is_set():
            print(f"{name}: not run, for it needs {', '.join(failed)}, which failed", flush=True)
        if failed or self.stopped.is_set():
            return False
        log = self.opts.out / f"{name}.log"
        try:
            with log.open("a") as file:
                if not lock(file):
                    print(f"{name}: another process runs it already; wait, or end that", flush=True)
                    return False
                print(f"{name}: begun; its output is in {log}", flush=True)
                for words in row.commands(self.opts.data_path, self.opts.out, seed):
                    status = self._call(words, file)
                    if status or self.stopped.is_set():
                        how = "stopped" if self.stopped.is_set() else f"ended with status {status}"
                        print(f"{name}: {words[0]} {how}; see {log}", flush=True)
                        return False
        except OSError as error:
            print(f"{name}: {log} cannot be written: {error.strerror}", flush=True)
            return False
        print(f"{name}: done in {sec_to_hm_str(time.monotonic() - started)}", flush=True)
        return True

    def _call(self, words: list[str], file: TextIO) -> int:
        """Run a script, its output to a file that its processes keep locked; return its status."""
        file.write(f"\n$ python {shlex.join(words)}\n")
        file.flush()
        process = subprocess.Popen([sys.executable, *words], cwd=PROJECT, env=self.environment,
                                   stdout=file, stderr=subprocess.STDOUT)
        self.processes.add(process)
        if self.stopped.is_set():
            process.terminate()
        try:
            return process.wait()
        finally:
            self.processes.remove(process)


def found_errors(folder: Path, metrics: list[str]) -> dict[str, float]:
    """Return the errors that a row's evaluations have written, by name; none before they ran.

    Raises:
        DataError: a file is broken.
    """
    errors = {}
    if (folder / JSON_NAME).is_file():
        means = read_means(folder / JSON_NAME)
        errors = {name: means[name] for name in metrics}
    for path in sorted(folder.glob(SCORES_NAME.format("*"))):
        number = path.stem.rpartition("_")[2]
        errors[f"5-frame {number}, m"] = read_five_frame_error(path)
    return {name: value for name, value in errors.items() if math.isfinite(value)}


def table(rows: list[Row], opts: argparse.Namespace) -> str:
    """Return the means and standard deviations over seeds as a table of Markdown."""
    found = {row.name: [errors for seed in opts.seeds if (
        errors := found_errors(opts.out / f"{row.name}_{seed}", opts.metrics))] for row in rows}
    columns = list(dict.fromkeys(name for runs in found.values() for one in runs for name in one))
    lines = [["row", "seeds", *columns], ["---"] * (2 + len(columns))]
    for name, runs in found.items():
        cells = [mean_and_spread([one[column] for one in runs if column in one], len(runs))
                 for column in columns]
        lines.append([name, str(len(runs)), *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_spread(values: list[float], runs: int) -> str:
    """Return "mean ± standard deviation" (of a sample: n - 1), and n where it is not `runs`."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    fewer = f" (of {len(values)})" if len(values) < runs else ""
    return f"{statistics.mean(values):.4f}{spread}{fewer}"


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m experiments.run",
                           description="Run rows of a list for several seeds.")
    parser.add_argument("list", help="such as experiments/table_1.sh")
    parser.add_argument("--data_path", type=Path, default=PROJECT / "kitti_data",
                        help="$DATA of its lines (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path.home() / "tmp",
                        help="$OUT: weights, results and output of each run (%(default)s)")
    parser.add_argument("--seeds", nargs="+", type=non_negative_int, default=[1],
                        help="$SEED; the table has their mean and standard deviation (1)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="run these rows (default: all)")
    parser.add_argument("--jobs", type=positive(int), default=1,
                        help="rows to run at once; on a CPU they share its cores (%(default)s)")
    parser.add_argument("--metrics", nargs="+", default=["abs_rel", "a1"], choices=DEPTH_METRICS,
                        help="depth errors in the table (abs_rel a1)")
    parser.add_argument("--table", action="store_true", help="only print the table of what has run")
    opts = parser.parse_args()
    opts.seeds = list(dict.fromkeys(opts.seeds))
    opts.out, opts.data_path = (path.expanduser().resolve() for path in (opts.out, opts.data_path))
    return opts


def main() -> None:
    """Run, and print the table."""
    opts = parse()
    rows = choose(read_rows(opts.list), opts.only)
    failed = 0
    if not opts.table:
        check_data_path(opts.data_path)
        try:
            opts.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"--out {opts.out} cannot be written: {error.strerror}; choose another "
                            "folder") from None
        failed = Runner(opts).run_all(rows)
    print(f"\n{table(rows, opts)}")
    if failed:
        raise DataError(f"{failed} of {len(rows) * len(opts.seeds)} runs failed; see above, and "
                        "run the same command again: what is finished is not trained again")


if __name__ == "__main__":
    run(main)
