"""prepare_data.py import cityscapes, on a made layout: links, crops, lists, depth of disparity."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import HEIGHT, ROOT, WIDTH, one_line, read_results

from datasets.ground_truth import load_ground_truth
from datasets.intrinsics import Intrinsics, read_intrinsics
from datasets.splits import read_split

TRAIN, VAL, TEST = ("train/aachen/aachen_000003", "val/bonn/bonn_000000", "test/ulm/ulm_000001")
CAMERA = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137},
          "extrinsic": {"baseline": 0.209313, "x": 1.7}}
# row, column and value of pixels with disparity, and the PNG's value of their depth
PIXELS = ((300, 500, 1 + 256 * 20, 6062),  # 2262.52 x 0.209313 / 20 = 23.679 m, x 256
          (767, 1855, 1 + 256 * 6, 20206),  # 78.929 m
          (301, 500, 1, 0),                 # no disparity
          (302, 500, 1 + 256 * 5, 0),       # 94.7 m
          (255, 500, 1 + 256 * 20, 0), (768, 500, 1 + 256 * 20, 0),     # above, below the centre
          (300, 191, 1 + 256 * 20, 0), (300, 1856, 1 + 256 * 20, 0))    # beside it


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def make_layout(source, kind="_sequence", sides=("left", "right"), around=3):
    """Write snippets of 2 x `around` + 1 frames about frame 19, and a disparity for testing."""
    rows, columns = np.mgrid[:1024, :2048].astype(np.uint8)
    for name in (TRAIN, VAL, TEST):
        camera = source / "camera" / f"{name}_000019_camera.json"
        camera.parent.mkdir(parents=True)
        camera.write_text(json.dumps(CAMERA))
        for side in sides:
            for number in range(19 - around, 20 + around):
                image = np.stack([rows // 2, columns // 2 + np.uint8(3 * number), rows], 2)
                write(source / f"{side}Img8bit{kind}" / f"{name}_{number:06d}_{side}Img8bit.png",
                      image)
    disparity = np.zeros((1024, 2048), np.uint16)
    for row, column, value, _ in PIXELS:
        disparity[row, column] = value
    write(source / "disparity" / f"{TEST}_000019_disparity.png", disparity)
    return source


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_layout(tmp_path_factory.mktemp("cityscapes"))


@pytest.fixture
def imported(source, tmp_path, script):
    outcome = script("prepare_data", "import", "cityscapes", source, "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "--frame_ids 0 -2 2 --mask_dir" in outcome.out
    return tmp_path / "out"


def test_frames_are_linked_with_their_numbers(source, imported):
    for side in ("left", "right"):
        frames = sorted((imported / "train/aachen_000003_000019" / side).iterdir())
        assert [path.name for path in frames] == [f"{n:010d}.png" for n in range(16, 23)]
        assert frames[0].samefile(
            source / f"{side}Img8bit_sequence/{TRAIN}_000016_{side}Img8bit.png")
    assert len(list((imported / "test").glob("*/left/*"))) == 1  # without its neighbours


def test_a_target_has_neighbours_two_frames_away(imported):
    lines = {name: read_split(imported / f"splits/{name}_files.txt")
             for name in ("train", "val", "test")}
    assert lines["train"] == [f"train/aachen_000003_000019 {frame} {side}" for side in "lr"
                              for frame in (18, 19, 20)]
    assert len(lines["val"]) == 6
    assert lines["test"] == ["test/ulm_000001_000019 19 l"]


def test_depth_is_focal_length_x_baseline_over_disparity(imported):
    png = cv2.imread(str(imported / "splits/gt_depths/000000.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    assert png.shape == (1024, 2048)
    assert [png[row, column] for row, column, *_ in PIXELS] == [value for *_, value in PIXELS]
    assert np.count_nonzero(png) == 2
    truth = load_ground_truth("", str(imported / "splits"), ["x 0"])
    assert truth.depths[0][300, 500] == pytest.approx(2262.52 * 0.209313 / 20, abs=1 / 512)
    assert not truth.eigen


def test_the_camera_file_becomes_intrinsics(imported):
    assert read_intrinsics(imported / "val/bonn_000000_000019/intrinsics.json") == Intrinsics(
        2262.52, 2265.3, 1096.98, 513.137, 2048, 1024, 0.209313)


def test_the_mask_leaves_the_lower_quarter_out(imported):
    mask = cv2.imread(str(imported / "masks/mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask[:768].all()
    assert not mask[768:].any()


def test_cropped_images_keep_their_pixels(source, tmp_path, script):
    outcome = script("prepare_data", "import", "cityscapes", source, "--out", tmp_path / "out",
                     "--crop_bonnet")
    assert outcome.status == 0, outcome.err
    assert "--mask_dir" not in outcome.out
    place = tmp_path / "out/train/aachen_000003_000019"
    whole = cv2.imread(str(source / f"leftImg8bit_sequence/{TRAIN}_000020_leftImg8bit.png"))
    assert (cv2.imread(str(place / "left/0000000020.png")) == whole[:768]).all()
    assert read_intrinsics(place / "intrinsics.json")[3:6] == (513.137, 2048, 768)
    png = cv2.imread(str(tmp_path / "out/splits/gt_depths/000000.png"), cv2.IMREAD_UNCHANGED)
    assert png.shape == (768, 2048)
    assert np.count_nonzero(png) == 2


def test_single_images_make_stereo_pairs(tmp_path, script):
    make_layout(tmp_path / "source", kind="", around=0)
    outcome = script("prepare_data", "import", "cityscapes", tmp_path / "source", "--out",
                     tmp_path / "out")
    assert "--frame_ids 0 --use_stereo" in outcome.out
    assert read_split(tmp_path / "out/splits/train_files.txt") == [
        f"train/aachen_000003_000019 19 {side}" for side in "lr"]


def test_left_images_alone_make_a_test_list(tmp_path, script):
    make_layout(tmp_path / "source", kind="", sides=("left",), around=0)
    outcome = script("prepare_data", "import", "cityscapes", tmp_path / "source", "--out",
                     tmp_path / "out")
    assert "too few images to train" in outcome.out
    assert "1 test image with ground truth" in outcome.out
    assert not (tmp_path / "out/splits/train_files.txt").exists()


@pytest.mark.parametrize(("remove", "found"), [
    ("camera", "has no camera/"), ("leftImg8bit", "has no image for any of its camera files")])
def test_missing_archives_are_named_with_their_size(tmp_path, script, remove, found):
    source = make_layout(tmp_path / "source", kind="", sides=("left",), around=0)
    (source / remove).rename(source / "gone")
    line = one_line(script("prepare_data", "import", "cityscapes", source, "--out",
                           tmp_path / "out"), 1)
    assert found in line
    assert "leftImg8bit_sequence_trainvaltest.zip (324 GB;" in line
    assert "cityscapes-dataset.com" in line


@pytest.mark.parametrize(("name", "content", "found"), [
    (f"camera/{VAL}_000019_camera.json", b"{}", "is no camera file of Cityscapes (KeyError"),
    (f"disparity/{TEST}_000019_disparity.png", b"x", "cannot be read as a PNG"),
    (f"leftImg8bit/{TRAIN}_000019_leftImg8bit.png", b"x", "cannot be read as an image")])
def test_a_broken_file_leaves_no_dataset_behind(tmp_path, script, name, content, found):
    source = make_layout(tmp_path / "source", kind="", sides=("left",), around=0)
    (source / name).write_bytes(content)
    assert found in one_line(script("prepare_data", "import", "cityscapes", source, "--out",
                                    tmp_path / "out", "--crop_bonnet"), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_killed_import_is_done_anew(source, imported, tmp_path, script):
    code = ("import os, signal, sys; from pathlib import Path; from preparation import cityscapes\n"
            "cityscapes.write_mask = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
            "cityscapes.import_cityscapes(Path(sys.argv[1]), Path(sys.argv[2]), False)")
    killed = subprocess.run([sys.executable, "-c", code, source, tmp_path / "again"], cwd=ROOT,
                            capture_output=True)
    assert killed.returncode == -9
    assert len(list(tmp_path.glob("again*"))) == 1
    assert script("prepare_data", "import", "cityscapes", source, "--out",
                  tmp_path / "again").status == 0
    assert [path.name for path in tmp_path.glob("again*")] == ["again"]
    for path in imported.rglob("*"):
        other = tmp_path / "again" / path.relative_to(imported)
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


def test_an_import_is_checked_trained_and_evaluated(imported, tmp_path, script):
    flags = ["--dataset", "folder", "--data_path", imported, "--height", HEIGHT, "--width", WIDTH,
             "--frame_ids", 0, -2, 2, "--split", imported / "splits", "--mask_dir",
             imported / "masks", "--num_workers", 0, "--no_cuda"]
    assert script("prepare_data", "check", *flags, "--out", tmp_path / "check.png").status == 0
    outcome = script("train", *flags, "--weights_init", "scratch", "--num_epochs", 1,
                     "--batch_size", 3, "--log_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    outcome = script(
        "evaluate_depth", "--dataset", "folder", "--data_path", imported, "--eval_split",
        imported / "splits", "--eval_mono", "--no_cuda", "--num_workers", 0,
        "--load_weights_folder", tmp_path / "mdp/models/weights_0")
    assert outcome.status == 0, outcome.err
    assert "0 of 1 test image were seen in training" in outcome.out
    assert read_results(tmp_path / "mdp/models/weights_0")["images"]["pixels"] == [2]
