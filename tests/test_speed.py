"""Check the speed flags: each does what it says, and the training result stays the same."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import recipe
import torch
from conftest import ROOT, one_line, train_flags
from torch._dynamo.utils import counters
from torch.testing import assert_close

from datasets import collate
from layers import transformation_from_parameters
from losses import ReprojectionObjective
from networks import Monodepth2
from options import MonodepthOptions
from trainer import Trainer
from training.build import keep_steps_eager


def trainer(drive, *flags):
    return Trainer(MonodepthOptions().parse(train_flags(drive, *flags)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_precision_trains_and_keeps_weights_in_float32(drive, tmp_path, precision):
    run = trainer(drive, "--precision", precision, "--frame_ids", 0, "--use_stereo",
                  "--batch_size", 6, "--log_dir", tmp_path)
    run.logs.write = run.val = lambda *_: None  # halves are slow on most CPUs
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    run.train()
    assert run.step == 1
    for name, value in run.model.named_parameters():
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        assert torch.equal(value, before[name]) != value.requires_grad, name
    assert run.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize("kind", ["separate_resnet", "posecnn", "shared"])
def test_only_the_networks_leave_float32(kind):
    inputs = recipe.training_batch([0, -1, 1, "s"])
    torch.manual_seed(0)
    model = Monodepth2(18, False, [0, -1, 1, "s"], pose_model_type=kind, predictive_mask=True)
    exact = model(inputs)
    model.precision = torch.bfloat16
    outputs = model(inputs)
    assert {value.dtype for value in outputs.values()} == {torch.float32}
    for f in (-1, 1):
        expected = transformation_from_parameters(
            outputs["axisangle", 0, f], outputs["translation", 0, f], invert=f < 0)
        assert torch.equal(outputs["cam_T_cam", 0, f], expected)
    assert not torch.equal(outputs["disp", 0], exact["disp", 0])
    assert_close(outputs["disp", 0], exact["disp", 0], atol=0.05, rtol=0)
    disp = outputs["disp", 0]  # the sigmoid is not rounded to eight bits
    assert len(disp.unique()) > 10 * len(disp.bfloat16().unique())


def test_compiled_losses_and_gradients_match_eager_ones():
    inputs = recipe.training_batch([0, -1, 1])
    torch.manual_seed(0)
    disps = {("disp", s): torch.rand(2, 1, 64 >> s, 96 >> s) for s in (0, 2)}
    poses = {("cam_T_cam", 0, f): torch.eye(4).repeat(2, 1, 1) for f in (-1, 1)}
    for f in (-1, 1):
        # between pixels in both directions: at a pixel, bilinear sampling has two gradients
        poses["cam_T_cam", 0, f][:, :3, 3] = f * torch.tensor([0.05, 0.013, 0.02])
    found = []
    for compiled in (False, True):
        outputs = {key: value.clone().requires_grad_() for key, value in (disps | poses).items()}
        objective = ReprojectionObjective([0, -1, 1], [0, 2], tie_noise=0)
        if compiled:  # as `compile_parts` compiles it for a CPU
            keep_steps_eager(objective)
            objective.compile(dynamic=False)
        losses, views = objective(inputs, outputs)
        losses["loss"].backward()
        found.append((losses, views, {key: value.grad for key, value in outputs.items()}))
    (losses, views, gradients), (compiled_losses, compiled_views, compiled_gradients) = found
    for name, value in losses.items():
        assert compiled_losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert compiled_views.keys() == views.keys()
    for key, value in gradients.items():
        difference = (compiled_gradients[key] - value).abs()
        assert difference.norm() < 5e-3 * value.norm(), key
        if key[0] == "disp":
            assert (difference < 1e-5 * value.abs().max()).float().mean() > 0.99
    compiled_graphs = counters["stats"]["unique_graphs"]
    objective(inputs, outputs)
    assert counters["stats"]["unique_graphs"] == compiled_graphs > 0  # once and for all steps


def test_a_compiled_run_says_so_and_trains_on_the_same_inputs(drive, tmp_path, capsys):
    flags = "--frame_ids", 0, 1, "--scales", 0, "--log_dir", tmp_path
    inputs = []
    for run in (trainer(drive, *flags), trainer(drive, *flags, "--compile")):
        batch = collate([run.train_loader.dataset.load(i) for i in range(2)])
        torch.manual_seed(1)
        inputs.append(run.augment.train()(batch))
    assert capsys.readouterr().out.count("compiling: the first step takes a minute or two") == 1
    assert inputs[0].keys() == inputs[1].keys()
    for key, value in inputs[0].items():
        assert_close(inputs[1][key], value, atol=1e-5, rtol=0)
    assert not torch.equal(inputs[0]["color_aug", 0, 0], inputs[0]["color", 0, 0])
    run.train()
    assert run.step == 3


def run_train(drive, tmp_path, *flags, **environment):
    """Run train.py as a user does; return what it printed on both streams."""
    done = subprocess.run([sys.executable, ROOT / "train.py", *train_flags(
        drive, "--log_dir", tmp_path, *flags)], text=True, capture_output=True,
        env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_without_a_compiler_training_says_so_and_goes_on(drive, tmp_path):
    out, _ = run_train(drive, tmp_path, "--compile", CXX="no-such-compiler",
                       TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"))
    assert re.search("warning: --compile: nothing can be compiled here .*going on without it", out)
    assert "trained 3 steps" in out


def test_the_cache_is_announced_filled_and_read_by_later_runs(drive, tmp_path):
    flags = "--cache_dir", tmp_path / "cache", "--num_workers", 2, "--use_stereo"
    out, _ = run_train(drive, tmp_path, *flags)
    # 10-13 l and 20-21 r with their neighbours and other views; 3-4 l to validate
    assert re.findall(r"cache: (\d+) frames at 0.02 MB take 0.0 GB in ", out) == ["16", "6"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*/*.rgb")}
    assert len(files) == 22
    out, _ = run_train(drive, tmp_path, *flags, "--overwrite")
    assert sum(map(int, re.findall(r"has (\d+) already", out))) >= 22
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/*/*")}


def test_a_profile_prints_ten_operations_and_writes_a_trace(drive, tmp_path, script):
    outcome = script("train", *train_flags(drive, "--profile", 2, "--num_epochs", 2, "--log_dir",
                                           tmp_path))
    assert outcome.status == 0, outcome.err
    head = re.search(r"profile of 2 steps: [\d.]+ ms a step, [\d.]+% waiting for data\n.*\n"
                     r"((?: +[\d.]+ +[\d.]+%  \S.*\n){10})trace: (.*) \(", outcome.out)
    assert "convolution" in head[1]
    trace = json.loads(Path(head[2]).read_text())
    assert any(event.get("name") == "waiting for data" for event in trace["traceEvents"])


def test_a_profile_longer_than_the_run_is_a_usage_error(drive, script):
    outcome = script("train", *train_flags(drive, "--profile", 1))
    assert "--profile 1 records after 3 steps, and this run has 3" in one_line(outcome, 2)


def test_accumulated_batches_make_one_step(drive, tmp_path):
    run = trainer(drive, "--batch_size", 1, "--accumulate", 4, "--log_dir", tmp_path)
    run.train()
    assert run.step == 1  # of six batches: the last two make no step


def test_adam_goes_on_from_a_state_that_was_not_fused(drive, tmp_path, capsys):
    run = trainer(drive, "--log_dir", tmp_path, "--model_name", "first")
    run.train()
    path = run.weights_folder() / "adam.pth"
    state = torch.load(path, weights_only=True)
    for group in state["param_groups"]:
        del group["fused"]
    for moments in state["state"].values():
        moments["step"] = int(moments["step"])  # as PyTorch 0.4.1 wrote it
    torch.save(state, path)
    later = trainer(drive, "--log_dir", tmp_path, "--load_weights_folder", run.weights_folder())
    assert "loaded Adam's state" in capsys.readouterr().out
    later.train()
    steps = {float(moments["step"]) for moments in later.optimizer.state.values()}
    assert steps == {6.0}
    assert later.optimizer.param_groups[0]["fused"]


def test_batch_norm_over_all_gpus_needs_gpus(drive, script):
    outcome = script("train", *train_flags(drive, "--sync_batchnorm"))
    assert "--sync_batchnorm needs GPUs" in one_line(outcome, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("flags", ["", "--use_stereo --precision bf16", "--precision fp16",
                                   "--v1_multiscale", "--pose_model_type posecnn"])
def test_a_step_never_waits_for_the_gpu(drive, flags):
    words = train_flags(drive, *flags.split())
    words.remove("--no_cuda")
    run = Trainer(MonodepthOptions().parse(words))
    run.train_loader = [next(iter(run.train_loader))] * 3
    run.steps_per_epoch = 3
    run._logs_now = lambda _: False
    run._check_finite = lambda _: None  # it may wait: at a log, and at the end of an epoch
    run._progress = lambda: type("Quiet", (list,), {"show": lambda *_: None})(run.train_loader)
    run.run_epoch()  # chooses kernels, makes Adam's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.run_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
