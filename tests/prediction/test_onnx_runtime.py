"""test_simple.py --load_onnx: an ONNX file predicts as its weights folder does, without PyTorch."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import HEIGHT, ROOT, SHARED, WIDTH, needs_shared, one_line
from PIL import Image

from checkpoints.training_camera import read_training_camera
from prediction.choices import RUNTIMES
from prediction.onnx import onnx_bytes
from prediction.onnx_runtime import CAMERA, INPUT, OnnxPredictor, openvino_core
from prediction.predictor import Predictor
from runtime.errors import DataError

TOLERANCE = 2e-5  # relative, of depth
# mean of depth in bfloat16: each of 31 convolutions rounds by 2^-9 of a value, up or down
BFLOAT16_ERROR = 2**-9 * 31**0.5
REAL = SHARED / "real/kitti_raw/2011_09_26/2011_09_26_drive_0052_sync/image_02/data"
FLAGS = ("--output", "disp", "depth", "png", "picture", "video", "--ply",
         "--intrinsics", "80", "80", "75", "45")
# what a machine with ONNX Runtime only may lack
OTHERS = ("torch", "torchvision", "scipy", "skimage", "matplotlib", "onnx", "onnxscript",
          "tensorboardX", "safetensors")
RUN = """
import runpy, sys
forbidden = sys.argv.pop(1).split(",")
sys.modules.update({name: None for name in forbidden if name})  # importing these raises
sys.argv[0] = "test_simple.py"
runpy.run_path("test_simple.py", run_name="__main__")
print("torch is imported:", sys.modules.get("torch") is not None)
"""


@pytest.fixture(scope="module")
def file(onnx_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    path.write_bytes(onnx_bytes(Predictor(onnx_weights), 18))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write three textured images of one size, as a video needs."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        noise = Image.fromarray(np.random.randint(0, 256, (12, 16, 3), np.uint8))
        noise.resize((150, 90)).save(folder / f"{i}.png")
    return folder


def predict_elsewhere(file, folder, out, forbidden):
    return subprocess.run(
        [sys.executable, "-c", RUN, ",".join(forbidden), "--load_onnx", file, "--image_path",
         folder, "--ext", "png", "--output_dir", out, *FLAGS],
        cwd=ROOT, text=True, capture_output=True)


@pytest.mark.parametrize("forbidden", [(), OTHERS], ids=["there", "not there"])
def test_an_onnx_file_is_predicted_without_pytorch(file, folder, tmp_path, forbidden):
    done = predict_elsewhere(file, folder, tmp_path, forbidden)
    assert done.returncode == 0, done.stderr
    assert "torch is imported: False" in done.stdout
    names = [f"{i}{ending}" for i in range(3) for ending in (
        "_cloud.ply", "_depth.npy", "_depth.png", "_disp.jpeg", "_disp.npy")]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".mp4") == names
    assert (tmp_path / f"{folder.name}_disp.mp4").stat().st_size > 0


def outputs_of(folder):
    """Return the arrays of all .npy files and pictures, by name."""
    return {path.name: np.load(path) if path.suffix == ".npy" else
            np.array(Image.open(path)).astype(float)
            for path in folder.iterdir() if path.suffix in (".npy", ".png", ".jpeg")}


def compare(script, file, onnx_weights, images, tmp_path):
    """Predict images with both runtimes; return the largest relative difference of the arrays."""
    worst = 0
    for size in ("network", "image"):
        for flag, network in (("--load_onnx", file), ("--load_weights_folder", onnx_weights)):
            outcome = script("test_simple", flag, network, "--image_path", images, "--ext", "png",
                             "--output_dir", tmp_path / size / flag, "--output", "disp", "depth",
                             "png", "picture", "--size", size)
            assert outcome.status == 0, outcome.err
        found, expected = (outputs_of(tmp_path / size / flag)
                           for flag in ("--load_onnx", "--load_weights_folder"))
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            if name.endswith(".npy"):
                worst = max(worst, (np.abs(found[name] - values) / values).max())
            else:
                assert np.abs(found[name] - values).mean() < 0.1, name
    return worst


def test_outputs_equal_those_of_the_weights_folder(file, onnx_weights, folder, tmp_path, script):
    assert compare(script, file, onnx_weights, folder, tmp_path) < TOLERANCE


@needs_shared
def test_real_images_are_predicted_as_with_pytorch(file, onnx_weights, tmp_path, script):
    assert compare(script, file, onnx_weights, REAL, tmp_path) < TOLERANCE


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_pytorchs_depth(file, onnx_weights, runtime):
    pytest.importorskip(runtime)
    images = np.random.randint(0, 256, (2, 3, HEIGHT, WIDTH), np.uint8)
    found, expected = OnnxPredictor(file, runtime=runtime), Predictor(onnx_weights)
    assert (found.height, found.width) == (HEIGHT, WIDTH)
    depths = [p.training_camera.disp_to_depth(p.disparity_array(images))[1]
              for p in (found, expected)]
    assert depths[0].shape == (2, 1, HEIGHT, WIDTH)
    errors = np.abs(depths[0] - depths[1]) / depths[1]
    if runtime == "openvino":  # in bfloat16 where the CPU can
        assert errors.mean() < BFLOAT16_ERROR
    else:
        assert errors.max() < TOLERANCE


def test_openvino_in_float32_gives_pytorchs_depth(file, onnx_weights):
    pytest.importorskip("openvino")
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    network = openvino_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        depth = Predictor(onnx_weights)(images)[1].numpy()
    assert (np.abs(network({INPUT: images.numpy()})["depth"] - depth) / depth).max() < TOLERANCE


def test_a_signal_is_handled_after_two_networks_of_openvino(file):
    pytest.importorskip("openvino")
    program = """
import os, signal, sys
from prediction.onnx_runtime import OnnxPredictor
predictors = [OnnxPredictor(sys.argv[1], runtime="openvino") for _ in range(2)]
del predictors[0]
del predictors[0]
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", program, file], cwd=ROOT, text=True,
                          capture_output=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_camera_and_unit_come_out_of_the_file_alone(file, onnx_weights):
    found = OnnxPredictor(file).training_camera
    assert found == read_training_camera(onnx_weights, use_stereo=True)
    assert found.unit().words.startswith("metres: 5.4 x")


def test_another_depth_range_changes_depth_as_with_a_folder(file, onnx_weights):
    images = np.random.randint(0, 256, (1, 3, HEIGHT, WIDTH), np.uint8)
    found, expected = (
        p.training_camera.disp_to_depth(p.disparity_array(images))[1]
        for p in (OnnxPredictor(file, 0.5, 20), Predictor(onnx_weights, "cpu", 0.5, 20)))
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_runtime_is_one_line(file, folder, script, monkeypatch, runtime):
    monkeypatch.setitem(sys.modules, runtime, None)  # Python's own way to forbid an import
    error = one_line(script("test_simple", "--load_onnx", file, "--runtime", runtime,
                            "--image_path", folder, "--ext", "png"), 1)
    assert f"{runtime} is not installed; type: pip install {runtime}" in error


@pytest.mark.parametrize(("content", "words"), [
    (None, "is missing; give an .onnx file"), (b"no network", "cannot be read as an ONNX file")])
def test_a_wrong_onnx_file_is_one_line(folder, tmp_path, script, content, words):
    pytest.importorskip("onnxruntime")
    if content is not None:
        (tmp_path / "x.onnx").write_bytes(content)
    error = one_line(script("test_simple", "--load_onnx", tmp_path / "x.onnx", "--image_path",
                            folder, "--ext", "png"), 1)
    assert words in error


def test_a_file_of_another_program_is_refused(file, tmp_path):
    import onnx
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match="does not say its depth range and unit; export it again"):
        OnnxPredictor(tmp_path / "other.onnx")


def test_a_file_with_a_broken_camera_says_to_export_again(file, tmp_path):
    import onnx
    model = onnx.load(file)
    next(each for each in model.metadata_props if each.key == CAMERA).value = "{}"
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(DataError, match="is broken; export it again with export_onnx"):
        OnnxPredictor(tmp_path / "broken.onnx")


@pytest.mark.parametrize(("flags", "words"), [
    (["--load_onnx", "x.onnx", "--scale_from", "gt.npz"], "--scale_from needs PyTorch, and"),
    (["--load_onnx", "x.onnx", "--scene"], "--scene needs the pose network of a weights folder"),
    (["--load_weights_folder", "x", "--runtime", "openvino"], "runs a file of --load_onnx")])
def test_flags_of_other_weights_are_refused(folder, script, flags, words):
    error = one_line(script("test_simple", "--image_path", folder, "--ext", "png", *flags), 2)
    assert words in error


def test_only_videos_need_av(file, folder, script, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    flags = "--load_onnx", file, "--image_path", folder, "--ext", "png", "--output_dir", tmp_path
    assert script("test_simple", *flags).status == 0
    error = one_line(script("test_simple", *flags, "--output", "video"), 1)
    assert "av is not installed; type: pip install av" in error
