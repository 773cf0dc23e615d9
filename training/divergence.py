"""Whether training has diverged: found out on the device at every step, asked for seldom."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from runtime.distributed import World
from runtime.errors import DataError

NEVER = 2**40  # later than any step


def diverged(step: int, report: Path, states: Sequence[Path]) -> DataError:
    """Return the error that ends a run, of whose training states these are kept."""
    last = f"the last good state is {states[-1]}" if states else "no state was saved"
    return DataError(f"the loss of step {step}, or a weight after it, is not finite; {report} has "
                     "its files and flags. Try a lower --learning_rate or --precision fp32; "
                     f"{last}")


class Divergence:
    """The first step of a run in which something was not finite.

    Args:
        world: the processes of the run; their device is waited for in `first` only.

    Attributes:
        has_looked: whether there was anything to look at yet.
    """

    def __init__(self, world: World):
        self.world, self.has_looked = world, False
        self._first = torch.full((), NEVER, dtype=torch.int64, device=world.device)

    def look(self, value: Tensor, step: int) -> None:
        """Note whether a () value of a step, such as its loss, is finite."""
        self.has_looked = True
        steps = torch.where(value.detach().isfinite(), NEVER, step)
        self._first = torch.minimum(self._first, steps)

    def first(self) -> tuple[int, int] | None:
        """Return the step, and the lowest rank that met it; all processes must ask."""
        size = self.world.size
        first = self.world.all_reduce_min(int(self._first) * size + self.world.rank)
        step, rank = divmod(first, size)
        return None if step == NEVER else (step, rank)
