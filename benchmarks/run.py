"""Measure the speed of this project beside the literal pipeline: `python benchmarks/run.py`.

The two sides of a row work in turns, so that a slower moment of the machine slows both. A row's
ratio is the median over its turns; its spread is the smallest and the largest ratio.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image
from tqdm import tqdm

from datasets.splits import compact
from runtime.arguments import whole_path
from runtime.errors import DataError, run
from runtime.files import write_atomically
from synthetic.render import TRAIN

ROOT = Path(__file__).resolve().parent.parent
DRIVE = "2011_09_26/2011_09_26_drive_0000_sync"
TRAIN_FRAMES, TEST_FRAMES = 42, 240  # 40 training samples
QUALITY = 92                  # of the KITTI JPEGs that the published models were trained on
EIGEN_ZHOU_SAMPLES = 796_200  # 39,810 an epoch, 20 epochs
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # what OpenMP does without `runtime.openmp`


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: the first cell.
        unit: of the figures.
        task: name of a function in `benchmarks.tasks`, or "whole" for a whole training run.
        fast: flags of this project's side.
        literal: flags of the literal pipeline.
        repeats: number of measured turns.
        left: what the literal side is: "literal", the literal pipeline; "spinning", this project,
            whose waiting threads spin; "alone", one process of this project beside two at once.
        busy: number of processes that compute all the time beside both sides.
    """

    name: str
    unit: str
    task: str
    fast: str = ""
    literal: str = ""
    repeats: int = 5
    left: str = "literal"
    busy: int = 0


CPU_STEP = "--batch_size 4 --no_cuda"
SMALL_STEP = f"--height 64 --width 192 {CPU_STEP}"
GPU_STEP = "--batch_size 12"
WHOLE_CPU = f"{CPU_STEP} --num_workers 2 --num_epochs 9"
FIRST_STEPS = "--batch_size 2 --no_cuda --num_workers 2 --num_epochs 1"
WHOLE_GPU = f"{GPU_STEP} --num_workers {os.cpu_count()} --num_epochs 200"
ROWS = [
    Row("loader, one core", "items/s", "loader"),
    Row("loader, one core; the original reads scans too", "items/s", "loader", "", "--scans", 3),
    Row("loader from the cache, one core", "items/s", "loader", "--cache"),
    Row("memory of a worker (less is better)", "MB", "memory", repeats=3),
    Row("step fp32, CPU", "samples/s", "step", CPU_STEP, CPU_STEP, 3),
    Row("step fp32 --compile, CPU", "samples/s", "step", f"{CPU_STEP} --compile", CPU_STEP, 3),
    Row("step bf16 --compile, CPU", "samples/s", "step",
        f"{CPU_STEP} --compile --precision bf16", CPU_STEP, 2),
    Row("train.py, 90 steps, 2 workers, bf16 --compile, CPU", "runs/h", "whole",
        f"{WHOLE_CPU} --precision bf16 --compile", WHOLE_CPU, 2),
    Row("from the command to step 20, 2 workers, CPU", "runs/h", "whole", FIRST_STEPS, FIRST_STEPS,
        2),
    Row("step alone, CPU; left: threads spin", "samples/s", "step", CPU_STEP, CPU_STEP, 7,
        "spinning"),
    Row("step at 64x192 alone, CPU; left: threads spin", "samples/s", "step", SMALL_STEP,
        SMALL_STEP, 7, "spinning"),
    Row("step at 64x192 beside a busy process, CPU; left: threads spin", "samples/s", "step",
        SMALL_STEP, SMALL_STEP, 7, "spinning", 1),
    Row("step at 64x192 beside two busy processes, CPU; left: threads spin", "samples/s", "step",
        SMALL_STEP, SMALL_STEP, 5, "spinning", 2),
    Row("two trainings at 64x192 at once, CPU; left: one", "samples/s", "step", SMALL_STEP,
        SMALL_STEP, 7, "alone"),
    Row("export_gt_depth.py", "frames/s", "export"),
    Row("evaluate_depth.py, CPU", "images/s", "evaluate", "--no_cuda", "--no_cuda", 2),
]
GPU_ROWS = [
    Row("step fp32, GPU", "samples/s", "step", GPU_STEP, GPU_STEP),
    Row("step fp32 --compile, GPU", "samples/s", "step", f"{GPU_STEP} --compile", GPU_STEP),
    Row("step bf16, GPU", "samples/s", "step", f"{GPU_STEP} --precision bf16", GPU_STEP),
    Row("step bf16 --compile, GPU", "samples/s", "step",
        f"{GPU_STEP} --compile --precision bf16", GPU_STEP),
    Row("train.py, all cores, bf16 --compile, GPU", "runs/h", "whole",
        f"{WHOLE_GPU} --precision bf16 --compile", WHOLE_GPU, 2),
    Row("evaluate_depth.py, GPU", "images/s", "evaluate"),
]


def find_frames(data_path: Path) -> list[tuple[Path, Path | None]]:
    """Find the drive with the most scans; return its left images and their scans.

    Raises:
        DataError: no drive has scans.
    """
    drives = sorted({path.parents[2] for path in data_path.glob("*/*/image_02/data/*.*")})
    found = {drive: [(image, drive / f"velodyne_points/data/{image.stem}.bin") for image in
                     sorted((drive / "image_02/data").iterdir())] for drive in drives}
    found = {drive: [pair for pair in pairs if pair[1].is_file()] for drive, pairs in found.items()}
    best = max(found, key=lambda drive: len(found[drive]), default=None)
    if best is None or not found[best]:
        raise DataError(f"--data_path {data_path} has no raw drive with velodyne scans; leave it "
                        "out to measure on rendered frames")
    return found[best]


def prepare(data_path: Path | None, folder: Path) -> None:
    """Make a drive with scans and split lists, in JPEGs of KITTI's size.

    Args:
        data_path: KITTI's raw folder; None renders the frames.
        folder: the folder to write to.
    """
    if data_path is None:
        data_path = folder / "rendered"
        subprocess.run([sys.executable, "-m", "synthetic.render", data_path, "--frames", "24",
                        "--height", "384", "--width", "1248"], cwd=ROOT, check=True)
        frames = find_frames(data_path)
        assert frames[0][0].parents[2] == data_path / TRAIN
    else:
        frames = find_frames(data_path)
    images, scans = folder / DRIVE / "image_02/data", folder / DRIVE / "velodyne_points/data"
    images.mkdir(parents=True)
    scans.mkdir(parents=True)
    for file in frames[0][0].parents[3].glob("calib_*.txt"):
        shutil.copy(file, folder / DRIVE.partition("/")[0])
    for i in range(TEST_FRAMES):
        image, scan = frames[i % len(frames)]
        shutil.copy(scan, scans / f"{i:010d}.bin")
        if i < len(frames):
            Image.open(image).convert("RGB").save(images / f"{i:010d}.jpg", quality=QUALITY,
                                                  subsampling="4:2:0")
        else:
            shutil.copy(images / f"{i % len(frames):010d}.jpg", images / f"{i:010d}.jpg")
    (folder / "split").mkdir()
    for name, numbers in (("train", range(1, TRAIN_FRAMES - 1)), ("val", range(1, 13)),
                          ("test", range(TEST_FRAMES))):
        lines = compact(f"{DRIVE} {i} l" for i in numbers)
        write_atomically(folder / f"split/{name}_files.txt", lines.encode())


class Side:
    """One side of a row, in another process that waits for its turns."""

    def __init__(self, row: Row, side: str, folder: Path):
        flags = getattr(row, side).split()
        self.errors = folder / f"{side}.log"
        code = side if row.left == "literal" else "fast"
        spins = side == "literal" and row.left == "spinning"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tasks", row.task, code, str(folder), *flags],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors.open("w"), env=os.environ | SPINNING if spins else None)
        self._answer()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise DataError(f"a benchmark failed: {' '.join(self.process.args)}: "
                            f"{self.errors.read_text()[-2000:]}")
        return line

    def begin(self) -> None:
        """Start one turn."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        """Wait for the end of a turn; return the amount of work, the seconds and the GPU memory."""
        return json.loads(self._answer())

    def work(self) -> dict:
        """Do one turn; return what `answer` returns."""
        self.begin()
        return self.answer()

    def end(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


class TwoAtOnce:
    """A side of two processes that do the same work at the same time."""

    def __init__(self, row: Row, side: str, folder: Path):
        self.sides = [Side(row, side, folder) for _ in range(2)]

    def work(self) -> dict:
        """Do one turn in both processes; return their amount in sum, until the later one ends."""
        for side in self.sides:
            side.begin()
        answers = [side.answer() for side in self.sides]
        return {"amount": sum(answer["amount"] for answer in answers),
                "seconds": max(answer["seconds"] for answer in answers),
                "gpu_memory": sum(answer["gpu_memory"] for answer in answers)}

    def end(self) -> None:
        """End both processes."""
        for side in self.sides:
            side.end()


class WholeRun:
    """One side of a row that runs a training command from start to end."""

    def __init__(self, row: Row, side: str, folder: Path):
        script = ["train.py", "--overwrite"] if side == "fast" else ["benchmarks/literal.py",
                                                                     "train"]
        self.command = [sys.executable, *script, "--data_path", folder, "--split", folder / "split",
                        "--weights_init", "scratch", "--log_dir", folder / "log",
                        *getattr(row, side).split()]

    def work(self) -> dict:
        """Run the command once."""
        started = time.perf_counter()
        done = subprocess.run(self.command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise DataError(f"a benchmark failed: {self.command}: {done.stderr[-2000:]}")
        return {"amount": 3600, "seconds": time.perf_counter() - started, "gpu_memory": 0}

    def end(self) -> None:
        """Do nothing: the command has ended."""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let a number of processes compute inside this context."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start_side(row: Row, side: str, folder: Path) -> Side | TwoAtOnce | WholeRun:
    """Start one side of a row; a whole run starts with each turn."""
    if row.task == "whole":
        return WholeRun(row, side, folder)
    if row.left == "alone" and side == "fast":
        return TwoAtOnce(row, side, folder)
    return Side(row, side, folder)


def measure(row: Row, folder: Path) -> dict:
    """Measure a row; return the medians of both sides, the median ratio and its spread."""
    sides = {side: start_side(row, side, folder) for side in ("fast", "literal")}
    values = {"fast": [], "literal": []}
    memory = {"fast": 0, "literal": 0}
    if row.task != "whole":  # the first turn warms up
        for process in sides.values():
            process.work()
    with busy_processes(row.busy):
        for _ in range(row.repeats):
            for side, process in sides.items():
                answer = process.work()
                memory[side] = answer["gpu_memory"]
                values[side].append(answer["amount"] if row.task == "memory" else
                                    answer["amount"] / answer["seconds"])
    for process in sides.values():
        process.end()
    ratios = [fast / other for fast, other in zip(*values.values(), strict=True)]
    return {"name": row.name, "unit": row.unit, "fast": statistics.median(values["fast"]),
            "literal": statistics.median(values["literal"]), "ratio": statistics.median(ratios),
            "lowest": min(ratios), "highest": max(ratios), "gpu_memory": memory,
            "all": values}


def machine() -> str:
    """Describe this machine: cores, CPU, GPU and the version of PyTorch."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = info.read_text().partition("model name")[2].partition(":")[2].partition("\n")[0]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{os.cpu_count()} cores of {cpu.strip()}{gpu}, torch {torch.__version__}"


def table(results: list[dict]) -> str:
    """Format the results as a Markdown table."""
    lines = ["| | literal | this project | | ratio | spread |", "|---|---|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['name']} | {r['literal']:.3g} | {r['fast']:.3g} | {r['unit']} | "
                     f"{r['ratio']:.2f} | {r['lowest']:.2f}-{r['highest']:.2f} |")
        if "step" not in r["name"] or "GPU" not in r["name"]:
            continue
        fast, literal = (r["gpu_memory"][side] / 1e9 for side in ("fast", "literal"))
        lines.append(f"| its memory on the GPU | {literal:.2f} | {fast:.2f} | GB | "
                     f"{fast / literal:.2f} | |")
        fast, literal = (EIGEN_ZHOU_SAMPLES / r[side] / 60 for side in ("fast", "literal"))
        lines.append(f"| 20 epochs of Eigen-Zhou at its rate | {literal:.0f} | {fast:.0f} | "
                     "minutes | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure the rows of the command line; print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_path", type=whole_path,
                        help="KITTI's raw folder (default: rendered frames)")
    parser.add_argument("--only", default="", help="measure only rows whose name contains this")
    parser.add_argument("--out", type=whole_path, default=ROOT / "benchmarks/results.json",
                        help="JSON file for all values (%(default)s)")
    opts = parser.parse_args()
    rows = [row for row in ROWS + GPU_ROWS * torch.cuda.is_available() if opts.only in row.name]
    if not rows:
        parser.error(f"--only {opts.only} names no row")
    with tempfile.TemporaryDirectory() as name:
        prepare(opts.data_path, Path(name))
        results = [measure(row, Path(name)) for row in tqdm(rows, desc="measuring")]
    print(f"{machine()}\n\n{table(results)}")
    write_atomically(opts.out, json.dumps({"machine": machine(), "rows": results},
                                          indent=1).encode())
    print(f"\nwrote {opts.out}")


if __name__ == "__main__":
    run(main)
