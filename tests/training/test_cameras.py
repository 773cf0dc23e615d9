"""training/cameras.py: what a run with --learn_intrinsics prints, stores and resumes."""
import json
from importlib import import_module

import pytest
import torch
from conftest import HEIGHT, WIDTH, one_line, train_flags

from checkpoints.architecture import load_model
from checkpoints.training_camera import read_training_camera
from datasets import KITTIDataset
from options import MonodepthOptions
from synthetic.render import TRAIN
from trainer import Trainer
from training.cameras import is_observable

import_module("tiny")  # registers --num_layers 2, a tiny encoder


def flags(drive, folder, *more):
    return train_flags(drive, "--num_layers", 2, "--scales", 0, "--seed", 3, "--log_dir", folder,
                       "--learn_intrinsics", *more)


def train(words):
    run = Trainer(MonodepthOptions().parse([str(word) for word in words]))
    run.train()
    return run


def test_a_run_prints_and_stores_what_it_learned(drive, tmp_path, capsys):
    run = train(flags(drive, tmp_path, "--num_epochs", 2, "--use_stereo"))
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(f"camera {TRAIN}: fx ")]
    assert len(lines) == 2
    assert f"of {WIDTH}x{HEIGHT}; focal length " in lines[1]
    folder = tmp_path / "mdp/models/weights_1"
    content = json.loads((folder / "camera.json").read_text())
    camera, verdict = content["cameras"][TRAIN], content["focal_length"]
    assert camera["K_at_start"] == KITTIDataset.K[:3, :3].tolist()
    assert len(camera["K_by_epoch"]) == 2
    factor, x, y = run.model.intrinsics.changes()[0]
    K = camera["K_by_epoch"][1]
    assert K[0] == pytest.approx([0.58 * factor, 0, 0.5 + x])
    assert K[1] == pytest.approx([0, 1.92 * factor, 0.5 + y])
    assert factor != 1
    assert read_training_camera(folder, True).K == K  # of the only camera
    assert verdict["factors"] == [0.8, 1, 1.25]
    assert verdict["observable"] == is_observable(verdict["photometric"])
    assert ("unobservable" in out) != verdict["observable"]
    load_model(folder, with_pose=True)
    assert (folder / "intrinsics.pth").is_file()


def test_a_resumed_run_learns_the_same_cameras(drive, tmp_path):
    whole = train(flags(drive, tmp_path / "whole", "--num_epochs", 2))
    train(flags(drive, tmp_path / "parts", "--num_epochs", 1))
    parts = train(flags(drive, tmp_path / "parts", "--num_epochs", 2, "--resume"))
    for (name, a), b in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert whole.model.intrinsics.drift == parts.model.intrinsics.drift
    assert len(whole.model.intrinsics.drift) == 2


def test_without_the_flag_samples_and_files_are_as_before(drive, tmp_path):
    words = [word for word in flags(drive, tmp_path) if word != "--learn_intrinsics"]
    run = train(words)
    assert "camera" not in next(iter(run.train_loader))
    content = json.loads((tmp_path / "mdp/models/weights_0/camera.json").read_text())
    assert content.keys() == {"training", "min_depth", "max_depth", "baseline", "K", "image_size",
                              "unit"}
    assert content["K"] == KITTIDataset.K[:3, :3].tolist()


def test_stereo_pairs_alone_are_refused(drive, tmp_path, script):
    outcome = script("train", *flags(drive, tmp_path, "--frame_ids", 0, "--use_stereo"))
    assert "--learn_intrinsics learns from turns" in one_line(outcome, 2)


@pytest.mark.parametrize(("losses", "expected"), [
    ((0.12, 0.1, 0.12), True), ((0.12, 0.1, 0.1), False), ((0.1, 0.1, 0.12), False)])
def test_a_focal_length_is_observable_if_both_others_are_worse(losses, expected):
    assert is_observable(losses) == expected
