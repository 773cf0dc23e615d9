"""test_simple.py from its command line: images, folders, metres, bad input."""
import numpy as np
import pytest
import torch
from conftest import HEIGHT, SHARED, WIDTH, needs_shared, one_line, train_flags
from PIL import Image

import downloads
from checkpoints import load_model
from datasets.synthetic import HELD_OUT
from layers import disp_to_depth
from options import MonodepthOptions
from trainer import Trainer


@pytest.fixture
def image(drive, tmp_path):
    """An image of another size than the network's, in a folder of its own."""
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "street.jpg"
    frame = Image.open(drive / HELD_OUT / "image_02/data/0000000005.jpg")
    frame.resize((200, 100)).save(path)
    return path


def test_an_image_gets_disparity_at_network_size_and_a_picture_at_its_own(image, weights, script):
    outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    names = ["street.jpg", "street_disp.jpeg", "street_disp.npy"]
    assert sorted(path.name for path in image.parent.iterdir()) == names
    disp = np.load(image.with_name("street_disp.npy"))
    assert disp.shape == (1, 1, HEIGHT, WIDTH)
    model, _ = load_model(weights)
    resized = np.array(Image.open(image).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    with torch.no_grad():
        raw = model.disparity(torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255)
    np.testing.assert_allclose(disp, disp_to_depth(raw, 0.1, 100)[0], rtol=1e-4)
    with Image.open(image.with_name("street_disp.jpeg")) as picture:
        assert picture.size == (200, 100)


def test_metric_depth_is_5_4_over_disparity(image, weights, script):
    for flags in ([], ["--pred_metric_depth"]):
        outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights,
                         *flags)
    depth = np.load(image.with_name("street_depth.npy"))
    np.testing.assert_allclose(depth, 5.4 / np.load(image.with_name("street_disp.npy")), rtol=1e-5)
    assert "warning" not in outcome.out


def test_metres_of_a_mono_model_are_warned_of(drive, image, tmp_path, script):
    Trainer(MonodepthOptions().parse(
        train_flags(drive, "--log_dir", tmp_path, "--model_name", "mono"))).train()
    outcome = script("test_simple", "--image_path", image, "--pred_metric_depth",
                     "--load_weights_folder", tmp_path / "mono/models/weights_0")
    assert "trained without stereo; its depth has an unknown scale" in outcome.out


def test_a_folder_is_predicted_and_predictions_are_not(image, weights, script):
    Image.open(image).save(image.with_name("other.png"))
    Image.open(image).save(image.with_name("more_disp.jpg"))
    outcome = script("test_simple", "--image_path", image.parent, "--load_weights_folder", weights)
    assert "street.jpg: wrote" in outcome.out
    assert "other" not in outcome.out
    assert "more_disp" not in outcome.out
    outcome = script("test_simple", "--image_path", image.parent, "--load_weights_folder", weights,
                     "--ext", "png")
    assert "other.png: wrote" in outcome.out


@pytest.fixture
def folder(drive, tmp_path):
    """Five frames of the drive, each of its own size."""
    (tmp_path / "frames").mkdir()
    for i in range(5):
        frame = Image.open(drive / HELD_OUT / f"image_02/data/{5 + i:010d}.jpg")
        frame.resize((150 + 7 * i, 90 + i)).save(tmp_path / "frames" / f"{i}.jpg")
    return tmp_path / "frames"


def test_a_folder_in_batches_is_predicted_as_one_by_one(folder, weights, script):
    written = {}
    for batch_size in (1, 3):
        outcome = script("test_simple", "--image_path", folder, "--load_weights_folder", weights,
                         "--batch_size", batch_size)
        assert [line.partition(":")[0] for line in outcome.out.splitlines()] == [
            str(folder / f"{i}.jpg") for i in range(5)]
        written[batch_size] = {
            path.name: np.load(path) if path.suffix == ".npy" else np.array(Image.open(path))
            for path in folder.glob("*_disp.*")}
    assert written[1].keys() == written[3].keys()
    assert len(written[1]) == 10
    for i in range(5):
        npy, jpeg = f"{i}_disp.npy", f"{i}_disp.jpeg"
        np.testing.assert_allclose(written[3][npy], written[1][npy], atol=1e-5, rtol=0)
        assert written[3][jpeg].shape == (90 + i, 150 + 7 * i, 3)
        assert np.abs(written[3][jpeg].astype(float) - written[1][jpeg]).mean() < 0.1


def test_a_broken_image_in_a_folder_is_named_after_those_before_it_are_written(folder, weights,
                                                                              script):
    (folder / "3.jpg").write_bytes(b"no image")
    outcome = script("test_simple", "--image_path", folder, "--load_weights_folder", weights)
    assert "3.jpg cannot be read as an image" in one_line(outcome, status=1)
    assert outcome.out.count("wrote") == 3
    assert sorted(path.name for path in folder.glob("*.npy")) == [
        "0_disp.npy", "1_disp.npy", "2_disp.npy"]


@needs_shared
def test_a_real_frame_is_predicted(tmp_path, weights, script):
    frame = SHARED / "real/kitti_raw/2011_09_26/2011_09_26_drive_0052_sync/image_02/data"
    path = tmp_path / "frame.png"
    path.write_bytes((frame / "0000000008.png").read_bytes())
    outcome = script("test_simple", "--image_path", path, "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    with Image.open(tmp_path / "frame_disp.jpeg") as picture:
        assert picture.size == (1242, 375)


def test_a_published_model_is_taken_from_where_it_was_downloaded(image, weights, tmp_path, script,
                                                                 monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path)
    (tmp_path / "mono_640x192").symlink_to(weights)
    outcome = script("test_simple", "--image_path", image, "--model_name", "mono_640x192")
    assert outcome.status == 0, outcome.err
    assert image.with_name("street_disp.npy").exists()


def test_another_depth_range_gives_other_disparities(image, weights, script):
    script("test_simple", "--image_path", image, "--load_weights_folder", weights,
           "--min_depth", 1, "--max_depth", 50)
    disp = np.load(image.with_name("street_disp.npy"))
    assert 1 / 50 < disp.min() < disp.max() < 1


def test_bad_input_gets_one_line(image, weights, tmp_path, script):
    def call(path, *flags):
        return script("test_simple", "--image_path", path, *flags)
    loaded = ("--load_weights_folder", weights)
    assert "nowhere does not exist" in one_line(call("nowhere", *loaded), status=1)
    assert "has no *.bmp" in one_line(call(image.parent, "--ext", "bmp", *loaded), status=1)
    assert "nowhere does not exist" in one_line(
        call(image, "--load_weights_folder", "nowhere"), status=1)
    assert "invalid choice: 'mono'" in one_line(call(image, "--model_name", "mono"), status=2)
    image.write_bytes(b"no image")
    assert "street.jpg cannot be read as an image" in one_line(call(image, *loaded), status=1)
    assert [path.name for path in image.parent.iterdir()] == ["street.jpg"]
