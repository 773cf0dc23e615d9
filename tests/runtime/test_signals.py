"""runtime/signals.py: the stop of a run whose own processes the signal reached."""
import os
import signal

import pytest

from runtime.errors import DataError
from runtime.signals import StopRequest


def fail(error, stopped):
    """Raise an error inside a `StopRequest`, after a real signal if `stopped`."""
    with StopRequest():
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        raise error


def test_a_step_that_a_signal_broke_ends_with_its_status(capfd):
    with pytest.raises(SystemExit) as ended:
        fail(RuntimeError("the compiler ended with status -15"), stopped=True)
    assert ended.value.code == 128 + signal.SIGTERM
    assert ("the step failed after the signal (RuntimeError: the compiler ended with status -15); "
            "add --resume auto to go on") in capfd.readouterr().err


def test_other_errors_of_a_step_are_not_hidden():
    with pytest.raises(RuntimeError, match="mine"):
        fail(RuntimeError("mine"), stopped=False)
    with pytest.raises(DataError, match="the disk is full"):
        fail(DataError("the disk is full"), stopped=True)
