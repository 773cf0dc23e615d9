"""Compare a GPU with the CPU, and measure its speed: `python benchmarks/gpu.py`, or `make gpu`.

The command renders its own frames, and takes less than 8 minutes. It writes all values as JSON, and
the tables as Markdown beside it.
"""
from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.run import EIGEN_ZHOU_SAMPLES, GPU_ROWS, ROOT, Row, machine, measure, prepare
from runtime.arguments import whole_path
from runtime.errors import DataError, UsageError, run
from runtime.files import write_atomically

ROWS = [row._replace(repeats=3) for row in GPU_ROWS if row.name in (
    "step fp32, GPU", "step bf16, GPU", "step bf16 --compile, GPU")]
COMPARED_FLAGS = ("--batch_size", "2")
LIMIT = 400    # seconds after the start by which a row must end, if it takes as long as the longest
SIDES = {"literal": "literal", "fast": "this project"}


def measure_row(row: Row, folder: Path) -> dict:
    """Measure the training step of a row on both sides, and its objective alone.

    Returns:
        What `benchmarks.run.measure` returns, and for each side "hours" for 20 epochs of
        Eigen-Zhou, and "objective": its share of a step.
    """
    step = measure(row, folder)
    objective = measure(row._replace(task="objective"), folder)
    return step | {
        "hours": {side: EIGEN_ZHOU_SAMPLES / step[side] / 3600 for side in SIDES},
        "objective": {side: step[side] / objective[side] for side in SIDES}}


def measure_rows(rows: Iterable[Row], folder: Path, end: float) -> Iterator[dict]:
    """Measure rows; a row that fails, or would end too late, says why.

    Args:
        rows: rows of the task "step".
        folder: data and split lists, as `benchmarks.run.prepare` writes them.
        end: value of `time.monotonic()` by which a row must end, if it takes as long as the
            longest row before it.
    """
    longest = 0.0
    for row in rows:
        started = time.monotonic()
        if started + longest > end:
            yield {"name": row.name, "reason": "there was no time left"}
            continue
        try:
            yield measure_row(row, folder)
        except DataError as error:  # such as too little memory on the GPU
            yield {"name": row.name, "reason": str(error)}
        longest = max(longest, time.monotonic() - started)


def speed_table(results: Iterable[dict]) -> str:
    """Format measured rows as a Markdown table, with a line for each side."""
    lines = ["| | | samples/s | ratio | spread | peak GB | 20 epochs of Eigen-Zhou, h | "
             "objective's share |", "|---|---|---|---|---|---|---|---|"]
    for result in results:
        if "reason" in result:
            lines.append(f"| {result['name']} | unmeasured: {result['reason']} | | | | | | |")
            continue
        for side, name in SIDES.items():
            ratio = ("1 | " if side == "literal" else
                     f"{result['ratio']:.2f} | {result['lowest']:.2f}-{result['highest']:.2f}")
            lines.append(f"| {result['name']} | {name} | {result[side]:.3g} | {ratio} | "
                         f"{result['gpu_memory'][side] / 1e9:.2f} | {result['hours'][side]:.2f} | "
                         f"{result['objective'][side]:.0%} |")
    return "\n".join(lines)


def agreement_table(agreements: Iterable) -> str:
    """Format agreements as a Markdown table."""
    return "\n".join(["| compared with the CPU in float32 | |", "|---|---|",
                      *(f"| {found.name} | {found.verdict()} |" for found in agreements)])


def write_report(path: Path, agreements: list, results: list[dict]) -> str:
    """Write the JSON and, beside it, the Markdown; return the Markdown."""
    content = {"machine": machine(), "rows": results, "agreements": [
        found._asdict() | {"verdict": found.verdict(),
                           # JSON has no NaN
                           "difference": found.difference if math.isfinite(found.difference or 0)
                           else None} for found in agreements]}
    markdown = f"{machine()}\n\n{agreement_table(agreements)}\n\n{speed_table(results)}\n"
    write_atomically(path, json.dumps(content, indent=1).encode())
    write_atomically(path.with_suffix(".md"), markdown.encode())
    return markdown


def main() -> None:
    """Compare and measure; print the tables and write them to files.

    Raises:
        UsageError: there is no GPU.
        DataError: the GPU and the CPU differ.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=whole_path, default=ROOT / "benchmarks/gpu.json",
                        help="JSON file for all values; the Markdown goes beside it (%(default)s)")
    opts = parser.parse_args()
    if not torch.cuda.is_available():
        raise UsageError(f"PyTorch {torch.__version__} finds no GPU on this machine; run this "
                         "command on a machine with a GPU; benchmarks/run.py measures a CPU")
    from benchmarks.agreement import Case, Side, compare, train_weights
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(None, folder)
        weights = train_weights("cuda", folder, COMPARED_FLAGS)
        agreements = []
        for found in compare(Case(Side("cpu", weights), Side("cuda", weights), folder,
                                  COMPARED_FLAGS)):
            print(f"{found.name}: {found.verdict()}", flush=True)
            agreements.append(found)
        torch.cuda.empty_cache()  # the measured processes need the memory
        results = list(measure_rows(ROWS, folder, started + LIMIT))
    print(f"\n{write_report(opts.out, agreements, results)}\nwrote {opts.out} and "
          f"{opts.out.with_suffix('.md')}, after {time.monotonic() - started:.0f} s")
    if faults := [found.name for found in agreements if found.is_fault]:
        raise DataError(f"the GPU and the CPU differ: {', '.join(faults)}")


if __name__ == "__main__":
    run(main)
