"""Profile some training steps (--profile)."""
from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from runtime.errors import DataError, UsageError, counted
from training.progress import WAITING

WARM_UP = 3  # steps before the recording: they compile, choose kernels and fill the memory pool
SHOWN = 10   # operations in the table


class StepProfile:
    """Record some steps, print their slowest operations, and write a Chrome trace.

    Args:
        steps: number of steps to record after `WARM_UP` others; 0 records nothing.
        total: number of steps left in the run.
        path: file for the trace, which chrome://tracing and ui.perfetto.dev show.

    Raises:
        UsageError: the run is too short.
    """

    def __init__(self, steps: int, total: int, path: Path):
        if steps and total < steps + WARM_UP:
            raise UsageError(f"--profile {steps} records after {WARM_UP} steps, and this run has "
                             f"{total}; give a smaller number")
        self.steps, self.path = steps, path
        self._done, self._started, self._profiler = 0, 0.0, None

    def step(self) -> None:
        """Count a step that has ended; start or end the recording.

        Raises:
            DataError: the trace cannot be written.
        """
        if self._done > WARM_UP + self.steps or self.steps == 0:
            return
        self._done += 1
        if torch.cuda.is_available() and self._done in (WARM_UP, WARM_UP + self.steps):
            torch.cuda.synchronize()
        if self._done == WARM_UP:
            self._profiler = profile()
            self._profiler.start()
            self._started = time.monotonic()
        elif self._done == WARM_UP + self.steps:
            seconds = time.monotonic() - self._started
            self._profiler.stop()
            self._print(seconds)
            self._profiler = None

    def _print(self, seconds: float) -> None:
        """Print the table of the slowest operations, and write the trace."""
        # only rows of operations: rows of GPU kernels would count the same time twice
        events = [e for e in self._profiler.key_averages() if e.device_type == DeviceType.CPU]
        waited = sum(e.cpu_time_total for e in events if e.key == WAITING) / 1e6
        on_gpu = any(e.self_device_time_total for e in events)
        spent = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total
                 for e in events if e.key != WAITING}
        heaviest = sorted(spent, key=spent.get, reverse=True)[:SHOWN]
        print(f"\nprofile of {counted(self.steps, 'step')}: "
              f"{1e3 * seconds / self.steps:.1f} ms a step, {waited / seconds:.1%} waiting for "
              f"data\n  ms a step   share  operation")
        for name in heaviest:
            fraction = spent[name] / max(sum(spent.values()), 1)
            print(f"{spent[name] / 1e3 / self.steps:11.2f}  {fraction:6.1%}  {name[:80]}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(self.path))
        except (OSError, RuntimeError) as error:
            raise DataError(f"--profile: {self.path} cannot be written: {error}") from None
        print(f"trace: {self.path} (open it in ui.perfetto.dev)", flush=True)
