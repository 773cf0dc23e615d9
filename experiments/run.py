"""Run the experiments of a list for several seeds and print a table: `python -m experiments.run`.

A line of a list is an experiment: commands that bash runs with the variables DATA (folder of the
images), OUT (folder of all results) and SEED. The last word is the folder of its own results.
"""
from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from itertools import product
from pathlib import Path

from experiments.lists import read_experiments
from experiments.table import markdown_table
from metrics import DEPTH_METRICS
from options import LOG_DIR, PROJECT
from runtime.arguments import OneLineParser, non_negative_int, path, whole_path
from runtime.errors import DataError, run
from runtime.files import check_data_path
from runtime.signals import StopRequest

BASH = """trap 'exit 143' TERM; python() { "$PYTHON" "$@"; }; set -ux"""


def run_all(lines: dict[str, str], opts: Namespace) -> int:
    """Run each line with each seed, one after the other, and return how many runs failed."""
    check_data_path(opts.data_path)
    try:
        opts.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {opts.out} cannot be made: {error.strerror}; choose another folder"
                        ) from None
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores that a terminal closes
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    os.environ.update(DATA=str(opts.data_path), OUT=str(opts.out), PYTHON=sys.executable)
    failed = 0
    with StopRequest() as stop:
        for (name, line), seed in product(lines.items(), opts.seeds):
            os.environ["SEED"] = str(seed)
            end = run_line(line, opts.out / f"{name}_{seed}.log", stop)
            print(f"{name}_{seed}: {end}", flush=True)
            failed += end != "done"
            if stop.number:
                sys.exit(128 + stop.number)
    return failed


def run_line(line: str, log: Path, stop: StopRequest) -> str:
    """Run a line in bash, add its output to a log, and return how the line ended."""
    try:
        with log.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until bash has ended, too
            print(f"{log.stem}: started; its output is in {log}", flush=True)
            # Ctrl-C must reach only this program, and bash must wait until its command has saved
            shell = subprocess.Popen(["bash", "-c", f"{BASH}; {line}"], cwd=PROJECT, stdout=file,
                                     stderr=file, start_new_session=True)
            while shell.poll() is None and not stop.number:
                time.sleep(0.1)
            if shell.returncode is None:
                os.killpg(shell.pid, signal.SIGTERM)
            return f"ended with status {shell.returncode}; see {log}" if shell.wait() else "done"
    except BlockingIOError:
        return "another process runs it already; wait until that process has ended"


def parse() -> Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m experiments.run", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("list", type=path, help="list of experiments, for example experiments/table_1.sh")
    add("--data_path", type=whole_path, default=PROJECT / "kitti_data", help="$DATA (%(default)s)")
    add("--out", type=whole_path, default=str(LOG_DIR), help="$OUT, and logs (%(default)s)")
    add("--seeds", nargs="+", type=non_negative_int, default=[1], help="values of $SEED (1)")
    add("--only", nargs="+", metavar="ROW", help="run these rows (default: all)")
    add("--metrics", nargs="+", default=["abs_rel", "a1"], choices=DEPTH_METRICS,
        help="depth errors in the table (abs_rel a1)")
    add("--table", action="store_true", help="run nothing, print the table of what has run")
    opts = parser.parse_args()
    opts.seeds = list(dict.fromkeys(opts.seeds))
    opts.out, opts.data_path = (folder.resolve() for folder in (opts.out, opts.data_path))
    return opts


def main() -> None:
    """Run the chosen experiments and print the table."""
    opts = parse()
    experiments = read_experiments(opts.list)
    if unknown := set(opts.only or []) - set(experiments):
        raise DataError(f"--only {' '.join(unknown)}: the list has {' '.join(experiments)}")
    chosen = {name: line for name, line in experiments.items() if name in (opts.only or [name])}
    failed = 0 if opts.table else run_all(chosen, opts)
    print(f"\n{markdown_table(chosen, opts.seeds, opts.out, opts.metrics)}")
    if failed:
        raise DataError(f"{failed} of {len(chosen) * len(opts.seeds)} runs failed; see above, and "
                        "run the same command again: what is finished is not trained again")


if __name__ == "__main__":
    run(main)
