"""datasets/folder_dataset.py, intrinsics.py: own footage, its intrinsics, training on it."""
import json
import math
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, one_line, train_flags
from PIL import Image

from checkpoints.training_camera import (
    TrainingCamera,
    parse_training_camera,
    read_training_camera,
    write_training_camera,
)
from datasets import DATASETS, Augment, FolderDataset, collate
from datasets.intrinsics import (
    Intrinsics,
    from_field_of_view,
    from_normalised,
    parse_intrinsics,
    read_intrinsics,
    write_intrinsics,
)
from runtime.errors import DataError
from synthetic.render import HELD_OUT, TRAIN

CAMERA = Intrinsics(150.0, 140.0, 90.0, 50.0, 200, 100)


@pytest.fixture
def footage(tmp_path):
    """Write a sequence of mixed file names, and a sequence of stereo pairs from another camera."""
    for name, camera in (("walk", CAMERA), ("ride", CAMERA._replace(cx=99.5, baseline=0.2))):
        (tmp_path / name).mkdir()
        write_intrinsics(tmp_path / name / "intrinsics.json", camera)
    for file in ("frame_0007.png", "0008.JPG", "x9.jpeg"):
        noise = np.random.randint(0, 255, (100, 200, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "walk" / file)
    for side in ("left", "right"):
        (tmp_path / "ride" / side).mkdir()
        for i in range(3):
            Image.new("RGB", (200, 100), (i, 0, 0)).save(tmp_path / "ride" / side / f"{i:06d}.png")
    return tmp_path


def dataset(path, lines, frames=(0, -1, 1), **kwargs):
    return FolderDataset(path, lines, 64, 96, list(frames), 2, **kwargs)


def test_the_number_at_the_end_of_a_name_is_the_frame_index(footage):
    item = dataset(footage, ["walk 8"]).load(0)
    with Image.open(footage / "walk/frame_0007.png") as image:
        resized = np.asarray(image.resize((96, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(item["color", -1, 0].permute(1, 2, 0), resized)


def test_intrinsics_are_scaled_to_the_size_of_each_scale(footage):
    item = dataset(footage, ["walk 8"]).load(0)
    # the middle of a pixel is half a pixel from its edge, at which an image begins
    expected = [[150 * 96 / 200, 0, 90.5 * 96 / 200], [0, 140 * 64 / 100, 50.5 * 64 / 100]]
    np.testing.assert_allclose(item["K", 0][:2, :3], expected, rtol=1e-6)
    np.testing.assert_allclose(item["K", 1][:2, :3], np.array(expected) / 2, rtol=1e-6)


def test_sequences_have_their_own_intrinsics_and_a_flip_mirrors_them(footage):
    both = dataset(footage, ["walk 8", "ride 1 l"], (0,))
    batch = collate([both.load(0), both.load(1)])
    assert batch["K", 0][0, 0, 2] != batch["K", 0][1, 0, 2]
    augment = Augment("cpu", [0]).train()
    seen = set()
    for _ in range(20):
        K = augment(batch)["K", 0]
        seen.add(round(float(K[0, 0, 2]), 3))
    centre = 90.5 * 96 / 200
    assert seen == {round(centre, 3), round(96 - centre, 3)}


def test_an_intrinsics_file_serves_all_folders_below_it(footage):
    (footage / "walk/intrinsics.json").rename(footage / "intrinsics.json")
    assert dataset(footage, ["walk 8"]).sequence_intrinsics("walk") == CAMERA


def test_missing_intrinsics_are_named_with_the_expected_fields(footage):
    (footage / "walk/intrinsics.json").unlink()
    with pytest.raises(DataError, match=r"intrinsics.json is missing, also in the folders above; "
                                        r"expected \{\"fx\": 721.5"):
        dataset(footage, ["walk 8"]).load(0)


def test_an_image_must_have_the_size_of_its_intrinsics(footage):
    Image.new("RGB", (100, 50)).save(footage / "walk/0008.JPG", "JPEG")
    with pytest.raises(DataError, match=r"0008\.JPG has 100x50 pixels, its intrinsics are for 200"):
        dataset(footage, ["walk 8"]).load(0)


def test_two_images_with_the_same_number_are_an_error(footage):
    Image.new("RGB", (200, 100)).save(footage / "walk/8.png")
    with pytest.raises(DataError, match=r"8\.png and .*0008\.JPG are both frame 8"):
        dataset(footage, ["walk 8"]).load(0)


def test_hidden_files_of_macos_are_no_frames(footage):
    (footage / "walk/._0008.JPG").write_bytes(b"no image")
    assert dataset(footage, ["walk 8"]).load(0)["color", 0, 0].shape == (3, 64, 96)


def test_a_photo_on_its_side_is_read_upright(footage):
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(footage / "walk/0008.JPG") as image:
        image.load()
    before = dataset(footage, ["walk 8"])[0]["color", 0, 0]
    image.transpose(Image.Transpose.ROTATE_180).save(footage / "walk/0008.JPG", exif=exif,
                                                     quality=100, subsampling=0)
    after = dataset(footage, ["walk 8"])
    assert (after[0]["color", 0, 0] - before).abs().mean() < 0.01
    assert (after.load(0)["color", 0, 0] / 255 - before).abs().mean() < 0.01


def test_a_missing_frame_is_named(footage):
    with pytest.raises(DataError, match=r"walk/0000000010\.jpg is missing; frame 9 has no neighb"):
        dataset(footage, ["walk 9"]).load(0)


def test_stereo_pairs_come_from_left_and_right(footage):
    Image.new("RGB", (200, 100), (0, 200, 0)).save(footage / "ride/right/000001.png")
    item = dataset(footage, ["ride 1 l"], (0, "s")).load(0)
    assert item["color", "s", 0][1].min() == 200
    assert item["color", 0, 0][1].max() == 0
    assert item["stereo_T"][0, 3] == -np.float32(0.1)


def test_stereo_pairs_need_one_baseline(footage):
    assert dataset(footage, ["ride 1 l"], (0, "s")).baseline == 0.2
    with pytest.raises(DataError, match=r"walk/intrinsics.json has no baseline, which --use_stere"):
        dataset(footage, ["walk 8"], (0, "s"))
    write_intrinsics(footage / "walk/intrinsics.json", CAMERA._replace(baseline=0.3))
    with pytest.raises(DataError, match=r"baseline of 0.3 m, the first sequence one of 0.2 m"):
        dataset(footage, ["ride 1 l", "walk 8"], (0, "s"))


def test_intrinsics_survive_writing_resizing_and_normalising(tmp_path):
    camera = CAMERA._replace(baseline=0.5)
    write_intrinsics(tmp_path / "intrinsics.json", camera)
    assert read_intrinsics(tmp_path / "intrinsics.json") == camera
    small = camera.resized(100, 25)
    assert small.resized(200, 100)[:6] == pytest.approx(camera[:6])
    again = from_normalised(camera.normalised, 100, 25)
    assert again[:6] == pytest.approx(small[:6], rel=1e-5)
    # the ray through a pixel's middle stays where it is, in units of the image
    assert (small.cx + 0.5) / 100 == pytest.approx((camera.cx + 0.5) / 200)


def test_a_field_of_view_reaches_from_edge_to_edge():
    camera = from_field_of_view(90, 640, 480)
    edge = math.degrees(math.atan((639.5 - camera.cx) / camera.fx))
    assert edge == pytest.approx(45)
    assert (camera.fx, camera.cx, camera.cy) == (pytest.approx(320), 319.5, 239.5)


@pytest.mark.parametrize(("change", "found"), [
    ({"fx": 0.58, "fy": 1.92}, "focal lengths are in pixels"),
    ({"cx": 300}, "principal point 300 50 is outside the image"),
    ({"width": 0}, "width and height are 0 and 100"),
    ({"height": 99.5}, "expected whole numbers from 1"),
    ({"fx": "150"}, "a value that is not a number"), ({"baseline": 0}, "the baseline is 0"),
    ({"cy": float("nan")}, "a value that is not a number")])
def test_impossible_intrinsics_are_an_error(change, found):
    content = json.dumps(CAMERA._asdict() | change).encode()
    with pytest.raises(DataError, match=found):
        parse_intrinsics(content, "intrinsics.json")


def test_weights_keep_their_camera(tmp_path):
    camera = TrainingCamera("mono+stereo", 0.5, 50.0, 0.25,
                            CAMERA.normalised[:3, :3].tolist(), [200, 100])
    write_training_camera(tmp_path, camera)
    found = read_training_camera(tmp_path, True)
    assert found == camera
    assert found.metres == pytest.approx(2.5)
    assert "metres: 2.5 x the network's depth, from a baseline of 0.25 m" in found.unit().words
    assert json.loads((tmp_path / "camera.json").read_text())["unit"] == found.unit().words
    assert found.intrinsics(200, 100)[:6] == pytest.approx(CAMERA[:6], rel=1e-5)


@pytest.mark.parametrize(("use_stereo", "metres"), [(True, 5.4), (False, None)])
def test_weights_without_a_camera_are_kittis(tmp_path, use_stereo, metres):
    camera = read_training_camera(tmp_path, use_stereo)
    assert camera.metres == (metres and pytest.approx(metres))
    assert (camera.min_depth, camera.max_depth, camera.image_size) == (0.1, 100, [1242, 375])


@pytest.mark.parametrize("change", [{"training": "video"}, {"min_depth": 0}, {"max_depth": "far"},
                                    {"K": [[1, 2], [3, 4]]}, {"image_size": [0, 3]}])
def test_a_broken_camera_is_refused(change):
    whole = TrainingCamera("mono")._asdict()
    found = parse_training_camera(json.dumps(whole).encode(), "camera.json")
    assert found == TrainingCamera("mono")
    with pytest.raises(DataError, match=r"camera\.json is broken"):
        parse_training_camera(json.dumps(whole | change).encode(), "camera.json")


def test_training_on_footage_writes_baseline_and_camera_to_the_weights(drive, tmp_path, script):
    data, views = tmp_path / "data", [tmp_path / "footage/left", tmp_path / "footage/right"]
    for view, camera in zip(views, ("image_02", "image_03"), strict=True):
        view.mkdir(parents=True)
        for i in range(10):
            shutil.copy(drive / TRAIN / camera / f"data/{i:010d}.jpg", view)
    outcome = script("prepare_data", "video", "--left", views[0], "--right", views[1],
                     "--baseline", 0.27, "--fov", 80, "--out", data, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    outcome = script("train", "--dataset", "folder", "--data_path", data, "--split",
                     data / "splits", "--height", 64, "--width", 96, "--use_stereo", "--batch_size",
                     4, "--num_workers", 0, "--num_epochs", 1, "--weights_init", "scratch",
                     "--no_cuda", "--log_dir", tmp_path, "--log_frequency", 1000)
    assert outcome.status == 0, outcome.err
    weights = tmp_path / "mdp/models/weights_0"
    camera = read_training_camera(weights, True)
    assert camera.training == "mono+stereo"
    assert camera.metres == pytest.approx(2.7)
    assert camera.image_size == [96, 64]
    frame = tmp_path / "frame.jpg"
    frame.write_bytes((drive / HELD_OUT / "image_02/data/0000000005.jpg").read_bytes())
    for kind in ("disp", "depth"):
        outcome = script("test_simple", "--image_path", frame, "--load_weights_folder", weights,
                         "--output", kind)
    assert "depth is metres: 2.7 x the network's depth" in outcome.out
    np.testing.assert_allclose(np.load(tmp_path / "frame_depth.npy"),
                               2.7 / np.load(tmp_path / "frame_disp.npy"), rtol=1e-5)


def test_training_on_footage_without_a_baseline_says_so(footage, script):
    (footage / "splits").mkdir()
    for name in ("train", "val"):
        (footage / f"splits/{name}_files.txt").write_text("walk 8 l\n")
    outcome = script("train", "--dataset", "folder", "--data_path", footage, "--split",
                     footage / "splits", "--use_stereo", "--batch_size", 1, "--log_dir",
                     footage / "log", "--weights_init", "scratch")
    assert "has no baseline, which --use_stereo needs" in one_line(outcome, status=1)


def test_the_dataset_class_of_the_own_data_page_trains(drive, tmp_path, script, monkeypatch):
    (code,) = re.findall(r"```python\n(import os.*?)```",
                         (ROOT / "docs/own_data.md").read_text(), re.S)
    names = {}
    exec(code, names)
    monkeypatch.setitem(DATASETS, "mine", names["MyDataset"])
    (tmp_path / "data/street").mkdir(parents=True)
    for i in range(6):
        source = drive / TRAIN / f"image_02/data/{i:010d}.jpg"
        (tmp_path / f"data/street/{i:06d}.jpg").write_bytes(source.read_bytes())
    for name in ("train", "val"):
        (tmp_path / f"{name}_files.txt").write_text("street: 1-4\n")
    outcome = script("train", *train_flags(drive, "--dataset", "mine", "--data_path",
                                           tmp_path / "data", "--split", tmp_path, "--log_dir",
                                           tmp_path))
    assert outcome.status == 0, outcome.err
    camera = read_training_camera(tmp_path / "mdp/models/weights_0", False)
    assert (camera.K[0][0], camera.metres) == (pytest.approx(0.9), None)
