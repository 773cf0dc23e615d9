"""checkpoints/frames_seen.py, --check_leak: test images that training has read."""
import json

import pytest
from conftest import one_line, read_results, train_flags

from checkpoints.frames_seen import (
    FILE_NAME,
    FramesSeen,
    find_leak,
    frames_of_training,
    read_frames_seen,
    write_frames_seen,
)
from datasets.instants import ODOMETRY_DRIVES, instant, instants
from datasets.splits import parse_line, read_split, split_path
from runtime.errors import DataError

MONO = (0, -1, 1)


def of_split(split, dataset="kitti"):
    lines = read_split(split_path(split, "train_files.txt"))
    return frames_of_training(dataset, split, lines, MONO)


def eigen():
    return read_split(split_path("eigen", "test_files.txt"))


@pytest.mark.parametrize("split", ["eigen_zhou", "eigen_full"])
def test_the_published_training_lists_have_no_eigen_test_image(split):
    leak = find_leak(of_split(split), "kitti", eigen())
    assert leak == (0, 697, [])
    assert leak.describe() == "0 of 697 test images were seen in training"


def test_the_benchmark_list_has_457_eigen_test_images():
    # counted apart: every frame of a drive that is within one frame of a line's
    leak = find_leak(of_split("benchmark"), "kitti", eigen())
    drives = {}
    for line in read_split(split_path("benchmark", "train_files.txt")):
        folder, frame, _ = parse_line(line)
        drives.setdefault(folder[-26:], set()).update((frame - 1, frame, frame + 1))
    seen = [line for line in eigen()
            if parse_line(line)[1] in drives.get(parse_line(line)[0][-26:], ())]
    assert leak.seen == len(seen) == 457
    assert len(leak.drives) == len({parse_line(line)[0] for line in seen})
    assert leak.describe().startswith(f"warning: {len(seen)} of 697 test images were seen in "
                                      f"training, in {len(leak.drives)} drives (2011_09_26_drive_")


def test_odometry_training_has_seen_eigen_test_images():
    seen = of_split("odom", "kitti_odom")
    leak = find_leak(seen, "kitti", eigen())
    # by hand: Eigen's test drives among the sequences 00 to 08, and their frames in the list
    ranges = {}
    for line in read_split(split_path("odom", "train_files.txt")):
        sequence, frame, _ = parse_line(line)
        drive, first = ODOMETRY_DRIVES[int(sequence)]
        ranges.setdefault(f"{drive}_sync", set()).update(first + frame + f for f in MONO)
    expected = [line for line in eigen()
                if parse_line(line)[1] in ranges.get(parse_line(line)[0][-26:], ())]
    assert leak.seen == len(expected) > 0
    assert {drive + "_sync" for drive in leak.drives} == {
        parse_line(line)[0][-26:] for line in expected}
    assert {"2011_09_30_drive_0016", "2011_09_30_drive_0018", "2011_09_30_drive_0027"} <= set(
        leak.drives)


@pytest.mark.parametrize(("train", "test", "count"), [
    (["d/2011_09_26_drive_0001_sync 5 l"], ["d/2011_09_26_drive_0001_sync 0000000005 r"], 1),
    (["d/2011_09_26_drive_0001_sync 5 l"], ["x/2011_09_26_drive_0001_extract 6 l"], 1),
    (["d/2011_09_26_drive_0001_sync 5 l"], ["d/2011_09_26_drive_0001_sync 7 l"], 0),
    (["d/2011_09_26_drive_0001_sync 5 l"], ["d/2011_09_26_drive_0002_sync 5 l"], 0),
    (["ride 5"], ["ride 4", "ride 7", "walk 5"], 1)])
def test_padding_cameras_and_neighbours_are_seen_through(train, test, count):
    leak = find_leak(frames_of_training("kitti", "mine", train, MONO), "kitti", test)
    assert leak.seen == count


@pytest.mark.parametrize(("drive", "trained", "tested", "count"), [
    ("ride", "~/a/videos", "/mnt/videos", 1), ("ride", "videos", "others", None),
    ("ride", None, "others", 1), ("ride", "videos", None, 1), ("walk", "videos", "others", 0),
    ("2011_09_26_drive_0001_sync", "videos", "others", 1),
    ("2011_01_01_drive_0001_sync", "videos", "others", None)])  # of a rendered street
def test_own_drives_of_one_name_need_data_of_one_name(tmp_path, drive, trained, tested, count):
    lines = [f"{name} 5" for name in ("ride", "2011_09_26_drive_0001_sync",
                                      "2011_01_01_drive_0001_sync")]
    write_frames_seen(tmp_path, frames_of_training("folder", "mine", lines, MONO,
                                                   data_path=trained))
    leak = find_leak(read_frames_seen(tmp_path), "folder", [f"{drive} 5"], tested)
    assert leak.seen == count


def test_a_record_without_the_name_of_its_data_counts(tmp_path):
    write_frames_seen(tmp_path, frames_of_training("folder", "mine", ["ride 5"], MONO,
                                                   data_path="videos"))
    fields = json.loads((tmp_path / FILE_NAME).read_text())
    del fields["lists"][0]["data"]
    (tmp_path / FILE_NAME).write_text(json.dumps(fields))
    assert find_leak(read_frames_seen(tmp_path), "folder", ["ride 5"], "others").seen == 1


def test_a_sequence_is_its_raw_drive():
    assert instant("kitti_odom", "08", 0) == ("2011_09_30_drive_0028", 1100)
    assert instant("kitti_odom", "11", 7) == ("11", 7)  # of a test sequence: KITTI keeps the drive
    assert instant("kitti_odom", "d/x_sync", 7) == ("d/x_sync", 7)  # a list of another layout
    assert instants("kitti_odom", ["9 3 l"], (0, 1, "s")) == {
        ("2011_09_30_drive_0033", 3), ("2011_09_30_drive_0033", 4)}


def test_the_record_survives_writing_and_fine_tuning_adds_to_it(tmp_path):
    parent = frames_of_training("kitti", "a", ["ride 5", "ride 9"], MONO)
    write_frames_seen(tmp_path, parent)
    assert read_frames_seen(tmp_path) == parent
    assert json.loads((tmp_path / FILE_NAME).read_text())["frames"] == ["ride: 4-6 8-10"]
    child = frames_of_training("kitti", "b", ["walk 1"], (0,), tmp_path)
    assert child.instants == parent.instants | {("walk", 1)}
    assert [entry["split"] for entry in child.lists] == ["b", "a"]
    assert child.is_complete
    unknown = frames_of_training("kitti", "b", ["walk 1"], (0,), tmp_path / "published")
    assert not unknown.is_complete
    assert find_leak(unknown, "kitti", ["walk 1"]).seen == 1
    assert find_leak(unknown, "kitti", ["walk 2"]).seen is None


def test_weights_of_monodepth2_are_known_by_their_split(tmp_path):
    (tmp_path / "opt.json").write_text(json.dumps({"split": "benchmark", "frame_ids": [0, -1, 1]}))
    assert find_leak(read_frames_seen(tmp_path / "weights_19"), "kitti", eigen()).seen == 457
    for content in ("{}", "[", json.dumps({"split": "/etc"}),
                    json.dumps({"split": "eigen_zhou", "load_weights_folder": "x"})):
        (tmp_path / "opt.json").write_text(content)
        leak = find_leak(read_frames_seen(tmp_path / "weights_19"), "kitti", eigen())
        assert leak.describe() == ("unknown whether any of the 697 test images was seen in "
                                   "training: the training list, or the drive of an image, is "
                                   "unknown")


@pytest.mark.parametrize("content", ["", "{}", '{"frames": ["a"], "lists": [], "is_complete": 1}',
                                     '{"frames": 3, "lists": [], "is_complete": true}'])
def test_a_broken_record_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(DataError, match=rf"{FILE_NAME} is broken; copy it again"):
        read_frames_seen(tmp_path)


def test_images_without_a_drive_are_unknown():
    assert find_leak(FramesSeen(set(), []), "kitti_2015", ["training 5 l"]).seen is None


def test_training_evaluation_and_odometry_tell_what_was_seen(drive, weights, tmp_path, script):
    out = script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                 "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda", "--eval_mono",
                 "--eval_out_dir", tmp_path).out
    assert "0 of 4 test images were seen in training\n" in out
    found = read_results(tmp_path)["seen_in_training"]
    assert found == {"seen": 0, "images": 4, "drives": []}
    (tmp_path / "train").mkdir()
    train = drive / "splits/tiny/train_files.txt"
    (tmp_path / "train/test_files.txt").write_text(train.read_text())
    out = script("evaluate_depth", "--data_path", drive, "--eval_split", tmp_path / "train",
                 "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda", "--eval_mono",
                 "--eval_out_dir", tmp_path).out
    assert "warning: 6 of 6 test images were seen in training, in 1 drive (2011_01_01_drive" in out
    (tmp_path / "list.txt").write_text("9 l: 0-6\n")
    out = script("evaluate_pose", "--data_path", drive, "--eval_split", tmp_path / "list.txt",
                 "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda",
                 "--eval_out_dir", tmp_path).out
    assert "0 of 7 test images were seen in training\n" in out


def test_a_list_is_checked_without_weights(tmp_path, script):
    out = script("evaluate_depth", "--check_leak", "benchmark", "--eval_split", "eigen").out
    assert out.startswith("warning: 457 of 697 test images were seen in training")
    path = tmp_path / "list.txt"
    path.write_text("2011_09_26/2011_09_26_drive_0002_sync 0000000070 r\n")
    out = script("evaluate_depth", "--check_leak", path, "--eval_split", "eigen").out
    assert out.startswith("warning: 1 of 697 test images were seen in training, in 1 drive (2011_")
    assert "is missing" in one_line(script("evaluate_depth", "--check_leak", "eigen"), 1)
    for more in ([], ["--dataset", "kitti_odom"]):  # its sequence numbers tell the layout
        out = script("evaluate_depth", "--check_leak", "odom", "--eval_split", "eigen", *more).out
        assert out.startswith("warning: 95 of 697 test images were seen in training, in 4 drives")
    (tmp_path / "test_files.txt").write_text("9 0 l\n")
    path.write_text("9 1 l\n")
    out = script("evaluate_depth", "--check_leak", path, "--eval_split", tmp_path, "--dataset",
                 "kitti_odom").out
    assert "warning: 1 of 1 test image" in out
    out = script("evaluate_depth", "--check_leak", "eigen_zhou", "--eval_split", "benchmark").out
    assert out.startswith("unknown whether any of the 500 test images")


def test_a_fine_tuned_run_carries_its_parents_list(drive, weights, script):
    outcome = script("train", *train_flags(drive, "--load_weights_folder", weights, "--model_name",
                                           "child", "--frame_ids", 0, "--use_stereo"))
    assert outcome.status == 0, outcome.err
    seen = read_frames_seen(drive.parent / "log/child/models/weights_0")
    assert len(seen.lists) == 2
    assert seen.instants == read_frames_seen(weights).instants
