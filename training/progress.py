"""Show the progress of an epoch: a bar with loss, speed and time spent waiting for data."""
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
BAR_SECONDS = 1.0  # between updates of the loss; each waits for the device
WAITING = "waiting for data"


class Terminal:
    """Write to stderr, and ignore errors: a closed terminal must not end a run."""

    def write(self, text: str) -> None:
        """Write a text, if stderr is open."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush stderr, if it is open."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(sys.stderr, name)


class Progress:
    """Iterate over the batches of an epoch under a progress bar.

    Args:
        loader: source of the batches.
        batches: number of batches in the epoch.
        examples: samples in a batch, of all processes together.
        description: text before the bar.
        shown: whether the bar is shown.
        done: number of batches that an interrupted run has already trained on.
    """

    def __init__(self, loader: Iterable, batches: int, examples: int, description: str,
                 shown: bool = True, done: int = 0):
        self.loader, self.batches, self.examples = loader, batches, examples
        self.bar = tqdm(total=batches, initial=done, desc=description, bar_format=BAR,
                        disable=not shown, file=Terminal())
        self._left = batches - done
        self._updated, self._counted, self._waited = time.monotonic(), done, 0.0

    def __iter__(self) -> Iterator[dict]:
        """Yield the batches that are left, and measure how long each one takes to arrive."""
        batches = islice(self.loader, self._left)
        try:
            while (batch := self._next(batches)) is not None:
                self.bar.leave = False  # if the run ends here, its message replaces the bar
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
        """Show the loss and the speed, about once a second and at the last batch."""
        passed = time.monotonic() - self._updated
        is_last = self.bar.n + 1 >= self.batches
        if self.bar.disable or (passed < BAR_SECONDS and not is_last):
            return
        seen = (self.bar.n + 1 - self._counted) * self.examples
        self.bar.set_postfix_str(f"loss {loss.item():.4f}, {seen / passed:.1f} examples/s, "
                                 f"{self._waited / passed:.0%} waiting for data")
        self._updated, self._counted, self._waited = time.monotonic(), self.bar.n + 1, 0.0
