"""benchmarks.gpu: the CPU agrees with itself, a planted fault differs, and steps are measured."""
import json
import math
import shutil
import subprocess
import sys

import pytest
import tiny  # noqa: F401 - adds the small encoder --num_layers 2
import torch
from conftest import HEIGHT, ROOT, WIDTH

from benchmarks import agreement, gpu, run
from benchmarks.agreement import Agreement, Case, Side, compare

SIZE = ("--height", str(HEIGHT), "--width", str(WIDTH))
TINY = (*SIZE, "--num_layers", "2")
FLAGS = (*TINY, "--batch_size", "2")
NAMES = ["losses, float32", "gradients, float32", "losses, TF32", "gradients, TF32",
         "losses, bf16", "gradients, bf16", "losses, fp16", "gradients, fp16",
         "losses, --compile", "gradients, --compile", "resume", "evaluation table, float32",
         "prediction, float32", "prediction, TF32", "ONNX"]


@pytest.fixture(scope="module")
def frames(drive, tmp_path_factory):
    """Prepare the frames of the rendered drive as the benchmarks do; return their folder."""
    folder = tmp_path_factory.mktemp("frames")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "TEST_FRAMES", run.TRAIN_FRAMES)
        run.prepare(drive, folder)
    return folder


@pytest.fixture(scope="module")
def start(frames):
    """Train weights of this size on the CPU."""
    return agreement.train_weights("cpu", frames, (*TINY, "--batch_size", "12"))


@pytest.fixture
def uncompiled():
    """Let compiled parts run eagerly: test_speed.py compiles, which takes a minute."""
    with torch._dynamo.config.patch(disable=True):
        yield


def test_a_device_agrees_with_itself_in_every_comparison(frames, start, uncompiled):
    found = list(compare(Case(Side("cpu", start), Side("cpu", start), frames, FLAGS)))
    assert [each.name for each in found] == NAMES
    assert {each.verdict() for each in found if not each.verdict().startswith("ok: ")} == set()
    assert not any(each.is_fault for each in found)


def test_other_weights_on_one_side_differ_in_every_comparison(frames, start, tmp_path, uncompiled):
    changed = tmp_path / "models/weights_0"
    shutil.copytree(start.parent, changed.parent)
    for name in "encoder", "pose_encoder":
        state = torch.load(changed / f"{name}.pth", weights_only=True)
        key = "stages.0.0.weight"
        state[key] = -10 * state[key]
        torch.save(state, changed / f"{name}.pth")
    found = list(compare(Case(Side("cpu", start), Side("cpu", changed), frames, FLAGS)))
    assert [each.name for each in found] == NAMES
    assert [each.name for each in found if not each.is_fault] == []
    *others, onnx = (each.verdict() for each in found)
    assert [verdict for verdict in others if not verdict.startswith("differs by ")] == []
    assert "the exported network differs from PyTorch's" in onnx


def test_a_comparison_that_fails_is_a_fault_and_the_others_run(frames, start, tmp_path, uncompiled):
    broken = tmp_path / "weights_0"
    shutil.copytree(start, broken)
    (broken / "depth.pth").write_bytes(b"no weights")
    found = list(compare(Case(Side("cpu", start), Side("cpu", broken), frames, FLAGS)))
    assert [each.name for each in found] == list(agreement.COMPARISONS)
    assert all(each.is_fault for each in found)
    assert all("depth.pth cannot be read" in each.verdict() for each in found)


def test_a_verdict_names_difference_tolerance_and_reason():
    assert Agreement("x", 0.0, 0.1).verdict() == "ok: the same bits (0.1 is allowed)"
    assert Agreement("x", 0.02, 0.1).verdict() == "ok: 0.02 (0.1 is allowed)"
    assert Agreement("x", 0.3, 0.1).verdict() == "differs by 0.3; at most 0.1 is rounding"
    assert Agreement("x", math.nan, 0.1).is_fault
    missing = Agreement("x", None, reason="onnx is missing")
    assert missing.verdict() == "not run: onnx is missing"
    assert not missing.is_fault


def test_a_step_is_measured_and_reported(frames, tmp_path):
    flags = f"--batch_size 1 --no_cuda {' '.join(SIZE)}"
    rows = [run.Row("step fp32, CPU", "samples/s", "step", flags, flags, 1),
            run.Row("step int8, CPU", "samples/s", "step", f"{flags} --precision int8", flags, 1)]
    measured, failed = gpu.measure_rows(rows, frames, math.inf)
    for side in gpu.SIDES:
        assert measured["hours"][side] == pytest.approx(20 * 39_810 / measured[side] / 3600)
        assert 0 < measured["objective"][side] < 1
    assert "invalid choice: 'int8'" in failed["reason"]
    (late,) = gpu.measure_rows(rows[:1], frames, -math.inf)
    assert late == {"name": "step fp32, CPU", "reason": "there was no time left"}

    agreements = [Agreement("resume", 0.5, 0.01), Agreement("ONNX", math.nan, 0, "broken")]
    markdown = gpu.write_report(tmp_path / "gpu.json", agreements, [measured, late])
    assert (tmp_path / "gpu.md").read_text() == markdown
    assert "| resume | differs by 0.5; at most 0.01 is rounding |" in markdown
    assert f"| step fp32, CPU | this project | {measured['fast']:.3g} |" in markdown
    assert f"| step fp32, CPU | unmeasured: {late['reason']} |" in markdown
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["rows"] == [measured, late]
    assert [each["difference"] for each in content["agreements"]] == [0.5, None]


def test_the_rows_of_a_gpu_are_fp32_bf16_and_compiled():
    assert [row.fast for row in gpu.ROWS] == [
        "--batch_size 12", "--batch_size 12 --precision bf16",
        "--batch_size 12 --compile --precision bf16"]
    assert {row.literal for row in gpu.ROWS} == {"--batch_size 12"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_command_says_so_in_one_line(tmp_path):
    # an empty module in the way: neither tensorboardX nor the packages of the tests are needed
    for name in "tensorboardX", "pytest", "trustme", "hypothesis", "evo", "onnx", "onnxruntime":
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed')")
    code = "import benchmarks.agreement, benchmarks.tasks, runpy, sys; sys.argv = ['gpu.py']; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code} runpy.run_path('benchmarks/gpu.py', run_name='__main__')"],
        cwd=ROOT, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: PyTorch ")
    assert "no GPU" in done.stderr
