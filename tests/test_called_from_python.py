"""The scripts' functions, called from Python in the way of code written for Monodepth2."""
from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, train_flags
from test_options import DEFAULTS

import evaluate_depth
import evaluate_pose
import export_gt_depth
import test_simple
from options import MonodepthOptions
from runtime import downloads
from trainer import Trainer

import_module("tiny")  # registers --num_layers 2, a tiny encoder

# Monodepth2's flags: those before the ones that it does not have
ORIGINAL = {name: DEFAULTS[name] for name in list(DEFAULTS)[:list(DEFAULTS).index("precision")]}


def parse_argv(patch: pytest.MonkeyPatch, *words: object) -> Namespace:
    """Parse a command line as every script of the original does."""
    patch.setattr(sys, "argv", ["script.py", *map(str, words)])
    options = MonodepthOptions()
    return options.parse()


@pytest.fixture(scope="module")
def trained(drive, tmp_path_factory) -> Path:
    """Train a tiny network by `Trainer(options.parse()).train()`; return its weights folder."""
    log_dir = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        opts = parse_argv(patch, *train_flags(drive, "--num_layers", 2, "--log_dir", log_dir,
                                              "--model_name", "tiny", "--seed", 0))
    Trainer(opts).train()
    return log_dir / "tiny" / "models" / "weights_0"


def flags_of_evaluation(drive: Path, weights: Path, out: Path) -> dict:
    """Return what an evaluation on the drive needs to be told."""
    return {"data_path": str(drive), "load_weights_folder": str(weights), "num_workers": 0,
            "no_cuda": True, "eval_out_dir": str(out)}


def depth_flags(drive: Path, weights: Path, out: Path) -> dict:
    """Return what an evaluation of depth on the drive needs to be told."""
    return flags_of_evaluation(drive, weights, out) | {
        "eval_split": str(drive / "splits/tiny"), "eval_mono": True}


def words_of(flags: dict) -> list[str]:
    """Return a command line with these flags."""
    return [word for name, value in flags.items()
            for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])]


def last_table(text: str) -> str:
    """Return the last two lines that an evaluation of depth prints."""
    assert "abs_rel" in text
    return "\n".join(text.strip().splitlines()[-2:])


@pytest.fixture
def expected_table(drive, trained, tmp_path, script):
    """Return the table that the script prints for its own command line."""
    outcome = script("evaluate_depth", *words_of(depth_flags(drive, trained, tmp_path / "script")))
    assert outcome.status == 0, outcome.err
    return last_table(outcome.out)


def test_one_options_class_serves_the_evaluation_of_depth(
        drive, trained, tmp_path, monkeypatch, capsys, expected_table):
    opt = parse_argv(monkeypatch, *words_of(depth_flags(drive, trained, tmp_path)))
    evaluate_depth.evaluate(opt)
    assert last_table(capsys.readouterr().out) == expected_table


def test_options_set_after_parsing_are_evaluated_and_stay(
        drive, trained, tmp_path, capsys, expected_table):
    opt = MonodepthOptions().parser.parse_args([])
    for name, value in depth_flags(drive, trained, tmp_path).items():
        setattr(opt, name, value)
    before = dict(vars(opt))
    evaluate_depth.evaluate(opt)
    assert last_table(capsys.readouterr().out) == expected_table
    assert vars(opt) == before


def test_options_with_the_originals_flags_alone_are_evaluated(
        drive, trained, tmp_path, capsys, expected_table):
    evaluate_depth.evaluate(opt=Namespace(**ORIGINAL | depth_flags(drive, trained, tmp_path)))
    assert last_table(capsys.readouterr().out) == expected_table


def test_one_options_class_serves_the_evaluation_of_odometry(
        drive, trained, tmp_path, monkeypatch, capsys):
    flags = flags_of_evaluation(drive, trained, tmp_path) | {
        "eval_split": str(drive / "splits/odom/test_files_09.txt")}
    evaluate_pose.evaluate(parse_argv(monkeypatch, *words_of(flags)))
    assert "Trajectory error: " in capsys.readouterr().out
    assert np.load(tmp_path / "poses.npy").shape == (11, 4, 4)


@pytest.mark.parametrize(("evaluate", "changes", "found"), [
    (evaluate_depth.evaluate, {"eval_mono": False}, "neither of --eval_mono and --eval_stereo"),
    (evaluate_depth.evaluate, {"eval_stereo": True}, "both of --eval_mono and --eval_stereo"),
    (evaluate_depth.evaluate, {"load_weights_folder": None}, "give one of --load_weights_folder"),
    (evaluate_pose.evaluate, {"eval_split": "eigen"}, "no sequence of odometry is named"),
    (Trainer, {"height": 100}, "--height is 100; it must be a multiple of 32")])
def test_wrong_options_are_refused_by_the_functions_too(
        drive, tmp_path, capsys, evaluate, changes, found):
    flags = depth_flags(drive, tmp_path, tmp_path) | changes
    with pytest.raises(SystemExit) as ended:
        evaluate(Namespace(**vars(MonodepthOptions().parse([])) | flags))
    assert ended.value.code == 2
    assert found in capsys.readouterr().err


def test_an_opt_json_of_the_original_trains_on_from_home(drive, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(trained.parents[2]))
    flags = vars(MonodepthOptions().parse(train_flags(drive, "--num_layers", 2)))
    saved = {name: flags[name] for name in ORIGINAL} | {
        "load_weights_folder": "~/tiny/models/weights_0", "log_dir": str(tmp_path),
        "weights_init": "scratch"}
    (tmp_path / "opt.json").write_text(json.dumps(saved))
    Trainer(Namespace(**json.loads((tmp_path / "opt.json").read_text()))).train()
    assert (tmp_path / "mdp/models/weights_0/depth.pth").is_file()


def test_hand_made_args_of_the_original_predict_an_image(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path / "models")
    shutil.copytree(trained, tmp_path / "models/mono_640x192")
    shutil.copy(trained.parent / "opt.json", tmp_path / "models")
    cv2.imwrite(str(tmp_path / "street.jpg"), np.full((70, 90, 3), 128, np.uint8))
    args = Namespace(image_path=str(tmp_path / "street.jpg"), model_name="mono_640x192", ext="jpg",
                     no_cuda=True, pred_metric_depth=False)
    test_simple.test_simple(args)
    assert np.load(tmp_path / "street_disp.npy").shape == (1, 1, HEIGHT, WIDTH)
    assert cv2.imread(str(tmp_path / "street_disp.jpeg")).shape == (70, 90, 3)


def test_ground_truth_is_exported_by_a_call_without_arguments(drive, tmp_path, monkeypatch):
    split = tmp_path / "split"
    shutil.copytree(drive / "splits/tiny", split)
    monkeypatch.setattr(sys, "argv", ["export_gt_depth.py", "--data_path", str(drive), "--split",
                                      str(split), "--num_workers", "0"])
    export_gt_depth.export_gt_depths_kitti()
    with np.load(split / "gt_depths.npz") as maps:
        assert maps["depth_000000"].dtype == np.float32


def test_a_trainer_that_overrides_methods_never_called_is_refused():
    with pytest.raises(TypeError, match=r"Mine overrides compute_losses, which this Trainer never"):
        class Mine(Trainer):
            def compute_losses(self, inputs, outputs):
                return {}



@pytest.mark.parametrize("loop", ["run_epoch", "train"])
def test_a_trainer_with_a_loop_of_its_own_may_have_any_method(loop):
    own = type("Own", (Trainer,), {loop: lambda self: self.process_batch({}),
                                   "process_batch": lambda self, inputs: inputs})
    assert type("Heir", (own,), {"process_batch": lambda self, inputs: {}}).__base__ is own
