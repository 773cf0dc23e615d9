"""Whether training has diverged: found out on the device at every step, asked for seldom."""
from __future__ import annotations

import torch
from torch import Tensor

from distributed import World

NEVER = 2**40  # later than any step


class Divergence:
    """The first step of a run in which something was not finite.

    Args:
        world: the processes of the run; their device is waited for in `first` only.
    """

    def __init__(self, world: World):
        self.world = world
        self._first = torch.full((), NEVER, dtype=torch.int64, device=world.device)

    def look(self, value: Tensor, step: int) -> None:
        """Note whether a () value of a step, such as its loss, is finite."""
        steps = torch.where(value.detach().isfinite(), NEVER, step)
        self._first = torch.minimum(self._first, steps)

    def first(self) -> tuple[int, int] | None:
        """Return the step, and the lowest rank that met it; all processes must ask."""
        size = self.world.size
        step, rank = divmod(self.world.smallest(int(self._first) * size + self.world.rank), size)
        return None if step == NEVER else (step, rank)
