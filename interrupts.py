"""Signals that ask a run to end: the first is noted, the second ends the process at once."""
from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a scheduler's, and Ctrl-C


class StopRequest:
    """Whether a signal has asked the run to end, since this context was entered.

    Outside the main thread signals cannot be caught, and nothing is noted.

    Attributes:
        number: of the signal, 0 as long as none has come.
    """

    def __init__(self):
        self.number = 0
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
        if self.number:  # a file half-written now has a temporary name
            os.write(sys.__stderr__.fileno(), f"\nstopped at once by a second {name}\n".encode())
            os._exit(128 + number)
        self.number = number
        os.write(sys.__stderr__.fileno(), f"\n{name}: finishing the step and saving; once more to "
                                          "stop at once\n".encode())
