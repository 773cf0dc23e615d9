"""Handle the signals that ask a run to stop: the first is noted, the second stops it at once."""
from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from runtime.errors import DataError

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a job scheduler's, and Ctrl-C
ECHO = 1.0  # seconds within which a launcher forwards the signal that its processes already got


class StopRequest:
    """Remember, inside this context, whether a signal has asked the run to stop.

    Python handles signals in the main thread only; in another thread this does nothing.

    Attributes:
        number: the signal's number, 0 before the first signal.
    """

    def __init__(self):
        self.number, self._noted = 0, 0.0
        self._former = {}

    def __enter__(self) -> StopRequest:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        """Restore the former signal handlers; turn an error after a signal into one line.

        Raises:
            SystemExit: a step failed after a signal; the signal may have ended a compiler.
        """
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self.number and isinstance(error, Exception) and not isinstance(error, DataError):
            reason = " ".join(f"{kind.__name__}: {error}".split())[:200]
            _write(f"the step failed after the signal ({reason}); add --resume auto to go on from "
                   "the last training state\n")
            sys.exit(128 + self.number)

    def _note(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.number:
            self.number, self._noted = number, time.monotonic()
            _write(f"\n{name}: finishing the step and saving; once more to stop at once\n")
        elif time.monotonic() - self._noted > ECHO:  # safe: unfinished files have temporary names
            _write(f"\nstopped at once by a second {name}\n")
            os._exit(128 + number)


def leave_interrupts_to_parent(_: int = 0) -> None:
    """Make a worker process ignore Ctrl-C, which reaches all processes; the parent ends the worker.

    A worker that is interrupted while it hands over a batch would block the other workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write(text: str) -> None:
    """Write to stderr from a signal handler; the same signal may have ended the reader."""
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.__stderr__.fileno(), text.encode())
