"""What the tests share: figures of the published implementation, real KITTI, scripts as a user runs them."""
from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import utils

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(DATA))  # recipe.py makes the inputs and weights behind the figures

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs real KITTI in ../shared")


def figures(name: str):
    """Return tests/data/<name>: a dict of arrays, or what the JSON holds."""
    path = DATA / name
    return json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))


@pytest.fixture(autouse=True)
def seeded():
    """Seed every test alike."""
    torch.manual_seed(0)
    np.random.seed(0)


class Outcome(NamedTuple):
    """How a script ended: exit status, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a top-level script's command line in this process: script("train", "--png", ...)."""
    def call(name: str, *args: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        status = 0
        try:
            utils.run(import_module(name).main)
        except SystemExit as ended:
            status = ended.code or 0
        return Outcome(status, *capsys.readouterr())
    return call


def one_line(outcome: Outcome, status: int) -> str:
    """Return the error of a script that must have ended with one clear line and this status."""
    assert outcome.status == status, outcome
    assert "Traceback" not in outcome.err
    last = [line for line in outcome.err.replace("\r", "\n").splitlines() if "error: " in line]
    assert len(last) == 1, outcome.err
    return last[0]
