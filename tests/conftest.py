"""Provide the tests with published figures, real KITTI, a rendered drive and a script runner."""
from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import trustme
from filelock import FileLock
from https_server import Server, serve
from hypothesis import settings
from tensorboardX.proto.event_pb2 import Event

from checkpoints.weights import InputFormat, save_weights
from evaluation.results import find_results
from networks import Monodepth2
from options import MonodepthOptions
from runtime import downloads, errors
from synthetic.render import HELD_OUT, TRAIN
from trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(DATA))  # for recipe.py, the inputs and weights of the figures

needs_shared = pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in ("real", "parity")),
    reason="real KITTI and its figures are in ../shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup, and tests' processes inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", max_examples=300, deadline=timedelta(seconds=20))
settings.register_profile("thorough", max_examples=20_000, deadline=timedelta(seconds=20))
settings.load_profile("default")


def pytest_addoption(parser):
    """Add the flag of a long test."""
    parser.addoption("--kills", type=int, default=3,
                     help="number of times that test_resume.py kills a run (%(default)s)")


def pytest_terminal_summary(terminalreporter):
    """Print one line for all tests that need ../shared, and one for each other reason to skip."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter("../shared" if "../shared" in report.longrepr[2] else report.longrepr[2]
                      for report in reports)
    if count := reasons.pop("../shared", 0):
        terminalreporter.line(f"{count} tests need ../shared, which is not there")
    for reason, count in reasons.items():
        terminalreporter.line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


def figures(name: str):
    """Read tests/data/<name>: a dict of arrays from .npz, or the content of .json."""
    path = DATA / name
    return json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))


@pytest.fixture(autouse=True)
def seeded():
    """Seed the generators before every test."""
    torch.manual_seed(0)
    np.random.seed(0)


class Malicious:
    """An object whose unpickling creates a file at `path`."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Outcome(NamedTuple):
    """The exit status of a script, and what it printed to stdout and stderr."""

    status: int
    out: str
    err: str


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script's command line in this process: script("train", "--png", ...)."""
    def call(name: str, *args: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        status = 0
        try:
            errors.run(import_module(name).main)
        except SystemExit as ended:
            status = ended.code or 0
        return Outcome(status, *capsys.readouterr())
    return call


def one_line(outcome: Outcome, status: int) -> str:
    """Check that a script ended with this status and one line of error; return the line."""
    assert outcome.status == status, outcome
    assert "Traceback" not in outcome.err
    last = [line for line in outcome.err.replace("\r", "\n").splitlines() if "error: " in line]
    assert len(last) == 1, outcome.err
    return last[0]


def read_results(folder: Path) -> dict:
    """Return the fields of the only results file of a folder."""
    return json.loads(find_results(folder).read_text())


@pytest.fixture(scope="session")
def authority():
    """Make the certificate authority of the tests' server."""
    return trustme.CA()


@pytest.fixture
def server(authority, tmp_path, monkeypatch):
    """Serve over https, with a certificate that this process and its children trust."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    own = Server()
    for url in serve(own, authority):
        own.url = url
        yield own


HEIGHT, WIDTH = 64, 96  # the smallest size that the networks accept


def filled_weights(folder: Path, use_stereo: bool = True) -> Path:
    """Write untrained weights whose disparities vary over the image; return their folder."""
    from recipe import filled_state_dict
    model = Monodepth2(frame_ids=[0])
    for name, network in model.named_children():
        network.load_state_dict(filled_state_dict(network.state_dict(), name))
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, use_stereo))
    return folder


@pytest.fixture(scope="module")
def onnx_weights(tmp_path_factory) -> Path:
    """Write weights that can be exported; skip the test if a package of the export is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    return filled_weights(tmp_path_factory.mktemp("weights"))


def render_drive(out: Path) -> None:
    """Render a short drive as a user does, unless another process of the tests has."""
    with FileLock(out.with_name("drive.lock")):
        if not out.is_dir():
            unfinished = out.with_name("drive.tmp")
            subprocess.run([sys.executable, "-m", "synthetic.render", unfinished, "--frames", "48",
                            "--height", str(HEIGHT), "--width", str(WIDTH)], cwd=ROOT, check=True)
            unfinished.rename(out)


@pytest.fixture(scope="session")
def drive(tmp_path_factory, worker_id) -> Path:
    """Copy the rendered drive for the tests of this process; its splits/tiny lists a few frames."""
    base = tmp_path_factory.getbasetemp()  # pytest-xdist gives each process a folder in one base
    rendered = (base if worker_id == "master" else base.parent) / "rendered_drive"
    render_drive(rendered)
    out = tmp_path_factory.mktemp("drive") / "drive"
    shutil.copytree(rendered, out)
    tiny = out / "splits" / "tiny"
    tiny.mkdir()
    (tiny / "train_files.txt").write_text(f"{TRAIN} l: 10-13\n{TRAIN} r: 20-21\n")
    (tiny / "val_files.txt").write_text(f"{HELD_OUT} l: 3-4\n")
    (tiny / "test_files.txt").write_text(f"{HELD_OUT} l: 5-8\n")
    return out


def train_flags(drive: Path, *more: object) -> list[str]:
    """Return the flags of a training run of a few steps on the drive."""
    return [str(word) for word in (
        "--data_path", drive, "--split", drive / "splits" / "tiny", "--height", HEIGHT,
        "--width", WIDTH, "--batch_size", 2, "--num_workers", 0, "--num_epochs", 1,
        "--weights_init", "scratch", "--no_cuda", "--log_dir", drive.parent / "log", *more)]


def read_events(folder):
    """Yield the events in TensorBoard's record files."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12:12 + length])
            content = content[16 + length:]


@pytest.fixture(scope="session")
def weights(drive) -> Path:
    """Train mono+stereo for three steps; return the weights folder."""
    Trainer(MonodepthOptions().parse(
        train_flags(drive, "--use_stereo", "--model_name", "session", "--seed", 0))).train()
    return drive.parent / "log" / "session" / "models" / "weights_0"
