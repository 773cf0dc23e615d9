"""Test that every mode trains, writes weights and logs, and names what is wrong with its data."""
import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from importlib import import_module

import pytest
import torch
from conftest import HEIGHT, ROOT, WIDTH, one_line, read_events, train_flags

from checkpoints.architecture import load_model
from datasets import DATASETS, KITTIRAWDataset
from options import MonodepthOptions
from synthetic.render import TRAIN
from trainer import Trainer

import_module("tiny")  # registers --num_layers 2, a tiny encoder


def events(folder):
    """Return {tag: values} of the events: scalars, and PNG sizes of pictures."""
    found = {}
    for event in read_events(folder):
        for value in event.summary.value:
            size = (value.image.height, value.image.width)
            found.setdefault(value.tag, []).append(
                size if value.HasField("image") else value.simple_value)
    return found


def trainer(drive, *flags):
    return Trainer(MonodepthOptions().parse(train_flags(drive, *flags)))


def tiny_flags(drive, *more):
    """Return the flags of a run with a tiny encoder."""
    return train_flags(drive, "--num_layers", 2, *more)


@pytest.mark.parametrize("flags", [
    "", "--num_layers 34", *(f"--num_layers 2 {mode}" for mode in (
        "--frame_ids 0 --use_stereo", "--use_stereo", "--predictive_mask --disable_automasking",
        "--v1_multiscale --disable_automasking --avg_reprojection", "--no_ssim --scales 0 2",
        "--pose_model_type posecnn --use_stereo", "--pose_model_type shared --use_stereo",
        "--frame_ids 0 -2 -1 1 2 --pose_model_input all",
        "--pose_model_type posecnn --pose_model_input all"))])
def test_every_mode_trains_and_its_weights_load(drive, tmp_path, flags):
    run = trainer(drive, "--log_dir", tmp_path, "--model_name", "m", *flags.split())
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    assert run.step == 3
    for name, parameter in run.model.named_parameters():
        assert parameter.isfinite().all(), name
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
    model, form = load_model(tmp_path / "m/models/weights_0", with_pose="0 --use" not in flags)
    assert form == (HEIGHT, WIDTH, "--use_stereo" in flags)
    for name, value in model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name])


def test_the_public_parts_give_losses_and_views(drive):
    run = trainer(drive)
    inputs = run.augment(next(iter(run.train_loader)))
    losses, views = run.objective(inputs, run.model(inputs))
    assert {"loss", "loss/0", "loss/3", "photometric/0", "smoothness/0"} <= losses.keys()
    assert ("color", -1, 0) in views
    assert run.scheduler.get_last_lr() == [1e-4]


def test_the_loss_falls(drive):
    run = trainer(drive, "--use_stereo", "--learning_rate", "3e-4", "--batch_size", 4, "--seed", 0)
    batch = next(iter(run.train_loader))
    losses = []
    for _ in range(15):
        inputs = run.augment.eval()(batch)
        loss = run.objective(inputs, run.model(inputs))[0]["loss"]
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_learning_rate_drops_after_whole_epochs(drive, tmp_path):
    # Faithful 2: with a step size of 2, both of the first epochs have the full rate
    run = trainer(drive, "--num_epochs", 3, "--scheduler_step_size", 2, "--log_dir", tmp_path,
                  "--save_frequency", 9, "--num_layers", 2)
    rates = []
    run.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    run.train()
    assert rates == pytest.approx([1e-4] * 6 + [1e-5] * 3)


def test_weights_are_saved_every_save_frequency_and_at_the_end(drive, tmp_path):
    trainer(drive, "--num_epochs", 3, "--save_frequency", 2, "--log_dir", tmp_path,
            "--model_name", "m", "--num_layers", 2).train()
    models = tmp_path / "m" / "models"
    assert sorted(path.name for path in models.iterdir()) == [
        "opt.json", "training_state_00000006.pth", "training_state_00000009.pth", "weights_1",
        "weights_2"]
    assert json.loads((models / "opt.json").read_text())["save_frequency"] == 2


def test_tensorboard_has_the_originals_scalars_and_pictures(drive, weights):
    logs = weights.parent.parent
    train, val = events(logs / "train"), events(logs / "val")
    scalars = {"loss", "loss/0", "loss/1", "loss/2", "loss/3"}
    pictures = {"color_0_0/0", "color_0_3/1", "color_-1_0/0", "color_s_0/0", "color_pred_-1_0/0",
                "color_pred_1_0/1", "color_pred_s_0/0", "disp_0/0", "disp_3/1", "automask_0/0"}
    depth = {"de/abs_rel", "de/sq_rel", "de/rms", "de/log_rms", "da/a1", "da/a2", "da/a3"}
    assert scalars | pictures <= train.keys() & val.keys()
    assert depth <= val.keys()
    assert not depth & train.keys()
    assert train["disp_3/1"] == [(HEIGHT // 8, WIDTH // 8)]
    assert 0 < val["de/abs_rel"][0] < 2


def test_fine_tuning_starts_from_the_weights(drive, weights, tmp_path, capsys):
    run = trainer(drive, "--load_weights_folder", weights, "--learning_rate", "3e-5")
    expected = torch.load(weights / "depth.pth", weights_only=True)
    assert all(torch.equal(value, expected[name])
               for name, value in run.model.depth.state_dict().items())
    assert "loaded depth\n" in capsys.readouterr().out
    assert run.optimizer.state_dict()["state"]
    assert run.scheduler.get_last_lr() == [3e-5]


def test_mono_weights_fine_tune_in_stereo_and_say_what_was_skipped(drive, weights, capsys):
    trainer(drive, "--load_weights_folder", weights, "--frame_ids", 0, "--use_stereo")
    out = capsys.readouterr().out
    assert "loaded encoder\nloaded depth\nskipped pose_encoder: " in out
    assert "skipped Adam's state" in out


def test_train_py_trains_on_odometry_in_worker_processes(drive, tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    for name in ("train", "val"):
        (split / f"{name}_files.txt").write_text("9 l: 1-4\n")
    flags = train_flags(drive, "--dataset", "kitti_odom", "--split", split, "--num_workers", 2,
                        "--log_dir", tmp_path, "--model_name", "odom")
    done = subprocess.run([sys.executable, ROOT / "train.py", *flags], cwd=tmp_path, text=True,
                          capture_output=True, check=True)
    weights = tmp_path / "odom/models/weights_0"
    assert f"weights: {weights}\nnext: python test_simple.py" in done.stdout
    assert load_model(weights, with_pose=True)[1] == (HEIGHT, WIDTH, False)
    assert re.search(r"2/2 \[.*loss \d\.\d{4}, \d+\.\d examples/s, \d+% waiting for data\]",
                     done.stderr)


@pytest.mark.parametrize(("flags", "found"), [
    (["--data_path", "nowhere"], "--data_path nowhere does not exist"),
    (["--split", "nowhere"], "found no split and no folder named 'nowhere'"),
    (["--png"], "leave out --png"),
    (["--batch_size", "100"],
     "train_files.txt has 6 lines, fewer than the 100 of a step; choose --batch_size 6 or less"),
    (["--load_weights_folder", "nowhere"], "nowhere does not exist"),
    (["--dataset", "kitti_odom"], "expected the number of a sequence")])
def test_bad_data_gets_one_line_and_status_1(drive, tmp_path, script, flags, found):
    outcome = script("train", *tiny_flags(drive, "--log_dir", tmp_path), *flags)
    assert found in one_line(outcome, status=1)
    assert not list(tmp_path.glob("**/weights_*"))


def test_wrong_flags_leave_nothing_that_stops_the_corrected_run(drive, tmp_path, script):
    words = tiny_flags(drive, "--log_dir", tmp_path)
    outcome = script("train", *words, "--png")
    assert "leave out --png" in one_line(outcome, status=1)
    assert list((tmp_path / "mdp/models").iterdir()) == []
    assert "trained 3 steps" in script("train", *words).out
    before = sorted((tmp_path / "mdp/models").iterdir())
    one_line(script("train", *words, "--png"), status=2)
    assert sorted((tmp_path / "mdp/models").iterdir()) == before


def test_resuming_with_wrong_data_keeps_an_earlier_first_state(drive, tmp_path, script):
    words = tiny_flags(drive, "--log_dir", tmp_path, "--keep", 9)
    assert script("train", *words).status == 0
    models = tmp_path / "mdp/models"
    shutil.rmtree(models / "weights_0")
    (models / "training_state_00000003.pth").unlink()  # as if killed within the first epoch
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = script("train", *words, "--resume", "--data_path", empty)
    assert "is missing" in one_line(outcome, status=1)
    assert (models / "training_state_00000000.pth").is_file()
    assert "trained 3 steps" in script("train", *words, "--resume").out


@pytest.mark.parametrize(("flags", "found"), [
    (["--dataset", "mine"], "--dataset mine does not exist; choose one of kitti, "),
    (["--num_layers", 20], "--num_layers 20 does not exist; choose one of 18, 34, ")])
def test_a_name_that_does_not_exist_gets_one_line_and_status_2(drive, script, flags, found):
    assert found in one_line(script("train", *train_flags(drive), *flags), status=2)


def test_a_dataset_is_added_by_one_line_in_datasets(drive, tmp_path, monkeypatch, script):
    class Mine(KITTIRAWDataset):
        """A dataset of a user."""

    monkeypatch.setitem(DATASETS, "mine", Mine)
    outcome = script("train", *tiny_flags(drive, "--dataset", "mine", "--log_dir", tmp_path))
    assert outcome.status == 0, outcome.err
    assert "--dataset mine" in outcome.out


@pytest.mark.parametrize(("flags", "found"), [
    ("", "--eval_mono --eval_split {split}"),
    ("--use_stereo --min_depth 1",
     "--eval_stereo --eval_split {split} --min_depth 1.0 --max_depth 100.0"),
    ("--dataset kitti_depth", "--eval_mono --eval_split {split} --dataset kitti_depth")])
def test_the_next_command_evaluates_what_was_trained(drive, tmp_path, script, flags, found):
    split = tmp_path / "my split"
    shutil.copytree(drive / "splits/tiny", split)
    run = trainer(drive, "--log_dir", tmp_path, "--split", split, "--num_layers", 2, *flags.split())
    assert run.next_command() == (
        f"python evaluate_depth.py --data_path {drive} {found} --load_weights_folder "
        f"{tmp_path}/mdp/models/weights_0").format(split=f"'{split}'")
    run.train()
    words = shlex.split(run.next_command())[1:]
    outcome = script(words[0].removesuffix(".py"), *words[1:], "--num_workers", 0)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(("flags", "found"), [
    ("--split eigen_zhou", "evaluate_depth.py --data_path {} --eval_mono "),
    ("--split eigen_full --frame_ids 0 --use_stereo",
     "evaluate_depth.py --data_path {} --eval_stereo "),
    ("--split benchmark", "evaluate_depth.py --data_path {} --eval_mono --eval_split benchmark "),
    ("--split odom --dataset kitti_odom", "evaluate_pose.py --data_path {} --eval_split odom_9 ")])
def test_the_next_command_after_a_kitti_split_uses_its_test_frames(drive, flags, found):
    command = trainer(drive, "--num_layers", 2, *flags.split()).next_command()
    assert command.startswith("python " + found.format(drive) + "--load_weights_folder ")


def test_the_next_command_after_a_list_without_test_frames_predicts(drive, tmp_path):
    for name in ("train", "val"):
        shutil.copy(drive / f"splits/tiny/{name}_files.txt", tmp_path)
    run = trainer(drive, "--split", tmp_path, "--log_dir", tmp_path, "--num_layers", 2)
    assert run.next_command() == ("python test_simple.py --image_path IMAGE --load_weights_folder "
                                  f"{tmp_path}/mdp/models/weights_0")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Start with an empty cache of torch, and let every download fail."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(urllib.request, "_opener", None)  # the first opener keeps its proxies


@pytest.mark.usefixtures("offline")
def test_fine_tuning_with_all_encoders_needs_no_imagenet_weights(drive, weights, script):
    flags = ("--weights_init", "pretrained", "--load_weights_folder", weights)
    trainer(drive, *flags)
    outcome = script("train", *train_flags(drive, *flags, "--models_to_load", "encoder"))
    assert "ImageNet's weights of resnet18 cannot be loaded" in one_line(outcome, status=1)


def test_a_log_folder_that_cannot_be_made_is_named(drive, tmp_path, script):
    (tmp_path / "file").write_text("")
    outcome = script("train", *tiny_flags(drive, "--log_dir", tmp_path / "file"))
    assert f"{tmp_path / 'file'} is a file, not a folder; choose" in one_line(outcome, status=1)


def test_only_the_models_to_load_are_loaded(drive, weights, capsys):
    trainer(drive, "--load_weights_folder", weights, "--models_to_load", "depth")
    assert [line for line in capsys.readouterr().out.splitlines() if "loaded" in line] == [
        "loaded depth", "loaded Adam's state"]


def test_a_malformed_split_line_is_named(drive, tmp_path, script):
    shutil.copytree(drive / "splits/tiny", tmp_path / "split")
    (tmp_path / "split/train_files.txt").write_text(f"{TRAIN} 10 l\n{TRAIN} ten l\n")
    outcome = script("train", *tiny_flags(drive, "--split", tmp_path / "split"))
    assert "train_files.txt, line 2: found the frame 'ten'" in one_line(outcome, status=1)


def test_a_corrupt_image_stops_a_run_with_its_name(drive, tmp_path, script):
    data = tmp_path / "data"
    shutil.copytree(drive, data)
    image = data / TRAIN / "image_02/data/0000000012.jpg"
    image.write_bytes(image.read_bytes()[:300])
    outcome = script("train", *tiny_flags(data, "--num_workers", 1, "--log_dir", tmp_path))
    assert "image_02/data/0000000012.jpg cannot be read" in one_line(outcome, status=1)
    assert not list(tmp_path.glob("**/weights_*"))


def test_a_missing_frame_stops_a_run_with_its_line(drive, tmp_path, script):
    split = tmp_path / "split"
    shutil.copytree(drive / "splits/tiny", split)
    (split / "train_files.txt").write_text(f"# my list\n{TRAIN} l: 0 0\n")
    outcome = script("train", *tiny_flags(drive, "--split", split, "--log_dir", tmp_path))
    assert "train_files.txt, line 2" in one_line(outcome, status=1)
    assert "-000000001.jpg is missing; frame 0 has no neighbour -1; list only" in outcome.err


@pytest.mark.usefixtures("offline")
def test_without_imagenets_weights_the_error_says_where_they_go(drive, tmp_path, script):
    outcome = script("train", *train_flags(drive, "--weights_init", "pretrained"))
    error = one_line(outcome, status=1)
    assert f"at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in error
    assert "--weights_init scratch" in error
