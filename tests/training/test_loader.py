"""training.loader: workers start early and load nothing before the first batch is asked for."""
import multiprocessing
import time

import pytest
from conftest import train_flags
from tiny import TinyEncoder

from networks import ENCODERS
from options import MonodepthOptions
from trainer import Trainer


class WorkersSeen:
    """Remember the worker processes that are alive when an encoder is built."""

    def __init__(self):
        self.pids = None

    def __call__(self, *args):
        if self.pids is None:
            self.pids = pids()
        return TinyEncoder(*args)


def pids():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture
def seen(monkeypatch):
    """Register an encoder, `--num_layers 2`, whose building is seen."""
    seen = WorkersSeen()
    monkeypatch.setitem(ENCODERS, 2, seen)
    return seen


def trainer(drive, tmp_path, *flags):
    return Trainer(MonodepthOptions().parse(train_flags(
        drive, "--num_workers", 2, "--num_layers", 2, "--scales", 0, "--log_dir", tmp_path,
        *flags)))


@pytest.mark.parametrize("resumed", [False, True])
def test_every_worker_is_forked_before_the_networks(seen, drive, tmp_path, resumed):
    flags = []
    if resumed:
        trainer(drive, tmp_path, "--num_workers", 0).train()
        flags = ["--resume", "--num_epochs", 2]
    seen.pids, others = None, pids()
    run = trainer(drive, tmp_path, *flags)
    run.train()  # validates after the first step
    assert run.validated == 1 + resumed
    assert len(seen.pids - others) == 4
    assert pids() <= seen.pids


def test_waiting_workers_load_nothing(drive, tmp_path):
    cache = tmp_path / "cache"
    run = trainer(drive, tmp_path, "--cache_dir", cache, "--max_bad_samples", 0)
    time.sleep(1)
    assert list(cache.glob("*/*/*")) == []
    run.train_loader.seek(0, 2)  # the last of three batches: two samples of three frames
    assert len(list(run.train_loader)) == 1
    assert len(list(cache.glob("*/*/*.rgb"))) <= 6


def test_a_run_that_cannot_start_ends_its_workers(drive, tmp_path, script):
    others, started = pids(), time.monotonic()
    outcome = script("train", *train_flags(drive, "--num_workers", 2, "--num_layers", 99,
                                           "--log_dir", tmp_path))
    assert outcome.status == 2
    assert "--num_layers 99 does not exist" in outcome.err
    assert pids() <= others
    assert time.monotonic() - started < 30
