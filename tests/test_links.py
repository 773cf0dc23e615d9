"""Links in the data path are followed by every script; a list never leaves the data path.

KITTI's drives are often links to other disks, which their owner put there. A list may come from
anyone.
"""
import numpy as np
import pytest
import tiny  # noqa: F401 - registers --num_layers 2
from conftest import one_line, train_flags
from PIL import Image

from datasets import KITTIDepthDataset, KITTIOdomDataset, KITTIRAWDataset
from datasets.frame_cache import FrameCache
from runtime.errors import DataError
from synthetic.render import HELD_OUT, TRAIN


@pytest.fixture
def linked(drive, tmp_path):
    """Make a data path whose drives, sequence and poses are links to another folder."""
    data = tmp_path / "data"
    date = TRAIN.split("/")[0]
    for name in (TRAIN, HELD_OUT, f"{date}/calib_cam_to_cam.txt", f"{date}/calib_velo_to_cam.txt",
                 "sequences/09", "poses/09.txt"):
        link = data / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(drive / name)
    return data


def test_a_linked_drive_trains(drive, linked, tmp_path, script):
    outcome = script("train", *train_flags(drive, "--num_layers", 2, "--log_dir", tmp_path,
                                           "--model_name", "run", "--data_path", linked))
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run/models/weights_0/encoder.pth").is_file()


def test_a_linked_drive_is_cached(linked, tmp_path):
    cache = FrameCache(tmp_path / "cache", 64, 96)
    dataset = KITTIRAWDataset(linked, [f"{TRAIN} 5 l"], 64, 96, [0], 1)
    dataset.use_cache(cache)
    first, cached = (dataset.load(0)["color", 0, 0] for _ in range(2))
    assert len(list((tmp_path / "cache").glob("*/*/*.rgb"))) == 1
    assert first.equal(cached)


def test_a_linked_drive_is_checked(drive, linked, tmp_path, script):
    outcome = script("prepare_data", "check", "--data_path", linked, "--split",
                     drive / "splits/tiny", "--height", 64, "--width", 96, "--use_stereo",
                     "--num_workers", 0, "--out", tmp_path / "check.png")
    assert outcome.status == 0, outcome.err
    assert "files: all 6 samples can be read" in outcome.out


@pytest.mark.parametrize("split", ["mine", "eigen_benchmark"])  # of scans, of depth maps
def test_a_linked_drive_gives_ground_truth_and_errors(linked, weights, tmp_path, script, split):
    folder = tmp_path / split
    folder.mkdir()
    (folder / "test_files.txt").write_text(f"{HELD_OUT} l: 5-8\n")
    outcome = script("evaluate_depth", "--data_path", linked, "--eval_split", folder,
                     "--eval_mono", "--load_weights_folder", weights, "--no_cuda",
                     "--num_workers", 0, "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert (folder / "gt_depths.npz").is_file()  # made of the files behind the links
    assert "   abs_rel |   sq_rel |" in outcome.out


def test_a_linked_sequence_and_its_poses_are_evaluated(drive, linked, weights, tmp_path, script):
    outcome = script("evaluate_pose", "--data_path", linked, "--load_weights_folder", weights,
                     "--eval_split", drive / "splits/odom/test_files_09.txt", "--no_cuda",
                     "--num_workers", 0, "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert "Trajectory error: " in outcome.out


def test_linked_kitti_is_counted_as_there(linked, script):
    assert "odom_9           poses                1 of      1" in script(
        "prepare_data", "kitti", "--data_path", linked, "--split", "odom_9").out


@pytest.mark.parametrize("level", ["", "date", "date/drive", "date/drive/image_02",
                                   "date/drive/image_02/data/0000000000.jpg"])
def test_a_link_at_any_level_is_followed(tmp_path, level):
    image = tmp_path / "elsewhere/date/drive/image_02/data/0000000000.jpg"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (96, 64)).save(image)
    link = tmp_path / "data" / level
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / level)
    assert KITTIRAWDataset(tmp_path / "data", ["date/drive 0 l"], 64, 96, [0], 1)[0]


def test_ground_truth_behind_links_is_read(drive, linked):
    for kind in (KITTIRAWDataset, KITTIDepthDataset):
        found, expected = (kind(path, [f"{HELD_OUT} 5 l"], 64, 96, [0], 1)[0]["depth_gt"]
                           for path in (linked, drive))
        assert (found > 0).any()
        np.testing.assert_array_equal(found, expected)


OUTSIDE = ("../elsewhere/drive", "drive/../../elsewhere/drive", "ELSEWHERE/drive",
           "..\\elsewhere\\drive", "drive\\..\\..\\elsewhere\\drive", "C:\\elsewhere", "C:drive",
           "\\\\host\\share", "..")


@pytest.mark.parametrize("folder", OUTSIDE)
def test_a_line_that_leaves_the_data_path_is_refused_by_datasets(tmp_path, folder):
    for place in ("data/drive", "elsewhere/drive"):
        image = tmp_path / place / "image_02/data/0000000000.jpg"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (96, 64)).save(image)
    line = f"{folder.replace('ELSEWHERE', str(tmp_path / 'elsewhere'))} 0 l"
    for kind in (KITTIRAWDataset, KITTIOdomDataset, KITTIDepthDataset):
        with pytest.raises(DataError, match="which is not below the data path"):
            kind(tmp_path / "data", [line], 64, 96, [0], 1)[0]


@pytest.mark.parametrize("words", [
    ["train", "--split", "SPLIT"], ["prepare_data", "check", "--split", "SPLIT"],
    ["evaluate_depth", "--eval_mono", "--eval_split", "SPLIT", "--load_weights_folder", "x"],
    ["export_gt_depth", "--split", "SPLIT"],
    ["evaluate_pose", "--eval_split", "SPLIT/test_files.txt", "--load_weights_folder", "x"]],
    ids=lambda words: words[0])
@pytest.mark.parametrize("folder", ["../drive", "drive/../../drive", "/drive"])
def test_a_line_that_leaves_the_data_path_ends_a_script(tmp_path, script, words, folder):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}_files.txt").write_text(f"{folder} l: 0-9\n")
    name, *rest = [word.replace("SPLIT", str(tmp_path)) for word in words]
    more = ["--log_dir", tmp_path / "log", "--no_cuda"] if name == "train" else []
    outcome = script(name, *rest, "--data_path", tmp_path, *more)
    found = one_line(outcome, status=1)
    assert f"line 1: found the folder '{folder}', which is not below the data path" in found


def test_a_tilde_names_a_folder_below_the_data_path(tmp_path, monkeypatch):
    for place in ("data/~", "home"):
        image = tmp_path / place / "image_02/data/0000000000.jpg"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (96, 64), "white" if place == "data/~" else "black").save(image)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    item = KITTIRAWDataset(tmp_path / "data", ["~ 0 l"], 64, 96, [0], 1)[0]
    assert item["color", 0, 0].min() == 1
