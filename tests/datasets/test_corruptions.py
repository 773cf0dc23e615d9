"""datasets.corruptions: all 18 at all severities, seeds, and the place before resizing."""
import random
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from datasets import KITTIRAWDataset, Samples
from datasets.corruptions import (
    CORRUPTIONS,
    OWN,
    SEVERITIES,
    color_quant,
    corrupt_image,
    corrupted,
    dark,
    iso_noise,
)
from datasets.images import read_image, resize
from runtime.errors import DataError

needs_library = pytest.mark.skipif(find_spec("imagecorruptions") is None,
                                   reason="needs the package imagecorruptions")
each_corruption = pytest.mark.parametrize("name", [
    name if name in OWN else pytest.param(name, marks=needs_library) for name in CORRUPTIONS])


def street(height=64, width=96):
    """Return a picture with structure at all scales, (height, width, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(columns / 5), np.cos(rows / 7), np.sin((rows + columns) / 31)], -1)
    noise = np.random.default_rng(0).normal(scale=10, size=(height, width, 3))
    return (120 + 80 * waves + noise).clip(0, 255).astype(np.uint8)


def states():
    """Return the states of all generators of this process."""
    kind, key, *rest = np.random.get_state()
    return random.getstate(), (kind, key.tolist(), *rest), torch.get_rng_state().tolist()


@each_corruption
def test_a_corruption_repeats_itself_and_grows_with_severity(name):
    image, before = street(), states()
    plain = image.copy()
    found = [corrupt_image(image, name, severity, "drive 5 l") for severity in SEVERITIES]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in found)
    for severity in (1, 5):
        again = corrupt_image(image, name, severity, "drive 5 l")
        np.testing.assert_array_equal(again, found[severity - 1])
    first, last = (np.abs(each - plain.astype(float)).mean() for each in (found[0], found[-1]))
    assert 1 < first < last
    np.testing.assert_array_equal(image, plain)
    assert states() == before


@each_corruption
def test_each_size_of_published_frames_can_be_corrupted(name, capfd):
    for height, width in ((375, 1242), (64, 192), (128, 416), (32, 32)):
        assert corrupt_image(street(height, width), name, 4, "a 1 None").shape == (
            height, width, 3)
    assert capfd.readouterr().out == ""  # the package prints where sizes do not fit


@pytest.mark.parametrize("name", ["dark", "iso_noise"])
def test_each_frame_and_severity_has_noise_of_its_own(name):
    grey = np.full((64, 64, 3), 100, np.uint8)
    noise = [corrupt_image(grey, name, 3, place) - 100.0 for place in ("a 1 l", "a 2 l", "a 1 r")]
    assert np.abs(np.corrcoef([each.ravel() for each in noise]) - np.eye(3)).max() < 0.05


def test_colours_keep_their_highest_bits():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for severity, colours in zip(SEVERITIES, (32, 16, 8, 4, 2), strict=True):
        found = color_quant(ramp, severity)
        step = 256 // colours
        np.testing.assert_array_equal(found, ramp // step * step)
        assert len(np.unique(found)) == colours


def test_iso_noise_has_the_variance_of_its_formula():
    grey = np.full((200, 200, 3), 127, np.uint8)
    for severity, deviation in ((1, 0.056), (3, 0.126)):
        x = iso_noise(grey, severity) / 255
        assert x.mean() == pytest.approx(127 / 255, abs=0.01)
        assert x.var() == pytest.approx(127 / 255 / 25 + deviation ** 2, rel=0.1)


def test_darkness_is_the_square_times_the_white_of_its_severity():
    steps = np.repeat(np.repeat(np.array([20, 120, 220], np.uint8), 100)[None, :, None], 100, 0)
    image = np.repeat(steps, 3, 2)
    for severity, white in ((1, 0.6), (3, 0.4), (5, 0.2)):
        left, middle, right = np.split(dark(image, severity) / 255, 3, axis=1)
        assert right.mean() == pytest.approx(white, abs=0.01)
        assert middle.mean() == pytest.approx(white / 4, abs=0.01)
        assert left.mean() < 0.02
    assert dark(np.full((8, 8, 3), 90, np.uint8), 1).max() < 20  # one colour cannot be stretched


def frames(drive, height=32, width=64):
    return KITTIRAWDataset(drive, ["2011_01_01/2011_01_01_drive_0002_sync 5 l",
                                   "2011_01_01/2011_01_01_drive_0002_sync 6 l"],
                           height, width, [0], 1)


def test_images_are_corrupted_at_full_size_and_then_resized(drive):
    dataset = frames(drive)
    changed = corrupted(dataset, "iso_noise", 2)
    for i in range(2):
        folder, frame, side = dataset.filenames[i].split()
        path = dataset.get_image_path(folder, int(frame), side)
        full = read_image(path).permute(1, 2, 0).numpy()
        noisy = corrupt_image(full, "iso_noise", 2, f"{folder} {frame} {side}")
        expected = resize(torch.from_numpy(noisy).permute(2, 0, 1), 32, 64, exact=True)
        assert torch.equal(changed.load(i)["color", 0, 0], expected)
        assert torch.equal(changed[i]["color", 0, 0], expected.float() / 255)
    assert dataset.reads_files  # and is as it was
    assert not torch.equal(dataset.load(0)["color", 0, 0], changed.load(0)["color", 0, 0])


@pytest.mark.parametrize("name", [
    "dark", pytest.param("glass_blur", marks=needs_library),
    pytest.param("impulse_noise", marks=needs_library),
    pytest.param("snow", marks=needs_library)])
def test_the_number_of_workers_and_the_order_change_no_pixel(drive, name):
    dataset = corrupted(frames(drive), name, 3)
    alone = [dataset.load(i)["color", 0, 0] for i in (1, 0)]
    np.random.seed(5)
    batches = DataLoader(Samples(dataset), 1, num_workers=2)
    both = [batch["color", 0, 0][0] for batch in batches]
    assert torch.equal(torch.stack(both[::-1]), torch.stack(alone))


def test_frames_of_an_own_get_color_are_corrupted_too(drive):
    noisy = tiny.Noisy(drive, frames(drive).filenames, 32, 64, [0], 1)
    changed = corrupted(noisy, "color_quant", 5)
    color = np.asarray(changed.get_color(*[*frames(drive).filenames[0].split()[:1], 5, "l"], False))
    assert set(np.unique(color)) <= {0, 128}


def test_a_mirrored_frame_is_the_mirror_of_its_corrupted_self(drive):
    changed = corrupted(frames(drive), "iso_noise", 1)
    plain, mirrored = (np.asarray(changed.get_color("2011_01_01/2011_01_01_drive_0002_sync", 5, "l",
                                                    do_flip)) for do_flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_an_image_below_32_pixels_is_refused():
    with pytest.raises(DataError, match="image of a 1 l has 40x31 pixels; --corruptions needs 32"):
        corrupt_image(street(31, 40), "fog", 1, "a 1 l")


@pytest.mark.parametrize("words", [["fog"], []])
def test_a_missing_package_is_one_line_that_says_what_to_type(script, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)  # importing it raises an ImportError
    outcome = script("evaluate_depth", "--load_weights_folder", "absent", "--eval_mono",
                     "--corruptions", *words)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert line.endswith("pip install -r requirements-corruptions.txt && "
                         "pip install --no-deps imagecorruptions-imaug")


def test_the_three_own_corruptions_need_no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    for name in OWN:
        corrupt_image(street(), name, 1, "a 1 l")


def test_the_package_of_the_message_is_the_one_of_the_extra():
    text = (Path(__file__).parents[2] / "requirements-corruptions.txt").read_text()
    assert "pip install --no-deps imagecorruptions-imaug" in text
