"""Do the work that the benchmarks measure, on the side of this project or of the literal pipeline.

    python -m benchmarks.tasks TASK {fast,literal} FOLDER FLAGS...

The command prepares the task and prints a line. For each line that it reads, it does the work once
and prints the amount, the seconds and the GPU memory. `benchmarks/run.py` starts one process for
each side, and lets them work in turns.
"""
from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks import literal
from checkpoints.weights import InputFormat, save_weights
from datasets import FrameCache, KITTIRAWDataset, Samples, collate
from datasets.augment import pack_matrices
from datasets.ground_truth import export_gt_depths
from datasets.splits import read_split
from networks import Monodepth2
from options import DEPTH, MonodepthOptions
from runtime.machine import keep_freed_memory
from trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
SIZE = 192, 640        # height, width of the networks' input
FRAMES = [0, -1, 1]
LOADED = 12            # items of a loader's batch
STEPS = 2              # training steps of one turn on the CPU
GPU_STEPS = 20         # training steps of one turn on a GPU
Work = Callable[[], int]


def options(folder: Path, flags: list[str]) -> Namespace:
    """Parse the options of a training run on the frames in `folder`.

    The run is named after this process: both sides of a row may be this project, and a run belongs
    to one process.
    """
    return MonodepthOptions().parse(
        ["--data_path", str(folder), "--split", str(folder / "split"), "--weights_init", "scratch",
         "--log_dir", str(folder / "log"), "--model_name", str(os.getpid()), "--num_workers", "0",
         "--compile", "off", *flags])


def dataset(side: str, folder: Path, flags: Sequence[str] = (),
            size: tuple[int, int] = SIZE) -> Dataset:
    """Return the training set of a side; the flags are --cache (fast) and --scans (literal)."""
    lines = read_split(folder / "split/train_files.txt")
    if side == "literal":
        return literal.LiteralDataset(folder, lines, *size, FRAMES, 4, True,
                                      with_scans="--scans" in flags)
    frames = KITTIRAWDataset(folder, lines, *size, FRAMES, 4, is_train=True)
    if "--cache" in flags:
        frames.use_cache(FrameCache(folder / "cache", *size))
    return Samples(frames)


def loader(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to load batches on one core."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    items = dataset(side, folder, flags)
    batches = DataLoader(items, LOADED, drop_last=True,
                         collate_fn=collate if side == "fast" else None)
    rounds = 20 if "--cache" in flags else 1

    def work() -> int:
        return sum(LOADED for _ in range(rounds) for _ in batches)
    return work


def memory(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to measure the peak memory of a loader's worker: the amount of work is in MB."""
    if side == "fast":
        keep_freed_memory()  # as the trainer does on a CPU; workers inherit it

    def work() -> int:
        batches = DataLoader(dataset(side, folder), LOADED, num_workers=1,
                             collate_fn=collate if side == "fast" else None)
        peak = 0
        for _ in batches:
            (worker,) = multiprocessing.active_children()
            status = Path(f"/proc/{worker.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]))  # kB
        return peak // 1000
    return work


def pinned(batch: dict) -> dict:
    """Pin the memory of a batch, as a loader does if there is a GPU."""
    if not torch.cuda.is_available():
        return batch
    return {key: value.pin_memory() if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()}


def step(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to train on one batch in memory, without logs."""
    opts = options(folder, flags)
    device = literal.get_device(opts.no_cuda)
    count = GPU_STEPS if device.type == "cuda" else STEPS
    items = dataset(side, folder, size=(opts.height, opts.width))
    batch = [items[i] for i in range(opts.batch_size)]
    if side == "fast":
        trainer = Trainer(opts)
        trainer.train_loader = [pinned(pack_matrices(collate(batch)))] * count
        trainer.steps_per_epoch = count
        trainer._logs_now = lambda _: False

        def work() -> int:
            trainer.run_epoch()
            return count * opts.batch_size
        return work

    inputs = pinned(default_collate(batch))
    model = Monodepth2(18, False, FRAMES).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), opts.learning_rate)

    def literal_work() -> int:
        for _ in range(count):
            moved = {key: value.to(device) for key, value in inputs.items()}
            loss = literal.literal_losses(moved, model(moved), opts)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        return count * opts.batch_size
    return literal_work


def objective(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to compute the losses of fixed outputs and their gradients, without the networks."""
    opts = options(folder, flags)
    trainer = Trainer(opts)
    count = GPU_STEPS if trainer.device.type == "cuda" else STEPS
    items = dataset("fast", folder, size=(opts.height, opts.width))
    inputs = trainer.augment(collate([items[i] for i in range(opts.batch_size)]))
    outputs = {key: value.detach().requires_grad_() for key, value in trainer.model(inputs).items()}

    def work() -> int:
        for _ in range(count):
            losses = (trainer.objective(inputs, outputs)[0] if side == "fast" else
                      literal.literal_losses(inputs, outputs, opts))
            losses["loss"].backward()
        losses["loss"].item()
        return count * opts.batch_size
    return work


def export(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to make and write ground truth with all cores."""
    lines = read_split(folder / "split/test_files.txt")

    def work() -> int:
        if side == "fast":
            export_gt_depths(folder, str(folder / "split"), multiprocessing.cpu_count())
        else:
            literal.write_gt_depths(folder / "literal.npz",
                                    literal.export_gt_depths(folder, lines))
        return len(lines)
    return work


def evaluate(side: str, folder: Path, flags: list[str]) -> Work:
    """Prepare to predict the test images and compare them with existing ground truth."""
    weights = folder / f"weights_{side}"
    torch.manual_seed(0)
    model = Monodepth2(18, False, [0])
    save_weights(weights, model, torch.optim.Adam(model.parameters()), InputFormat(*SIZE, False))
    words = ["--data_path", str(folder), "--eval_split", str(folder / "split"), "--eval_mono",
             "--load_weights_folder", str(weights), "--num_workers", "2", *flags]
    if not (folder / "split/gt_depths.npz").is_file():
        export_gt_depths(folder, str(folder / "split"), multiprocessing.cpu_count())

    def work() -> int:
        if side == "fast":
            sys.argv[1:] = words
            runpy.run_path(str(ROOT / "evaluate_depth.py"), run_name="__main__")
        else:
            literal.evaluate(MonodepthOptions(DEPTH).parse(words))
        return len(read_split(folder / "split/test_files.txt"))
    return work


TASKS = {task.__name__: task for task in (loader, memory, step, objective, export, evaluate)}


def main() -> None:
    """Do the task of the command line once for each line of stdin."""
    name, side, folder, *flags = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr
    work = TASKS[name](side, Path(folder), flags)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        amount = work()
        seconds = time.perf_counter() - started
        gpu_memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        print(json.dumps({"amount": amount, "seconds": seconds, "gpu_memory": gpu_memory}),
              file=answers, flush=True)


if __name__ == "__main__":
    main()
