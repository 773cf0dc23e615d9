"""Signals that ask a run to end: the first is noted, the second ends it; workers hear none."""
from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a scheduler's, and Ctrl-C
ECHO = 1.0  # seconds within which a launcher passes on the signal that its processes have had


class StopRequest:
    """Whether a signal has asked the run to end, since this context was entered.

    Outside the main thread signals cannot be caught, and nothing is noted.

    Attributes:
        number: of the signal, 0 as long as none has come.
    """

    def __init__(self):
        self.number, self._noted = 0, 0.0
        self._former = {}

    def __enter__(self) -> StopRequest:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.number:
            self.number, self._noted = number, time.monotonic()
            _write(f"\n{name}: finishing the step and saving; once more to stop at once\n")
        elif time.monotonic() - self._noted > ECHO:  # a file half-written has a temporary name
            _write(f"\nstopped at once by a second {name}\n")
            os._exit(128 + number)


def leave_interrupts_to_parent(_: int = 0) -> None:
    """Have a worker outlive a Ctrl-C, which goes to all processes: its parent ends it.

    A worker that is interrupted while it hands something over leaves the others waiting.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write(text: str) -> None:
    """Write to stderr from a signal handler; whoever reads it may have ended of the same signal."""
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.__stderr__.fileno(), text.encode())
