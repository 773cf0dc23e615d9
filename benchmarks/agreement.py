"""Compare the results of two devices on the same weights and frames.

The reference side is the CPU in float32. Each comparison gives one number, the difference, and has
a tolerance that leaves room for rounding only.
"""
from __future__ import annotations

import io
import math
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import tasks
from benchmarks.run import DRIVE
from datasets.splits import compact
from evaluation.depth import evaluate_depth
from export_onnx import OPSETS
from options import DEPTH, MonodepthOptions
from prediction.onnx import INSTALL, PACKAGES, differences_from_pytorch, onnx_bytes
from prediction.onnx import TOLERANCE as ONNX_TOLERANCE
from prediction.predictor import Predictor
from runtime.errors import DataError
from runtime.machine import compiler_fault
from runtime.packages import require_packages
from runtime.seeds import seed_all
from trainer import Trainer

# Largest relative difference of (losses, gradients), by the arithmetic of the networks. On a CPU,
# the gradients of a pose encoder after 18 steps differ by 0.17 in fp16 and 0.42 in bf16, those of
# the other networks by 0.06 and 0.17. TF32 rounds as fp16 does.
TOLERANCES = {"float32": (1e-4, 1e-2), "TF32": (2e-3, 0.3), "bf16": (1e-2, 0.7),
              "fp16": (2e-3, 0.3), "--compile": (1e-4, 1e-2)}
DISP_TOLERANCES = {"float32": 1e-3, "TF32": 2e-2}  # relative, of scaled inverse depth
TABLE_TOLERANCE = 1e-3    # the last digit of the table
RESUME_TOLERANCE = 1e-2   # of the distance that the weights move
SCALER_STEPS = 20         # fp16 halves its scale until the gradients are finite
PREDICTED = 2             # images
COMPARED = "compared"     # name of the split of a few frames


class Unavailable(Exception):
    """A comparison cannot run on this machine; the message says why."""


class Side(NamedTuple):
    """One side of a comparison: a device ("cpu" or "cuda") and the weights to start from."""

    device: str
    weights: Path


class Agreement(NamedTuple):
    """The outcome of a comparison.

    Attributes:
        name: what was compared.
        difference: None if the comparison could not run, NaN if it failed.
        tolerance: largest difference that passes.
        reason: why it could not run, or how it failed.
    """

    name: str
    difference: float | None
    tolerance: float | None = None
    reason: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the sides differ, or the comparison failed."""
        return self.difference is not None and not self.difference <= self.tolerance

    def verdict(self) -> str:
        """Describe the outcome in a few words."""
        if self.difference is None:
            return f"not run: {self.reason}"
        if self.reason:
            return f"failed: {self.reason}"
        if self.is_fault:
            return f"differs by {self.difference:.2g}; at most {self.tolerance:g} is rounding"
        if self.difference == 0:
            return f"ok: the same bits ({self.tolerance:g} is allowed)"
        return f"ok: {self.difference:.2g} ({self.tolerance:g} is allowed)"


class Step(NamedTuple):
    """The losses of a batch by name, and the gradients of each network as one vector."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]


class Case:
    """Hold the two sides of a comparison, and what they share.

    Args:
        reference: the side to compare with.
        other: the side that is compared.
        folder: data and split lists, as `benchmarks.run.prepare` writes them.
        flags: size and batch size of training.
    """

    def __init__(self, reference: Side, other: Side, folder: Path, flags: Sequence[str]):
        self.reference, self.other, self.folder, self.flags = reference, other, folder, flags
        write_split(folder)

    @cached_property
    def expected(self) -> Step:
        """Return the step of the reference."""
        return take_step(self.trainer(self.reference))

    def trainer(self, side: Side, *flags: str) -> Trainer:
        """Return a trainer that starts from the weights of a side."""
        return make_trainer(side.device, self.folder, *self.flags, "--split",
                            str(self.folder / COMPARED), "--load_weights_folder",
                            str(side.weights), *flags)

    def twin(self) -> Side:
        """Return the device of the other side with the weights of the reference."""
        return Side(self.other.device, self.reference.weights)

    def images(self) -> np.ndarray:
        """Read the images to predict, (B, H, W, 3) uint8 RGB."""
        paths = sorted((self.folder / DRIVE / "image_02/data").glob("*.jpg"))[:PREDICTED]
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def write_split(folder: Path) -> None:
    """Write the lists of the frames that are compared: one batch or two of each list."""
    (folder / COMPARED).mkdir(exist_ok=True)
    for name, numbers in ("train", range(1, 5)), ("val", range(1, 3)), ("test", range(8)):
        lines = compact(f"{DRIVE} {i} l" for i in numbers)
        (folder / COMPARED / f"{name}_files.txt").write_text(lines)


def make_trainer(device: str, folder: Path, *flags: str) -> Trainer:
    """Return a trainer on a device, which writes no logs: they would need tensorboardX."""
    trainer = Trainer(tasks.options(folder, [*flags, *device_flags(device), "--seed", "0"]))
    trainer._logs_now = lambda _: False
    return trainer


def device_flags(device: str) -> list[str]:
    """Return the flags that choose a device."""
    return ["--no_cuda"] if device == "cpu" else []


def train_weights(device: str, folder: Path, flags: Sequence[str]) -> Path:
    """Train one epoch on a device, from random weights; return the weights folder."""
    trainer = make_trainer(device, folder, *flags, "--num_epochs", "1", "--model_name", "start")
    with redirect_stdout(io.StringIO()):
        trainer.train()
    return trainer.weights_folder()


@contextmanager
def convolutions(kind: str) -> Iterator[None]:
    """Let convolutions on a GPU compute in "float32", or in "TF32" as in training."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = kind == "TF32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def take_step(trainer: Trainer, augmented: bool = False) -> Step:
    """Compute the losses and the gradients of a trainer's first batch.

    Args:
        trainer: on any device.
        augmented: flip and jitter the samples; the draws differ between kinds of devices.
    """
    trainer._set_training(True)
    trainer.augment.train(augmented)
    trainer.objective.tie_noise = 0  # drawn on the device
    batch = next(iter(trainer.train_loader))
    for _ in range(SCALER_STEPS):
        seed_all(0)
        inputs = trainer.augment(batch)
        losses, _ = trainer.objective(inputs, trainer.network(inputs))
        trainer.optimizer.zero_grad()
        trainer.scaler.scale(losses["loss"]).backward()
        trainer.scaler.unscale_(trainer.optimizer)
        trainer.scaler.update()
        gradients = {name: torch.cat([parameter.grad.flatten().cpu()
                                      for parameter in network.parameters()
                                      if parameter.grad is not None])
                     for name, network in trainer.model.named_children()}
        if all(vector.isfinite().all() for vector in gradients.values()):
            break
    return Step({name: loss.item() for name, loss in losses.items()}, gradients)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference of two vectors, relative to the expected vector."""
    return ((found - expected).norm() / expected.norm()).item()


def step_agreements(kind: str, found: Step, expected: Step) -> Iterator[Agreement]:
    """Compare the losses and the gradients of two steps."""
    losses = max((abs(found.losses[name] - value) / abs(value)
                  for name, value in expected.losses.items()), key=_nan_first)
    gradients = max((distance(found.gradients[name], vector)
                     for name, vector in expected.gradients.items()), key=_nan_first)
    for name, difference, tolerance in zip(("losses", "gradients"), (losses, gradients),
                                           TOLERANCES[kind], strict=True):
        yield Agreement(f"{name}, {kind}", difference, tolerance)


def _nan_first(value: float) -> float:
    """Return a key by which NaN is the largest number."""
    return math.inf if math.isnan(value) else value


def compare_steps(case: Case) -> Iterator[Agreement]:
    """Compare losses and gradients, with convolutions in float32 and in TF32."""
    for kind in "float32", "TF32":
        with convolutions(kind):
            yield from step_agreements(kind, take_step(case.trainer(case.other)), case.expected)


def compare_halves(case: Case) -> Iterator[Agreement]:
    """Compare losses and gradients of bf16 and fp16 with float32."""
    for kind in "bf16", "fp16":
        found = take_step(case.trainer(case.other, "--precision", kind))
        yield from step_agreements(kind, found, case.expected)


def compare_compiled(case: Case) -> Iterator[Agreement]:
    """Compare losses and gradients with --compile and without, on the other side's device."""
    if fault := compiler_fault(torch.device(case.other.device)):
        raise Unavailable(fault)
    with convolutions("float32"):
        expected = take_step(case.trainer(case.twin()), augmented=True)
        found = take_step(case.trainer(case.other, "--compile"), augmented=True)
    yield from step_agreements("--compile", found, expected)


def compare_resume(case: Case) -> Iterator[Agreement]:
    """Compare the weights of a resumed run with those of a run without a break."""
    straight = case.trainer(case.twin(), "--model_name", "straight", "--num_epochs", "2",
                            "--overwrite")
    start = _weights(straight)
    straight.train()
    case.trainer(case.other, "--model_name", "resumed", "--num_epochs", "1", "--overwrite").train()
    resumed = case.trainer(case.other, "--model_name", "resumed", "--num_epochs", "2", "--resume")
    resumed.train()
    moved = _weights(straight) - start
    yield Agreement("resume", distance(_weights(resumed) - start, moved), RESUME_TOLERANCE)


def _weights(trainer: Trainer) -> Tensor:
    """Copy all weights to one vector on the CPU."""
    return torch.cat([parameter.detach().flatten().cpu()
                      for parameter in trainer.model.parameters()])


def compare_evaluation(case: Case) -> Iterator[Agreement]:
    """Compare the table of evaluate_depth.py."""
    with convolutions("float32"):
        expected, found = (evaluate(case, side) for side in (case.reference, case.other))
    yield Agreement("evaluation table, float32", float(np.abs(found - expected).max()),
                    TABLE_TOLERANCE)


def evaluate(case: Case, side: Side) -> np.ndarray:
    """Evaluate the weights of a side on its device; return the seven numbers of the table."""
    out = case.folder / "evaluated"
    printed = io.StringIO()
    with redirect_stdout(printed):
        evaluate_depth(_evaluation_options(case, side, out))
    shutil.rmtree(out)
    table = printed.getvalue().splitlines()[-1]
    return np.array(re.findall(r"\d+\.\d+", table), float)


def _evaluation_options(case: Case, side: Side, out: Path) -> Namespace:
    """Return the options of evaluate_depth.py."""
    return MonodepthOptions(DEPTH).parse(
        ["--data_path", str(case.folder), "--eval_split", str(case.folder / COMPARED),
         "--eval_mono", "--load_weights_folder", str(side.weights), "--eval_out_dir", str(out),
         "--num_workers", "0", *device_flags(side.device)])


def compare_predictions(case: Case) -> Iterator[Agreement]:
    """Compare the disparities of images, with convolutions in float32 and in TF32."""
    images = case.images()
    expected = Predictor(case.reference.weights, case.reference.device).predict(images).disp.cpu()
    for kind, tolerance in DISP_TOLERANCES.items():
        with convolutions(kind):
            found = Predictor(case.other.weights, case.other.device).predict(images).disp.cpu()
        difference = ((found - expected).abs() / expected).max().item()
        yield Agreement(f"prediction, {kind}", difference, tolerance)


def compare_onnx(case: Case) -> Iterator[Agreement]:
    """Compare the ONNX file of the other side's weights with PyTorch on the reference's."""
    try:
        require_packages(PACKAGES, INSTALL)
    except DataError as error:
        raise Unavailable(str(error)) from None
    content = onnx_bytes(Predictor(case.other.weights), OPSETS[0])
    differences = differences_from_pytorch(content, Predictor(case.reference.weights))
    yield Agreement("ONNX", max(differences), ONNX_TOLERANCE)


COMPARISONS: dict[str, Callable[[Case], Iterable[Agreement]]] = {
    "losses and gradients": compare_steps, "bf16 and fp16": compare_halves,
    "--compile": compare_compiled, "resume": compare_resume,
    "evaluation table": compare_evaluation, "prediction": compare_predictions,
    "ONNX": compare_onnx}


def compare(case: Case) -> Iterator[Agreement]:
    """Run all comparisons; one that cannot run or fails says why, and the others go on."""
    for name, comparison in COMPARISONS.items():
        try:
            with redirect_stdout(io.StringIO()):
                found = list(comparison(case))
        except Unavailable as error:
            found = [Agreement(name, None, reason=str(error))]
        except Exception as error:  # a fault of one part must not hide the others
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            found = [Agreement(name, math.nan, 0, reason)]
        yield from found
