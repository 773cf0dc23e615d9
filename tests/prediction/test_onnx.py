"""export_onnx.py writes an ONNX file only if its outputs equal PyTorch's."""
import json
import subprocess
import sys
from inspect import signature

import numpy as np
import pytest
import torch
from conftest import HEIGHT, ROOT, WIDTH, filled_weights, one_line

from checkpoints.architecture import load_model
from checkpoints.training_camera import TrainingCamera, parse_training_camera
from checkpoints.weights import InputFormat, save_weights
from prediction.onnx import (
    PACKAGES,
    Differences,
    description,
    differences_from_pytorch,
    onnx_bytes,
)
from prediction.predictor import Predictor
from runtime.errors import DataError

PLAIN = {"Add", "Concat", "Conv", "Div", "Elu", "MaxPool", "Mul", "Pad", "Reciprocal", "Relu",
         "Resize", "Sigmoid", "Sub"}
PADDING = {"Cast", "Constant", "ConstantOfShape", "Reshape", "Slice", "Transpose"}  # torch 2.4
OLD_EXPORTER_WARNS = "dynamic_shapes" not in signature(torch.onnx.export).parameters  # torch 2.4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return filled_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def packages():
    """Skip tests that export if a package is missing."""
    for name in PACKAGES:
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def exported(packages, weights, tmp_path_factory):
    """Export as a user does; return the path of the file and the printed text."""
    path = tmp_path_factory.mktemp("out") / "network.onnx"
    done = subprocess.run([sys.executable, "export_onnx.py", "--load_weights_folder", weights,
                           "--output", path], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or OLD_EXPORTER_WARNS  # PyTorch warns of nothing, either
    return path, done.stdout


def session(path):
    import onnxruntime
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_gives_pytorchs_outputs_for_any_batch_size(exported, weights, batch):
    images = torch.rand(batch, 3, HEIGHT, WIDTH)
    disp, depth = session(exported[0]).run(["disp", "depth"], {"image": images.numpy()})
    with torch.no_grad():
        expected, _ = Predictor(weights)(images)
    assert disp.shape == (batch, 1, HEIGHT, WIDTH)
    assert disp.std() / disp.mean() > 0.1  # far from constant
    np.testing.assert_allclose(disp, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(depth, 1 / expected, rtol=1e-4)


def test_the_file_names_inputs_and_outputs_with_their_shapes(exported):
    found = session(exported[0])
    image, = found.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert isinstance(image.shape[0], str)
    assert image.shape[1:] == [3, HEIGHT, WIDTH]
    for output, name in zip(found.get_outputs(), ("disp", "depth"), strict=True):
        assert (output.name, output.type) == (name, "tensor(float)")
        assert output.shape == [image.shape[0], 1, HEIGHT, WIDTH]


def test_the_export_is_one_file_of_standard_operators(exported):
    import onnx
    model = onnx.load(exported[0])
    assert list(exported[0].parent.iterdir()) == [exported[0]]
    plain = PLAIN | PADDING if OLD_EXPORTER_WARNS else PLAIN
    assert {node.op_type for node in model.graph.node} <= plain
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_the_file_holds_unit_size_range_and_k_but_no_paths(exported, weights):
    content = exported[0].read_bytes()
    found = dict(session(content).get_modelmeta().custom_metadata_map)
    camera = json.loads(found.pop("camera"))
    assert (camera["min_depth"], camera["max_depth"], camera["K"][0]) == (0.1, 100, [
        pytest.approx(0.58), 0, 0.5])
    assert parse_training_camera(json.dumps(camera).encode(), "") == Predictor(
        weights).training_camera
    assert found == {"unit": TrainingCamera("stereo", baseline=0.54).unit().words,
                     "size": f"{WIDTH}x{HEIGHT}"}
    for words in (b"networks/", b"site-packages", str(ROOT).encode()):
        assert words not in content


def test_names_shapes_unit_differences_and_trtexec_are_printed(exported):
    path, out = exported
    for words in (f"wrote {path}", f"input  image  float32 (batch, 3, {HEIGHT}, {WIDTH})",
                  f"output disp   float32 (batch, 1, {HEIGHT}, {WIDTH})", "0.01 to 10",
                  "unit   metres: 5.4 x the network's depth", "batches of 1 and 3: disp to ",
                  f"trtexec --onnx={path} --minShapes=image:1x3x{HEIGHT}x{WIDTH}",
                  f"--maxShapes=image:16x3x{HEIGHT}x{WIDTH}"):
        assert words in out


def test_opset_chooses_the_version_of_the_operators(packages, weights):
    import onnx
    model = onnx.load_from_string(onnx_bytes(Predictor(weights), opset=20))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


def test_depth_of_unknown_scale_is_called_relative(tmp_path):
    predictor = Predictor(filled_weights(tmp_path, use_stereo=False))
    text = description(tmp_path / "encoder.pth", predictor, Differences(0, 0))
    assert "unit   relative: " in text


def test_a_network_with_nan_outputs_leaves_the_old_file(packages, tmp_path, script):
    model, _ = load_model(filled_weights(tmp_path))
    with torch.no_grad():
        for conv in (block.conv.conv for block in model.depth.decoder[:2]):
            conv.weight.sign_().mul_(1e38)  # finite weights, whose products and sums are not
    folder = tmp_path / "broken"
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, True))
    (folder / "depth.onnx").write_bytes(b"an earlier file")
    before = sorted(folder.iterdir())
    error = one_line(script("export_onnx", "--load_weights_folder", folder), 1)
    assert "differs from PyTorch's by nan" in error
    assert sorted(folder.iterdir()) == before
    assert (folder / "depth.onnx").read_bytes() == b"an earlier file"


def test_a_file_with_wrong_outputs_is_refused(exported, weights):
    other = Predictor(weights)
    with torch.no_grad():
        other.model.depth.decoder[-4].conv.bias += 1e-3  # the head at full size
    with pytest.raises(DataError, match=r"differs from PyTorch's by .*, more than 0\.0001"):
        differences_from_pytorch(exported[0].read_bytes(), other)


def test_missing_packages_are_named_with_the_command_to_type(weights, script, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # Python's own way to forbid an import
    error = one_line(script("export_onnx", "--load_weights_folder", weights), 1)
    assert "onnxruntime" in error
    assert "pip install -r requirements-export.txt" in error
    assert not (weights / "depth.onnx").exists()


def test_wrong_flags_of_the_export_get_one_line(packages, weights, script):
    error = one_line(script("export_onnx", "--load_weights_folder", "nowhere"), 1)
    assert "nowhere does not exist" in error
    error = one_line(script("export_onnx", "--load_weights_folder", weights, "--opset", 9), 2)
    assert "invalid choice: 9" in error
