"""Test that the progress bar leaves room for the messages after it."""
import sys

import pytest

from runtime.errors import DataError
from training.progress import Progress


def fails_after_one():
    yield {}
    raise DataError("a file is missing")


def test_an_error_of_the_loader_starts_on_a_new_line(capsys):
    with pytest.raises(DataError):
        list(Progress(fails_after_one(), 3, 2, "epoch 1/1"))
    shown = capsys.readouterr().err
    assert "epoch 1/1:  33% 1/3" in shown.rpartition("\r")[2]
    assert shown.endswith("\n")


def test_the_bar_is_not_drawn_below_a_last_message(capsys):
    batches = iter(Progress(iter([{}, {}, {}]), 3, 2, "epoch 1/1"))
    next(batches)
    print("\nstopped", file=sys.stderr)
    batches.close()
    assert "epoch" not in capsys.readouterr().err.rpartition("stopped")[2]


def test_the_bar_of_a_complete_epoch_stays(capsys):
    assert len(list(Progress(iter([{}, {}, {}]), 3, 2, "epoch 1/1"))) == 3
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "epoch 1/1: 100% 3/3" in last
    assert last.endswith("\n")
