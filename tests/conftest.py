"""What the tests share: published figures, real KITTI, a rendered drive, scripts run for real."""
from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import trustme
from https_server import Server, serve
from hypothesis import settings
from tensorboardX.proto.event_pb2 import Event

from checkpoints.weights import InputFormat, save_weights
from networks import Monodepth2
from options import MonodepthOptions
from runtime import downloads, errors
from synthetic.render import HELD_OUT, TRAIN
from trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(DATA))  # recipe.py makes the inputs and weights behind the figures

needs_shared = pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in ("real", "parity")),
    reason="needs real KITTI and its figures in ../shared")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as below nohup; processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", max_examples=300, deadline=timedelta(seconds=20))
settings.register_profile("thorough", max_examples=20_000, deadline=timedelta(seconds=20))
settings.load_profile("default")


def pytest_addoption(parser):
    """Add the flags of the long tests."""
    parser.addoption("--kills", type=int, default=3,
                     help="how often test_resume.py kills a run (%(default)s)")


def figures(name: str):
    """Return tests/data/<name>: a dict of arrays, or what the JSON holds."""
    path = DATA / name
    return json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))


@pytest.fixture(autouse=True)
def seeded():
    """Seed every test alike."""
    torch.manual_seed(0)
    np.random.seed(0)


class Malicious:
    """Unpickled anywhere, it would make a file at `path`."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


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
            errors.run(import_module(name).main)
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


@pytest.fixture(scope="session")
def authority():
    """Return what vouches for the certificates of the tests' server."""
    return trustme.CA()


@pytest.fixture
def server(authority, tmp_path, monkeypatch):
    """Serve over https, with a certificate that this process, and those it starts, trust."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    own = Server()
    for url in serve(own, authority):
        own.url = url
        yield own


HEIGHT, WIDTH = 64, 96  # the smallest that the networks take


def filled_weights(folder: Path, use_stereo: bool = True) -> Path:
    """Write weights without training, drawn so that disparities differ; returns their folder."""
    from recipe import filled_state_dict
    model = Monodepth2(frame_ids=[0])
    for name, network in model.named_children():
        network.load_state_dict(filled_state_dict(network.state_dict(), name))
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, use_stereo))
    return folder


@pytest.fixture(scope="session")
def drive(tmp_path_factory) -> Path:
    """Render a short drive as a user does; its splits/tiny lists a few frames of it."""
    out = tmp_path_factory.mktemp("drive") / "drive"
    subprocess.run([sys.executable, "-m", "synthetic.render", out, "--frames", "48",
                    "--height", str(HEIGHT), "--width", str(WIDTH)], cwd=ROOT, check=True)
    tiny = out / "splits" / "tiny"
    tiny.mkdir()
    (tiny / "train_files.txt").write_text(f"{TRAIN} l: 10-13\n{TRAIN} r: 20-21\n")
    (tiny / "val_files.txt").write_text(f"{HELD_OUT} l: 3-4\n")
    (tiny / "test_files.txt").write_text(f"{HELD_OUT} l: 5-8\n")
    return out


def train_flags(drive: Path, *more: object) -> list[str]:
    """Return the flags of a training run on the drive, of a few steps, in this process."""
    return [str(word) for word in (
        "--data_path", drive, "--split", drive / "splits" / "tiny", "--height", HEIGHT,
        "--width", WIDTH, "--batch_size", 2, "--num_workers", 0, "--num_epochs", 1,
        "--weights_init", "scratch", "--no_cuda", "--log_dir", drive.parent / "log", *more)]


def read_events(folder):
    """Yield the events of TensorBoard's record files."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12:12 + length])
            content = content[16 + length:]


@pytest.fixture(scope="session")
def weights(drive) -> Path:
    """Train mono+stereo for three steps; returns the weights folder."""
    Trainer(MonodepthOptions().parse(
        train_flags(drive, "--use_stereo", "--model_name", "session", "--seed", 0))).train()
    return drive.parent / "log" / "session" / "models" / "weights_0"
