"""Train for minutes; memory must stay flat, and nothing may leak: `python benchmarks/soak.py`.

Every second it notes the resident memory of train.py and of its workers, without pages of files,
which the kernel maps and takes back as it likes; their number, and how many files they hold open.
It fails where the last minute's size differs from the third's by more than 2 %, or where processes
or open files have become more. protobuf, which writes the logs, is asked for its Python code: the
compiled one has the C library give all free memory back now and then, which moves the size by a
fifth.
"""
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.errors import DataError, run

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1        # between looks
TOLERANCE = 0.02   # of the size in the third minute
SETTLED = 3        # the minute from which on nothing may grow


class Look(NamedTuple):
    """What the processes of a run hold at a time."""

    seconds: float
    main_mb: float
    workers_mb: float
    processes: int
    files: int


def look(main: int, started: float) -> Look:
    """Return what process `main` and its children hold now."""
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    sizes = {pid: _resident_mb(pid) for pid in (main, *children)}
    files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in sizes)
    return Look(time.monotonic() - started, sizes.pop(main), sum(sizes.values()), 1 + len(sizes),
                files)


def _resident_mb(pid: int | str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(status.partition(f"{kind}:")[2].split()[0]) / 1000
               for kind in ("RssAnon", "RssShmem"))


def minute(looks: list[Look], number: int, choose: Callable = min) -> dict[str, float]:
    """Return the least of a minute, counted from 1: a save is over soon, a leak stays."""
    chosen = [one for one in looks if number - 1 <= one.seconds / 60 < number]
    return {name: choose(getattr(one, name) for one in chosen) for name in Look._fields[1:]}


def report(looks: list[Look], minutes: int) -> list[str]:
    """Print a row a minute; return what has grown."""
    print("minute | train.py, MB | workers, MB | processes | open files")
    for number in range(1, minutes + 1):
        m = minute(looks, number)
        print(f"{number:6} | {m['main_mb']:12.1f} | {m['workers_mb']:11.1f} | "
              f"{m['processes']:9.1f} | {m['files']:10.1f}")
    before, after = minute(looks, SETTLED), minute(looks, minutes)
    grown = [f"{name} went from {before[name]:.1f} to {after[name]:.1f} MB"
             for name in ("main_mb", "workers_mb")
             if abs(after[name] - before[name]) > TOLERANCE * before[name]]
    # batches on their way hold some files open: those that stay are more than ever before
    before = minute(looks, SETTLED, max)
    return grown + [f"{name} went from {before[name]:.1f} to {after[name]:.1f}"
                    for name in ("processes", "files") if after[name] > before[name]]


def main() -> None:
    """Soak as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=10, help="how long, 4 or more (%(default)s)")
    opts = parser.parse_args()
    if opts.minutes <= SETTLED:
        parser.error(f"--minutes is {opts.minutes}; give {SETTLED + 1} or more")
    with tempfile.TemporaryDirectory() as name:
        drive = Path(name, "drive")
        subprocess.run([sys.executable, "-m", "synthetic.render", drive, "--frames", "100",
                        "--height", "64", "--width", "96"], cwd=ROOT, check=True)
        words = ["--data_path", drive, "--split", drive / "splits/drive", "--log_dir", name,
                 "--height", "64", "--width", "96", "--batch_size", "4", "--num_workers", "2",
                 "--weights_init", "scratch", "--no_cuda", "--num_epochs", "1000000",
                 "--save_frequency", "1000000", "--log_frequency", "20"]
        log = Path(name, "log.txt")
        with log.open("w") as file:
            training = subprocess.Popen(
                [sys.executable, "train.py", *map(str, words)], cwd=ROOT, stdout=file, stderr=file,
                env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"})
        started, looks = time.monotonic(), []
        try:
            while time.monotonic() - started < 60 * opts.minutes:
                time.sleep(SECONDS)
                if training.poll() is not None:
                    raise DataError(f"train.py ended: {log.read_text()[-2000:]}")
                looks.append(look(training.pid, started))
        finally:
            training.send_signal(signal.SIGTERM)
            status = training.wait(120)
        print(log.read_text().splitlines()[-1])
    grown = report(looks, opts.minutes)
    if status != 128 + signal.SIGTERM:
        grown.append(f"train.py ended with {status}, not {128 + signal.SIGTERM}")
    if grown:
        raise DataError("; ".join(grown))
    print("flat: nothing has grown")


if __name__ == "__main__":
    run(main)
