"""Test training/build.py: ImageNet's weights from a real https server, compiling, precisions."""
import hashlib
import io
import math
import re
import urllib.request
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import train_flags
from https_server import Server
from torchvision.models import ResNet18_Weights, get_model

from options import MonodepthOptions
from runtime.errors import DataError
from runtime.machine import slowdown
from trainer import Trainer
from training.build import (
    choose_compiling,
    download_imagenet_weights,
    precision_warning,
    slowdown_warning,
)

import_module("tiny")  # registers --num_layers 2, a tiny encoder


class Offer(NamedTuple):
    """A file that the server offers as ResNet-18's ImageNet weights."""

    server: Server
    path: Path   # of the file after the download
    url: str


@pytest.fixture
def offer(server, tmp_path, monkeypatch):
    """Offer a state dict under a name that has the start of its hash, or of another content's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # urlopen keeps its first opener, and with it the certificates of that time
    monkeypatch.setattr(urllib.request, "_opener", None)

    def call(state: object, hashed: bytes | None = None) -> Offer:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        start = hashlib.sha256(hashed or buffer.getvalue()).hexdigest()[:8]
        name = f"resnet18-{start}.pth"
        server.files[f"/{name}"] = buffer.getvalue()
        monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", f"{server.url}/{name}")
        return Offer(server, tmp_path / "hub/checkpoints" / name, f"{server.url}/{name}")
    return call


def test_a_run_starts_from_the_downloaded_imagenet_weights(offer, drive, tmp_path):
    state = get_model("resnet18").state_dict()
    found = offer(state)
    model = Trainer(MonodepthOptions().parse(train_flags(
        drive, "--weights_init", "pretrained", "--log_dir", tmp_path / "log"))).model
    conv1 = state["conv1.weight"]
    assert torch.equal(model.encoder.encoder.conv1.weight, conv1)
    assert torch.equal(model.pose_encoder.encoder.conv1.weight, torch.cat([conv1, conv1], 1) / 2)
    assert torch.equal(model.encoder.encoder.layer4[1].bn2.weight, state["layer4.1.bn2.weight"])
    assert found.path.read_bytes() == found.server.files[f"/{found.path.name}"]


def test_processes_that_need_the_weights_at_once_download_them_once(offer):
    found = offer({"weight": torch.rand(100_000)})
    with ThreadPoolExecutor(4) as threads:  # file locks treat threads like processes
        list(threads.map(download_imagenet_weights, [18] * 4))
    download_imagenet_weights(18)
    assert len(found.server.asked) == 1
    assert found.path.is_file()


@pytest.mark.parametrize(("state", "hashed", "reason"), [
    ({"weight": torch.ones(3)}, b"other content", "invalid hash value"),
    ([1, 2, 3], None, "expected a state dict")])
def test_a_download_that_is_wrong_is_one_error_with_url_and_path(offer, state, hashed, reason):
    found = offer(state, hashed)
    with pytest.raises(DataError, match=reason) as error:
        download_imagenet_weights(18)
    assert f"put {found.url} at {found.path}, or pass --weights_init scratch" in str(error.value)
    assert found.path.exists() == (hashed is None)


def test_a_missing_file_on_the_server_is_named(offer):
    found = offer({})
    found.server.files.clear()
    with pytest.raises(DataError, match=r"cannot be loaded \(HTTP Error 404.*; put https://"):
        download_imagenet_weights(18)


@pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04"])
def test_a_broken_file_in_the_cache_is_named(offer, content):
    found = offer({})
    found.path.parent.mkdir(parents=True)
    found.path.write_bytes(content)
    with pytest.raises(DataError, match="ImageNet's weights of resnet18 cannot be loaded") as error:
        download_imagenet_weights(18)
    assert str(found.path) in str(error.value)
    assert found.server.asked == []


CPU, LONG, SHORT = torch.device("cpu"), 100_000, 90  # steps at 640x192, batch 12


@pytest.mark.parametrize(("flags", "steps", "compiles", "reason"), [
    ("", LONG, True, "compiling: it saves about .*h.*m.*s of the 100000 steps left; the first"),
    ("", SHORT, False, "not compiling: 90 steps left are too few to gain from it; --compile comp"),
    ("--compile auto --height 64 --width 96", 2000, False, "not compiling: 2000 steps left are"),
    ("--compile", SHORT, True, "compiling: the first step takes a minute or two"),
    ("--compile on", SHORT, True, "compiling: the first step takes a minute or two"),
    ("--compile off", LONG, False, "not compiling: --compile off"),
    ("--deterministic", LONG, False, "not compiling: --deterministic, unless --compile is given"),
    ("--deterministic --compile", SHORT, True, "compiling: the first")])
def test_a_run_compiles_if_that_earns_its_minutes(flags, steps, compiles, reason):
    opts = MonodepthOptions().parse(flags.split())
    found, line = choose_compiling(opts, steps, CPU)
    assert found == compiles
    assert re.match(reason, line), line


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a device that cannot compile")
@pytest.mark.parametrize(("flag", "words"), [
    ("auto", "not compiling: nothing can be compiled here"),
    ("on", "warning: --compile: nothing can be compiled here")])
def test_only_a_flag_that_was_given_is_warned_of(flag, words):
    opts = MonodepthOptions().parse(["--compile", flag])
    compiles, line = choose_compiling(opts, LONG, torch.device("cuda"))
    assert not compiles
    assert line.startswith(words)


def test_flags_of_an_earlier_versions_opt_json_do_not_compile():
    opts = MonodepthOptions().complete(Namespace(compile=False))
    assert choose_compiling(opts, LONG, CPU) == (False, "not compiling: --compile off")


def test_a_resumed_run_counts_the_steps_left(drive, tmp_path, capsys):
    flags = train_flags(drive, "--num_layers", 2, "--log_dir", tmp_path)
    run = Trainer(MonodepthOptions().parse([*flags, "--num_epochs", "3"]))
    assert ": 9 steps left are too few" in capsys.readouterr().out
    run = Trainer(MonodepthOptions().parse(flags))
    run.train()
    state = run.states.load()
    state["options"]["compile"] = False  # as older versions stored it
    run.states.save(state)
    Trainer(MonodepthOptions().parse([*flags, "--resume", "--num_epochs", "3"]))
    assert ": 6 steps left are too few" in capsys.readouterr().out


def test_a_slow_precision_is_warned_of(drive, tmp_path, capsys):
    assert slowdown_warning("bf16", 1.05) is None
    assert slowdown_warning("bf16", 2.34) == (
        "warning: this CPU takes 2.3 times as long for a convolution in bf16 as in fp32; leave "
        "--precision out")
    assert 0 < slowdown(torch.bfloat16) < math.inf
    assert precision_warning("fp32", CPU) is None
    assert precision_warning("bf16", torch.device("cuda")) is None
    Trainer(MonodepthOptions().parse(train_flags(drive, "--precision", "fp16", "--num_layers", 2,
                                                 "--log_dir", tmp_path)))
    assert "warning: --precision fp16 is meant for GPUs" in capsys.readouterr().out
