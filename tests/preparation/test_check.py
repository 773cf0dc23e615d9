"""prepare_data.py check: faults, intrinsics, motion, stereo pairs and the contact sheet."""
import shutil
from argparse import Namespace

import numpy as np
import pytest
from conftest import one_line
from PIL import Image

from checkpoints.weights import load_weights
from datasets import Augment, KITTIRAWDataset, collate
from losses import ReprojectionObjective
from networks import Monodepth2
from preparation.check import draw_prediction, load_predictor
from synthetic.render import HELD_OUT, TRAIN


def run_check(script, drive, tmp_path, *words):
    return script("prepare_data", "check", "--data_path", drive, "--split", drive / "splits/tiny",
                  "--height", 64, "--width", 96, "--out", tmp_path / "check.png", "--no_cuda",
                  "--num_workers", 0, *words)


def test_a_check_shows_intrinsics_motion_stereo_and_a_picture(drive, weights, tmp_path, script):
    outcome = run_check(script, drive, tmp_path, "--use_stereo", "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    assert "files: all 6 samples can be read" in outcome.out
    assert "normalised fx 0.5800 fy 1.9200 cx 0.5000 cy 0.5000" in outcome.out
    assert "0% of 6 pairs are nearly static" in outcome.out
    assert "; the wrong way in 0% of 6 pairs\n" in outcome.out
    with Image.open(tmp_path / "check.png") as picture:
        cells, rows = max(1 + 3 + 3, 1 + 3 * 2 + 1), 4 * 2
        assert picture.size == (320 * cells, rows * (18 + 18 + round(64 * 320 / 96)))


def test_a_check_counts_faults_and_ends_with_status_1(drive, tmp_path, script):
    folder = tmp_path / "data" / TRAIN / "image_02/data"
    folder.mkdir(parents=True)
    for i in range(9, 15):
        source = drive / TRAIN / f"image_02/data/{i:010d}.jpg"
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "0000000010.jpg").write_bytes(b"no image")
    (folder / "0000000014.jpg").unlink()
    (tmp_path / "split").mkdir()
    (tmp_path / "split/train_files.txt").write_text(f"{TRAIN} l: 10-13\n")
    outcome = script("prepare_data", "check", "--data_path", tmp_path / "data", "--split",
                     tmp_path / "split", "--height", 64, "--width", 96, "--num_workers", 2,
                     "--out", tmp_path / "check.png")
    assert outcome.status == 1
    assert "files: 3 of 4 samples cannot be read; 1 missing file, 1 other fault," in outcome.out
    assert outcome.out.count("0000000010.jpg cannot be read as an image") == 2  # list, full
    assert outcome.out.count("0000000014.jpg is missing") == 1
    assert (tmp_path / "check.png").is_file()  # shows the only readable sample


def test_a_check_reports_that_the_camera_stands_still(drive, tmp_path, script):
    folder = tmp_path / "data" / HELD_OUT / "image_02/data"
    folder.mkdir(parents=True)
    content = (drive / HELD_OUT / "image_02/data/0000000005.jpg").read_bytes()
    for i in range(4):
        (folder / f"{i:010d}.jpg").write_bytes(content)
    (tmp_path / "split").mkdir()
    (tmp_path / "split/train_files.txt").write_text(f"{HELD_OUT} l: 1-2\n")
    outcome = script("prepare_data", "check", "--data_path", tmp_path / "data", "--split",
                     tmp_path / "split", "--height", 64, "--width", 96, "--num_workers", 0,
                     "--out", tmp_path / "check.png")
    assert "100% of 2 pairs are nearly static, below 1. Leave them out" in outcome.out


def test_a_check_reports_that_left_and_right_are_exchanged(drive, tmp_path, script):
    for camera, source in (("image_02", "image_03"), ("image_03", "image_02")):
        shutil.copytree(drive / TRAIN / source, tmp_path / "data" / TRAIN / camera)
    outcome = script("prepare_data", "check", "--data_path", tmp_path / "data", "--split",
                     drive / "splits/tiny", "--height", 64, "--width", 96, "--num_workers", 0,
                     "--use_stereo", "--out", tmp_path / "check.png")
    assert "the wrong way in 100% of 6 pairs. Exchange left and right" in outcome.out


def test_a_check_shows_the_warped_images_of_training(drive, weights):
    frames = [0, -1, 1, "s"]
    dataset = KITTIRAWDataset(drive, [f"{TRAIN} 12 r"], 64, 96, frames, 1, is_train=True)
    opts = Namespace(load_weights_folder=weights, no_cuda=True, height=64, width=96)
    pictures = draw_prediction(load_predictor(opts, frames), dataset.load(0), frames)
    model = Monodepth2(18, False, frames).eval()
    load_weights(weights, model, ["encoder", "depth", "pose_encoder", "pose"])
    inputs = Augment("cpu", [0, -1, 1]).eval()(collate([dataset.load(0)]))
    _, views = ReprojectionObjective(frames, [0])(inputs, model(inputs))
    for f in frames[1:]:
        expected = 255 * views["color", f, 0][0].detach().permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pictures[f"{f} warped to 0"], expected, atol=1.01)


@pytest.mark.parametrize(("flags", "found", "status"), [
    (["--height", 100], "--height is 100; it must be a multiple of 32", 2),
    (["--height", 96, "--load_weights_folder", "WEIGHTS"], "add --height 64 --width 96", 1),
    (["--frame_ids", 0], "name a source frame unless there is --use_stereo", 2),
    (["--frame_ids", 0, "--use_stereo", "--speeds"], "--speeds compares frames in time", 2)])
def test_impossible_flags_of_a_check_get_one_line(drive, weights, tmp_path, script, flags, found,
                                                  status):
    flags = [weights if flag == "WEIGHTS" else flag for flag in flags]
    assert found in one_line(run_check(script, drive, tmp_path, *flags), status)


def test_a_check_counts_a_jpeg_that_is_cut_before_its_end_marker(drive, tmp_path, script):
    folder = tmp_path / "data" / TRAIN / "image_02/data"
    folder.mkdir(parents=True)
    for i in range(9, 13):
        content = (drive / TRAIN / f"image_02/data/{i:010d}.jpg").read_bytes()
        cut = content[:len(content) // 2] + content[-2:]
        (folder / f"{i:010d}.jpg").write_bytes(cut if i == 9 else content)
    (tmp_path / "split").mkdir()
    (tmp_path / "split/train_files.txt").write_text(f"{TRAIN} l: 10-11\n")
    outcome = script("prepare_data", "check", "--data_path", tmp_path / "data", "--split",
                     tmp_path / "split", "--height", 64, "--width", 96, "--num_workers", 0,
                     "--out", tmp_path / "check.png")
    assert outcome.status == 1
    assert "files: 1 of 2 samples cannot be read; 0 missing files, 1 other fault" in outcome.out
    assert "0000000009.jpg cannot be read as an image: the image data end early" in outcome.out
