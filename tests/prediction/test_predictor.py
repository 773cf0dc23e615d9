"""predictor.py: disparity, depth and its unit from images of any type and size."""
import warnings

import numpy as np
import pytest
import torch
from conftest import filled_weights
from PIL import Image
from torch.testing import assert_close

from checkpoints.training_camera import TrainingCamera, write_training_camera
from layers import resize_disp
from metrics.depth import batch_post_process_disparity
from prediction.predictor import Predictor

SIZE = (100, 150)  # height and width of the images; the network's differ


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return filled_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(folder)


@pytest.fixture
def images():
    """Return three smooth images, (3, *SIZE, 3) uint8."""
    coarse = np.random.randint(0, 256, (3, 10, 15, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize(SIZE[::-1])) for image in coarse])


def as_tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def test_an_array_gets_the_disparity_that_test_simple_writes(folder, predictor, images, tmp_path,
                                                             script):
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    script("test_simple", "--image_path", tmp_path / "image.png", "--load_weights_folder", folder)
    disp = torch.from_numpy(np.load(tmp_path / "image_disp.npy"))
    assert_close(predictor.predict(images[0]).disp, resize_disp(disp, *SIZE), rtol=1e-5, atol=0)


def test_a_float_tensor_equals_its_uint8_array_up_to_rounding(predictor, images):
    found = predictor.predict(as_tensor(images)).disp
    expected = predictor.predict(images).disp
    assert ((found - expected).abs() / expected).mean() < 0.01
    assert expected.std() / expected.mean() > 0.1  # far from constant


def test_images_of_the_networks_size_are_not_resampled(predictor):
    images = torch.rand(2, 3, predictor.height, predictor.width)
    with torch.no_grad():
        disp, depth = predictor(images)
    prediction = predictor.predict(images)
    assert_close(prediction.disp, disp, rtol=1e-4, atol=0)
    assert_close(prediction.depth, 5.4 * depth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_batch_equals_its_images_one_by_one(predictor, images, kind):
    images = images if kind == "array" else as_tensor(images)
    together = predictor.predict(images)
    assert together.disp.shape == together.depth.shape == (3, 1, *SIZE)
    for i, image in enumerate(images):
        alone = predictor.predict(image)
        assert alone.disp.shape == alone.depth.shape == (1, 1, *SIZE)
        assert_close(alone.disp, together.disp[i:i + 1], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("camera", "unit", "factor"), [
    (TrainingCamera("mono", baseline=0.54), "relative", 1),
    (TrainingCamera("stereo", baseline=0.54), "metres", 5.4),
    (TrainingCamera("mono+stereo", baseline=0.2), "metres", 2),
    (TrainingCamera("stereo", baseline=None), "relative", 1)])
def test_depth_is_in_metres_if_the_baseline_is_known(tmp_path, images, camera, unit, factor):
    folder = filled_weights(tmp_path, use_stereo=camera.training != "mono")
    write_training_camera(folder, camera)
    prediction = Predictor(folder).predict(images)
    assert prediction.unit == unit
    assert_close(prediction.depth, factor / prediction.disp, rtol=1e-6, atol=0)


@pytest.fixture
def batch(predictor):
    """Return two images of the network's size, (2, 3, height, width) uint8."""
    return torch.randint(0, 256, (2, 3, predictor.height, predictor.width), dtype=torch.uint8)


def test_uint8_and_float_images_have_the_same_scaled_disparity(predictor, batch):
    with torch.no_grad():
        expected = predictor(batch / 255)[0][:, 0].numpy()
    for images in (batch, batch / 255):
        disps = predictor.scaled_disparity(images)
        assert disps.dtype == np.float32
        np.testing.assert_array_equal(disps, expected)
    raw = predictor.disparity(batch)[:, 0].numpy()
    np.testing.assert_allclose(disps, 0.01 + 9.99 * raw, rtol=1e-6)


def test_post_processing_blends_the_disparity_of_mirrored_images(predictor, batch):
    both = predictor.scaled_disparity(batch, post_process=True)
    plain = predictor.scaled_disparity(batch)
    mirrored = predictor.scaled_disparity(batch.flip(3))[:, :, ::-1]
    np.testing.assert_allclose(both, batch_post_process_disparity(plain, mirrored), rtol=1e-5)
    assert np.abs(plain / mirrored - 1).max() > 0.1  # the two differ, so that order matters


def test_disparity_is_scaled_by_the_depth_range_of_the_weights(tmp_path, predictor, images):
    folder = filled_weights(tmp_path)
    camera = TrainingCamera("stereo", min_depth=1, max_depth=50, baseline=0.54)
    write_training_camera(folder, camera)
    raw = (predictor.predict(images).disp - 0.01) / 9.99
    assert_close(Predictor(folder).predict(images).disp, 0.02 + 0.98 * raw, rtol=1e-4, atol=0)


def test_read_only_and_mirrored_arrays_work_without_a_warning(predictor, images):
    expected = predictor.predict(images[0]).disp
    bgr = np.ascontiguousarray(images[0][:, :, ::-1])
    read_only = images[0].copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (bgr[:, :, ::-1], read_only):
            assert torch.equal(predictor.predict(image).disp, expected)


def test_prediction_leaves_weights_and_gradients_alone(predictor, images):
    before = {name: value.clone() for name, value in predictor.state_dict().items()}
    assert not predictor.predict(images).depth.requires_grad
    assert all(torch.equal(before[name], value)
               for name, value in predictor.state_dict().items())


@pytest.mark.parametrize(("images", "found"), [
    (torch.rand(3, 9, 9) * 255, "reach from .* expected 0 to 1: divide by 255"),
    (torch.rand(3, 9, 9) - 0.5, "do not subtract a mean"),
    (torch.full((3, 9, 9), torch.nan), "reach from nan to nan"),
    (torch.zeros(3, 9, 9, dtype=torch.uint8), r"Tensor torch.uint8 \(3, 9, 9\); expected RGB"),
    (torch.rand(9, 9, 3), r"\(9, 9, 3\); expected RGB: a float tensor \(B, 3, H, W\)"),
    (torch.rand(0, 3, 9, 9), r"\(0, 3, 9, 9\)"), (torch.rand(2, 4, 9, 9), r"\(2, 4, 9, 9\)"),
    (np.zeros((9, 9, 3)), r"ndarray float64 \(9, 9, 3\)"),
    (np.zeros((9, 9), np.uint8), r"ndarray uint8 \(9, 9\)"),
    (np.zeros((3, 9, 9), np.uint8), r"or a uint8 array \(B, H, W, 3\)"),
    ("street.jpg", "images are str")])
def test_wrong_images_are_refused_with_found_and_expected(predictor, images, found):
    with pytest.raises(ValueError, match=found):
        predictor.predict(images)
