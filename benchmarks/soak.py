"""Train for minutes and check that nothing leaks: `python benchmarks/soak.py`.

Every second, the script samples train.py and its workers: resident memory without pages of files
(the kernel maps and reclaims those at will), number of processes, number of open files. The check
fails if the memory of the last minute differs from the third minute's by more than 2 %, or if the
number of processes or open files has grown.

protobuf, which writes the logs, runs its Python implementation: its compiled one makes the C
library return all free memory at times, which changes the memory by a fifth.
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
SECONDS = 1        # between samples
TOLERANCE = 0.02   # of the memory in the minute SETTLED
SETTLED = 3        # the minute after which nothing may grow


class Sample(NamedTuple):
    """Memory, processes and open files of a run at one moment."""

    seconds: float
    main_mb: float
    workers_mb: float
    processes: int
    files: int


def sample(main: int, started: float) -> Sample:
    """Sample the process `main` and its children."""
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    sizes = {pid: _resident_mb(pid) for pid in (main, *children)}
    files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in sizes)
    return Sample(time.monotonic() - started, sizes.pop(main), sum(sizes.values()), 1 + len(sizes),
                  files)


def _resident_mb(pid: int | str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(status.partition(f"{kind}:")[2].split()[0]) / 1000
               for kind in ("RssAnon", "RssShmem"))


def minute(samples: list[Sample], number: int, choose: Callable = min) -> dict[str, float]:
    """Return the minimum, or another choice, of each figure in a minute, counted from 1.

    The minimum ignores the memory of a save, which is freed soon; a leak remains.
    """
    chosen = [one for one in samples if number - 1 <= one.seconds / 60 < number]
    return {name: choose(getattr(one, name) for one in chosen) for name in Sample._fields[1:]}


def report(samples: list[Sample], minutes: int) -> list[str]:
    """Print a row for each minute; return a text for each figure that has grown."""
    print("minute | train.py, MB | workers, MB | processes | open files")
    for number in range(1, minutes + 1):
        m = minute(samples, number)
        print(f"{number:6} | {m['main_mb']:12.1f} | {m['workers_mb']:11.1f} | "
              f"{m['processes']:9.1f} | {m['files']:10.1f}")
    before, after = minute(samples, SETTLED), minute(samples, minutes)
    grown = [f"{name} went from {before[name]:.1f} to {after[name]:.1f} MB"
             for name in ("main_mb", "workers_mb")
             if abs(after[name] - before[name]) > TOLERANCE * before[name]]
    # batches in transit keep files open, so compare with the maximum
    before = minute(samples, SETTLED, max)
    return grown + [f"{name} went from {before[name]:.1f} to {after[name]:.1f}"
                    for name in ("processes", "files") if after[name] > before[name]]


def main() -> None:
    """Train for the minutes of the command line, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=10,
                        help="minutes to train, at least 4 (%(default)s)")
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
        started, samples = time.monotonic(), []
        try:
            while time.monotonic() - started < 60 * opts.minutes:
                time.sleep(SECONDS)
                if training.poll() is not None:
                    raise DataError(f"train.py ended: {log.read_text()[-2000:]}")
                samples.append(sample(training.pid, started))
        finally:
            training.send_signal(signal.SIGTERM)
            status = training.wait(120)
        print(log.read_text().splitlines()[-1])
    grown = report(samples, opts.minutes)
    if status != 128 + signal.SIGTERM:
        grown.append(f"train.py ended with {status}, not {128 + signal.SIGTERM}")
    if grown:
        raise DataError("; ".join(grown))
    print("flat: nothing has grown")


if __name__ == "__main__":
    run(main)
