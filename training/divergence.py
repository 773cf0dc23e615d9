"""Detect a loss or a weight that is not finite, without waiting for the device at every step."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from runtime.distributed import World
from runtime.errors import DataError
from runtime.files import write_atomically

NEVER = 2**40  # later than any step


class Divergence:
    """Remember the first step at which a value was not finite (NaN or infinite).

    Args:
        world: processes of the run.
    """

    def __init__(self, world: World):
        self.world = world
        self._first_step = torch.full((), NEVER, dtype=torch.int64, device=world.device)

    def note(self, value: Tensor, step: int) -> None:
        """Note on the device whether a scalar of a step, such as its loss, is finite."""
        steps = torch.where(value.detach().isfinite(), NEVER, step)
        self._first_step = torch.minimum(self._first_step, steps)

    def find(self, model: nn.Module, step: int) -> tuple[int, int] | None:
        """Return the first bad step and the lowest rank that saw it, or None; waits for the device.

        All processes must call this together.

        Args:
            model: its weights after `step` are checked too.
            step: number of the last step.
        """
        self.note(sum(p.detach().sum() for p in model.parameters()), step)
        size = self.world.size
        first = self.world.all_reduce_min(int(self._first_step) * size + self.world.rank)
        step, rank = divmod(first, size)
        return None if step == NEVER else (step, rank)


def divergence_error(step: int, report: Path, states: Sequence[Path]) -> DataError:
    """Return the error for a step that was not finite.

    Args:
        step: number of the step.
        report: file with the samples and flags of the step.
        states: training states that can be resumed, the oldest first.
    """
    last = f"the last good state is {states[-1]}" if states else "no state was saved"
    return DataError(f"the loss of step {step}, or a weight after it, is not finite; {report} has "
                     "its files and flags. Try a lower --learning_rate or --precision fp32; "
                     f"{last}")


def write_report(path: Path, step: int, epoch: int, lines: Sequence[str], flags: str) -> None:
    """Write the split lines of a step that was not finite, and the run's flags."""
    text = "\n".join([f"step {step}, epoch {epoch}", *lines, flags, ""])
    write_atomically(path, text.encode())
