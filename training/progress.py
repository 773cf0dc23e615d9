"""How a run gets on: a bar with the loss, the pace, and the time spent waiting for data."""
from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from torch import Tensor
from torch.profiler import record_function
from tqdm import tqdm

BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
BAR_SECONDS = 1.0  # between looks at the loss: each makes the device stop
WAITING = "waiting for data"


class Terminal:
    """stderr, which ends no run when it is gone: its reader may have ended of the same Ctrl-C."""

    def write(self, text: str) -> None:
        """Write a text, if anybody is there."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Bring what was written on its way."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(sys.stderr, name)


class Progress:
    """Batches of an epoch, with a bar.

    Args:
        loader: of the batches.
        batches: how many of them are wanted.
        examples: in a batch, those of all processes together.
        description: what stands before the bar.
        shown: whether there is a bar.
        done: batches of the epoch that an earlier run has had.
    """

    def __init__(self, loader: Iterable, batches: int, examples: int, description: str,
                 shown: bool = True, done: int = 0):
        self.loader, self.batches, self.examples = loader, batches, examples
        self.bar = tqdm(total=batches, initial=done, desc=description, bar_format=BAR,
                        disable=not shown, file=Terminal())
        self._left = batches - done
        self._looked, self._counted, self._waited = time.monotonic(), done, 0.0

    def __iter__(self) -> Iterator[dict]:
        """Yield the batches; the time until each is there counts as waiting."""
        batches = islice(self.loader, self._left)
        try:
            while (batch := self._next(batches)) is not None:
                self.bar.leave = False  # who ends the run now speaks below the bar, which then goes
                yield batch
                self.bar.leave = True
                self.bar.update()
        finally:
            self.bar.close()

    def _next(self, batches: Iterator[dict]) -> dict | None:
        asked = time.monotonic()
        with record_function(WAITING):
            batch = next(batches, None)
        self._waited += time.monotonic() - asked
        return batch

    def show(self, loss: Tensor) -> None:
        """Show a loss and the pace since the last look, about once a second and at the end."""
        passed = time.monotonic() - self._looked
        is_last = self.bar.n + 1 >= self.batches
        if self.bar.disable or (passed < BAR_SECONDS and not is_last):
            return
        seen = (self.bar.n + 1 - self._counted) * self.examples
        self.bar.set_postfix_str(f"loss {loss.item():.4f}, {seen / passed:.1f} examples/s, "
                                 f"{self._waited / passed:.0%} waiting for data")
        self._looked, self._counted, self._waited = time.monotonic(), self.bar.n + 1, 0.0
