"""prepare_data.py import tum, on a made layout: links, pairs by time, metres, camera path."""
import cv2
import numpy as np
import pytest
from conftest import filled_weights, one_line, read_results

from datasets.intrinsics import read_intrinsics
from datasets.splits import read_split
from evaluation.trajectory_files import read_times, read_trajectory
from preparation.tum import pick

START, RATE = 1305031102.175304, 30


def make_sequence(folder, count, missing=()):
    """Write a sequence of `count` images a thirtieth of a second apart, but for missing ones.

    Depth comes 5 ms later, of 1 m + 1 cm for each image and 0 in the first row; the pose 4 ms
    earlier.
    """
    times = [START + i / RATE for i in range(count) if i not in missing]
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    listings = {"rgb": "# color images\n", "depth": "# depth maps\n", "groundtruth": "# poses\n"}
    columns = np.tile(np.arange(640) % 200, (480, 1)).astype(np.uint8)
    for i, time in enumerate(times):
        depth = np.full((480, 640), 5000 + 50 * i, np.uint16)
        depth[0] = 0
        image = np.stack([np.roll(columns, 3 * i, 1)] * 3, 2)
        for name, picture, stamp in (("rgb", image, time), ("depth", depth, time + 0.005)):
            listings[name] += f"{stamp:.6f} {name}/{stamp:.6f}.png\n"
            cv2.imwrite(str(folder / name / f"{stamp:.6f}.png"), picture,
                        [cv2.IMWRITE_PNG_COMPRESSION, 1])
        listings["groundtruth"] += f"{time - 0.004:.4f} {i / 10:.4f} 0 1.5 0 0.6 0 0.8\n"
    for name, text in listings.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tum")
    make_sequence(folder / "rgbd_dataset_freiburg1_desk", 14, missing=(7,))
    make_sequence(folder / "rgbd_dataset_freiburg3_long_office", 3)
    return folder


@pytest.fixture
def imported(source, tmp_path, script):
    outcome = script("prepare_data", "import", "tum", source, "--out", tmp_path / "out", "--test",
                     "freiburg3_long_office")
    assert outcome.status == 0, outcome.err
    assert "freiburg1_desk: 13 frames, 13 with depth, 13 with a pose" in outcome.out
    return tmp_path / "out"


def test_images_are_linked_in_the_order_of_time(source, imported):
    frames = sorted((imported / "freiburg1_desk").glob("*.png"))
    assert [path.name for path in frames] == [f"{i:010d}.png" for i in range(13)]
    images = sorted((source / "rgbd_dataset_freiburg1_desk/rgb").iterdir())
    assert all(map(lambda a, b: a.samefile(b), frames, images))


def test_depth_pngs_are_metres_x_256(imported):
    assert read_split(imported / "splits/test_files.txt") == [
        f"freiburg3_long_office {i}" for i in range(3)]
    maps = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            for path in sorted((imported / "splits/gt_depths").iterdir())]
    assert [(each.dtype, each[0, 0], each[1, 1]) for each in maps] == [
        (np.uint16, 0, value) for value in (256, 259, 261)]  # 1, 1.01 and 1.02 m


def test_no_training_sample_spans_a_missing_image(imported):
    lines = [line for name in ("train", "val")
             for line in read_split(imported / f"splits/{name}_files.txt")]
    frames = {int(line.split()[1]) for line in lines}
    assert frames
    assert not frames & {0, 6, 7, 12}  # image 7 is missing, so 6 and 7 are no neighbours


def test_each_camera_has_its_published_intrinsics(imported):
    found = [read_intrinsics(imported / name / "intrinsics.json")
             for name in ("freiburg1_desk", "freiburg3_long_office")]
    assert found[0][:6] == (517.3, 516.5, 318.6, 255.3, 640, 480)
    assert found[1][:4] == (535.4, 539.2, 320.1, 247.6)


def test_the_camera_path_is_read_as_a_trajectory(imported):
    times = read_times(imported / "freiburg1_desk/times.txt")
    assert times[6:8] == pytest.approx([6 / RATE, 8 / RATE], abs=1e-6)
    frames, poses = read_trajectory(imported / "freiburg1_desk/trajectory.txt",
                                    find_times=lambda: (times, "times.txt"))
    assert list(frames) == list(range(13))
    assert poses[5, :3, 3] == pytest.approx([0.5, 0, 1.5])
    assert poses[5, :3, 0] == pytest.approx([0.28, 0, -0.96])  # 2 acos(0.8) about y


def test_the_nearest_pairs_within_20_ms_are_made_first():
    others = np.array([0.016, 0.034, 0.1, 0.171])
    found = pick(np.array([0.0, 0.033, 0.1, 0.15]), others, ["a", "b", "c", "d"])
    assert found == ["a", "b", "c", None]  # 21 ms is too far
    assert pick(np.array([0.0, 0.01]), np.array([0.008]), ["a"]) == [None, "a"]  # only once


def test_without_test_all_sequences_are_for_testing(source, tmp_path, script):
    outcome = script("prepare_data", "import", "tum", source, "--out", tmp_path / "out")
    assert "16 test images with ground truth" in outcome.out
    assert not (tmp_path / "out/splits/train_files.txt").exists()


def test_an_import_of_one_sequence_is_evaluated(source, tmp_path, script):
    assert script("prepare_data", "import", "tum", source / "rgbd_dataset_freiburg3_long_office",
                  "--out", tmp_path / "out").status == 0
    outcome = script("evaluate_depth", "--dataset", "folder", "--data_path", tmp_path / "out",
                     "--eval_split", tmp_path / "out/splits", "--eval_mono", "--no_cuda",
                     "--num_workers", 0, "--load_weights_folder",
                     filled_weights(tmp_path / "w", use_stereo=False))
    assert outcome.status == 0, outcome.err
    assert read_results(tmp_path / "w")["images"]["pixels"] == [640 * 479] * 3


def without(name):
    return lambda folder: (folder / name).unlink()


def with_line(name, line):
    return lambda folder: (folder / name).write_text(line)


@pytest.mark.parametrize(("change", "found"), [
    (without("rgb.txt"), "has no rgb.txt, nor has a folder in it; expected a sequence of cvg.cit"),
    (without("depth.txt"), "depth.txt is missing; expected a sequence of cvg.cit.tum.de/"),
    (lambda folder: next((folder / "depth").iterdir()).unlink(), ".png is missing; extract"),
    (with_line("rgb.txt", "1.0 ../../etc/x.png"), "rgb.txt, line 1: found '1.0 ../../etc/x.png'"),
    (with_line("groundtruth.txt", "1.0 2 3"), "expected seconds and 7 numbers"),
    (with_line("depth.txt", "1.0 depth/x.png"), "no image has a depth within 0.02 s")])
def test_a_missing_or_malformed_file_gets_one_line(tmp_path, script, change, found):
    folder = tmp_path / "rgbd_dataset_freiburg2_x"
    make_sequence(folder, 2)
    change(folder)
    assert found in one_line(script("prepare_data", "import", "tum", folder, "--out",
                                    tmp_path / "out"), 1)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("words", "status", "found"), [
    (["cityscapes", "x", "--out", "y", "--test", "z"], 2, "--test belongs to tum"),
    (["tum", "x", "--out", "y", "--crop_bonnet"], 2, "--crop_bonnet belongs to cityscapes"),
    (["kitti", "x", "--out", "y"], 2, "invalid choice: 'kitti'")])
def test_a_flag_of_the_other_layout_is_refused(script, words, status, found):
    assert found in one_line(script("prepare_data", "import", *words), status)


def test_a_sequence_to_test_that_is_not_there_is_named(source, tmp_path, script):
    line = one_line(script("prepare_data", "import", "tum", source, "--out", tmp_path / "out",
                           "--test", "freiburg2_xyz"), 2)
    assert "freiburg2_xyz is no sequence" in line
    assert "freiburg1_desk, freiburg3_long_office" in line
