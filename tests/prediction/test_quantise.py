"""export_onnx.py --int8 and --half: smaller files of nearly the same depth, with what they lose."""
import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, one_line
from PIL import Image

from prediction.onnx import onnx_bytes
from prediction.onnx_runtime import OnnxPredictor
from prediction.predictor import Predictor
from prediction.quantise import (
    FLOAT_CONVS,
    MIN_IMAGES,
    measure_loss,
    read_calibration_images,
    with_half_weights,
)
from runtime.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the fewest images that calibrate, each of another size."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(MIN_IMAGES):
        noise = Image.fromarray(np.random.randint(0, 256, (12, 16, 3), np.uint8))
        noise.resize((150 + i, 90)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def float32(onnx_weights):
    return onnx_bytes(Predictor(onnx_weights), 18)


def export(script, onnx_weights, out, *flags):
    outcome = script("export_onnx", "--load_weights_folder", onnx_weights, "--output", out, *flags)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out


def relative_difference(path, onnx_weights):
    """Return the mean difference of depth to the weights folder, on textured images."""
    images = torch.rand(2, 3, 12, 16)
    images = torch.nn.functional.interpolate(images, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    images = (255 * images).to(torch.uint8).numpy()
    found, expected = (p.training_camera.disp_to_depth(p.disparity_array(images))[1]
                       for p in (OnnxPredictor(path), Predictor(onnx_weights)))
    return np.mean(np.abs(found - expected) / expected)


def test_int8_quantises_all_but_the_last_convolutions(onnx_weights, folder, tmp_path, script):
    import onnx
    out = export(script, onnx_weights, tmp_path / "8.onnx", "--int8", "--calibrate", folder)
    model = onnx.load(tmp_path / "8.onnx")
    made_by = {output: node for node in model.graph.node for output in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    kinds = [made_by[conv.input[1]].op_type if conv.input[1] in made_by else "float"
             for conv in convs]
    assert kinds == ["DequantizeLinear"] * (len(convs) - FLOAT_CONVS) + ["float"] * FLOAT_CONVS
    assert {p.key for p in model.metadata_props} >= {"unit", "size", "camera"}
    assert relative_difference(tmp_path / "8.onnx", onnx_weights) < 0.05
    assert "int8 differs from float32 by " in out
    assert f"on {MIN_IMAGES - MIN_IMAGES * 2 // 3} held-out images" in out
    assert "images/s, float32 " in out
    assert "float32 is the same as PyTorch" in out


def test_half_has_half_the_size_and_float32_inputs(onnx_weights, float32, tmp_path, script):
    out = export(script, onnx_weights, tmp_path / "h.onnx", "--half")
    assert (tmp_path / "h.onnx").stat().st_size < 0.51 * len(float32)
    assert relative_difference(tmp_path / "h.onnx", onnx_weights) < 1e-3
    assert "half differs from float32 by " in out
    assert "on 2 random images" in out


def test_weights_beyond_float16_are_refused(float32):
    import onnx
    model = onnx.load_from_string(float32)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = onnx.numpy_helper.to_array(weight) * 1e9
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(DataError, match="more than float16 can hold; export without --half"):
        with_half_weights(model.SerializeToString())


def test_depth_that_is_not_finite_is_refused(float32):
    image = np.full((1, 3, HEIGHT, WIDTH), np.nan, np.float32)
    with pytest.raises(DataError, match="not finite, so nothing was written"):
        measure_loss(float32, float32, [image])


def test_the_last_third_of_the_images_is_held_out(folder):
    found = read_calibration_images(folder, HEIGHT, WIDTH)
    assert [len(part) for part in found] == [13, 7]
    with Image.open(folder / f"{MIN_IMAGES - 1}.png") as image:
        resized = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(found.held_out[-1][0],
                                  resized.transpose(2, 0, 1).astype(np.float32) / 255)


def test_too_few_images_are_one_line(onnx_weights, tmp_path, script):
    Image.new("RGB", (96, 64)).save(tmp_path / "1.png")
    error = one_line(script("export_onnx", "--load_weights_folder", onnx_weights, "--int8",
                            "--calibrate", tmp_path), 1)
    assert "is 1 image; give a folder with 20 images or more" in error
    assert not (onnx_weights / "depth_int8.onnx").exists()


@pytest.mark.parametrize(("flags", "words"), [
    (["--int8"], "--int8 needs --calibrate FOLDER"),
    (["--int8", "--half"], "not allowed with argument --int8"),
    (["--calibrate", "x"], "--calibrate is for --int8 or --half")])
def test_wrong_combinations_of_flags_get_one_line(script, flags, words):
    assert words in one_line(script("export_onnx", "--load_weights_folder", "x", *flags), 2)
