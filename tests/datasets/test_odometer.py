"""datasets/odometer.py, --velocity_weight: metres travelled between frames."""
import re

import numpy as np
import pytest
from conftest import one_line, train_flags
from PIL import Image

from checkpoints.training_camera import TrainingCamera, read_training_camera
from datasets import KITTIOdomDataset, KITTIRAWDataset
from datasets.odometer import odometer_of_speeds, read_oxts, read_speeds
from preparation.speed_check import describe_speeds
from runtime.errors import DataError
from synthetic.render import HELD_OUT, SEQUENCE, TRAIN

# KITTI's format by hand: position, angles, then vn ve vf vl vu, accelerations, rates, quality
OXTS = "49.01 8.43 116.4 0.03 0.01 -2.6 5.0 3.0 {vf} {vl} 0 " + "0 " * 14 + "5 4 6 6 6"


def write_oxts(drive, speeds, step=0.1):
    (drive / "oxts/data").mkdir(parents=True)
    for i, (vf, vl) in enumerate(speeds):
        (drive / f"oxts/data/{i:010d}.txt").write_text(OXTS.format(vf=vf, vl=vl))
    (drive / "oxts/timestamps.txt").write_text("".join(
        f"2011-09-26 13:02:{25 + step * i:012.9f}\n" for i in range(len(speeds))))
    return drive


def test_oxts_give_speed_times_time_between_frames(tmp_path):
    odometer = read_oxts(write_oxts(tmp_path, [(3, 4), (6, 8), (0, 0)]))  # 5, 10, 0 m/s
    found = odometer.distances(1, [-1, 1])
    np.testing.assert_allclose(found, [0.75, 0.5], rtol=1e-5)
    assert odometer.distances(0, [2]) == pytest.approx(1.25)


@pytest.mark.parametrize(("change", "found"), [
    (lambda path: (path / "oxts/data/0000000001.txt").write_text("1 2 3"),
     r"0000000001.txt has the line '1 2 3'; expected 30 numbers"),
    (lambda path: (path / "oxts/data/0000000001.txt").write_text(OXTS.format(vf=1e4, vl=0)),
     r"has a speed of 10000 m/s; expected 0 to 100, in metres per second"),
    (lambda path: (path / "oxts/timestamps.txt").write_text("2011-09-26 13:02:25.0\n"),
     r"timestamps.txt has 1 line for 3 frames; extract the drive again"),
    (lambda path: (path / "oxts/timestamps.txt").write_text("noon\n" * 3),
     r"timestamps.txt has the line 'noon'; expected a time such as"),
    (lambda path: (path / "oxts/timestamps.txt").write_text("2011-09-26 13:02:25.0\n" * 3),
     r"the times of .*oxts do not rise from line to line")])
def test_broken_oxts_are_named(tmp_path, change, found):
    change(write_oxts(tmp_path, [(5, 0)] * 3))
    with pytest.raises(DataError, match=found):
        read_oxts(tmp_path)


def test_poses_of_a_folder_that_is_no_sequence_are_one_line(tmp_path):
    dataset = KITTIOdomDataset(str(tmp_path), ["2011_09_26/drive 5 l"], 64, 96, [0, 1], 1)
    with pytest.raises(DataError, match="expected the number of a sequence"):
        dataset.use_odometers()


def test_frames_without_a_speed_are_named():
    speeds = np.array([5.0, 5.0, np.nan, 5.0, 5.0])
    odometer = odometer_of_speeds(np.arange(5) / 10, speeds, "drive")
    assert odometer.distances(0, [1]) == pytest.approx(0.5)
    for frame, offset in ((1, 1), (3, -1), (0, -1), (4, 1)):  # a gap, and past both ends
        with pytest.raises(DataError, match="drive has no speed between frame"):
            odometer.distances(frame, [offset])


@pytest.mark.parametrize(("lines", "expected"), [
    ("frame m/s\n0 2\n1 4\n2 4\n", [0.3, 0.4]), ("0 2\n0.1 4\n0.2 4\n", [0.3, 0.4]),
    ("0 2\n0.2 6\n", [0.3, 0.5])])
def test_speeds_of_a_folder_are_by_frame_or_by_time(tmp_path, lines, expected):
    (tmp_path / "times.txt").write_text("0.0\n0.1\n0.2\n")
    (tmp_path / "speeds.txt").write_text(lines)
    odometer = read_speeds(tmp_path)
    np.testing.assert_allclose(odometer.distances(1, [-1, 1]), expected, rtol=1e-5)


def test_frames_without_times_are_told_what_to_write(tmp_path):
    (tmp_path / "speeds.txt").write_text("0 2\n1 2\n")
    with pytest.raises(DataError, match=r"times\.txt is missing; write the seconds of frame 0, 1,"):
        read_speeds(tmp_path)


@pytest.mark.parametrize(("lines", "found"), [
    ("", "has no speed of any frame"), ("0 fast\n", "has the line '0 fast'; expected 2 numbers"),
    ("frame m/s\n7 1\n", "names frames that are not among the 3 of"),
    ("0.2 1\n0.1 1\n", "do not rise from line to line"), ("0 -3\n0.2 -3\n", "a speed of -3 m/s"),
    ("50 1\n60 1\n", "has speeds from 50 to 60 s, and no frame is in that time")])
def test_wrong_speeds_of_a_folder_are_named(tmp_path, lines, found):
    (tmp_path / "times.txt").write_text("0.0\n0.1\n0.2\n")
    (tmp_path / "speeds.txt").write_text(lines)
    with pytest.raises(DataError, match=found):
        read_speeds(tmp_path)


def test_times_of_frames_that_fall_are_named(tmp_path):
    (tmp_path / "times.txt").write_text("0.0\n0.2\n0.1\n")
    (tmp_path / "speeds.txt").write_text("0 1\n1 1\n")
    with pytest.raises(DataError, match=r"times of .*times\.txt do not rise"):
        read_speeds(tmp_path)


def test_frames_far_apart_in_time_are_as_far_as_was_driven_between(tmp_path):
    # still frames were left out of a video: it stops from second 1 to second 9
    (tmp_path / "times.txt").write_text("0.0\n1.0\n9.0\n10.0\n")
    (tmp_path / "speeds.txt").write_text("0 4\n1 0\n" + "".join(
        f"{i} 0\n" for i in range(2, 10)) + "10 4\n")
    np.testing.assert_allclose(read_speeds(tmp_path).distances(1, [-1, 1, 2]), [2, 0, 2])
    (tmp_path / "speeds.txt").write_text("0 4\n1 0\n9 0\n10 4\n")  # no reading for 8 seconds
    odometer = read_speeds(tmp_path)
    assert odometer.distances(2, [1]) == pytest.approx(2)
    with pytest.raises(DataError, match="has no speed between frame 1 and 2"):
        odometer.distances(1, [1])


def gpx(*points):
    inside = "".join(f'<trkpt lat="{lat}" lon="{lon}"><time>2026-05-01T10:00:0{second}Z</time>'
                     f"{extra}</trkpt>" for lat, lon, second, extra in points)
    return ('<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
            f"{inside}</trkseg></trk></gpx>")


def test_a_gpx_track_gives_speeds_from_places_or_its_own(tmp_path):
    (tmp_path / "times.txt").write_text("0.0\n0.5\n1.0\n1.5\n")
    north = 1e-4 * np.pi / 180 * 6_371_000  # metres
    (tmp_path / "track.gpx").write_text(gpx((48, 9, 0, ""), (48.0001, 9, 1, ""),
                                            (48.0002, 9, 2, "")))
    assert read_speeds(tmp_path).distances(1, [1])[0] == pytest.approx(north / 2, rel=1e-4)
    east = 2e-4 * np.pi / 180 * 6_371_000 * np.cos(np.radians(48))
    (tmp_path / "track.gpx").write_text(gpx((48, 9, 0, ""), (48, 9.0002, 1, "")))
    assert read_speeds(tmp_path).distances(1, [1])[0] == pytest.approx(east / 2, rel=1e-4)
    own = "<speed>3.0</speed>"
    (tmp_path / "track.gpx").write_text(gpx((48, 9, 0, own), (48.0001, 9, 1, own)))
    assert read_speeds(tmp_path).distances(1, [1])[0] == pytest.approx(1.5)
    (tmp_path / "track.gpx").write_text("<gpx>")
    with pytest.raises(DataError, match=r"track\.gpx cannot be read as a GPX track with times"):
        read_speeds(tmp_path)


def test_the_rendered_drives_speeds_are_those_of_its_poses(drive):
    raw = KITTIRAWDataset(str(drive), [f"{HELD_OUT} 5 l"], 64, 96, [0, -1, 1], 1)
    odometry = KITTIOdomDataset(str(drive), [f"{SEQUENCE} 5 l"], 64, 96, [0, -1, 1], 1)
    for dataset in (raw, odometry):
        dataset.use_odometers()
    found, expected = raw.load(0)["distances"], odometry.load(0)["distances"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)
    assert (expected > 0.1).all()
    np.testing.assert_array_equal(raw[0]["distances"], found)


def test_a_check_draws_speeds_beside_the_flow(drive, tmp_path, script):
    (tmp_path / "train_files.txt").write_text(f"{TRAIN} l: 1-30\n")
    words = ["check", "--data_path", drive, "--split", tmp_path, "--height", 64, "--width", 96,
             "--num_workers", 0, "--out", tmp_path / "check.png"]
    heights = []
    for more in ([], ["--speeds"]):
        outcome = script("prepare_data", *words, *more)
        assert outcome.status == 0, outcome.err
        with Image.open(tmp_path / "check.png") as picture:
            heights.append(picture.height)
    distances = re.search(r"speed: 0\.\d+ to ([01]\.\d+) m between frames", outcome.out)
    assert 0.5 < float(distances[1]) < 1.2
    correlation = re.search(r"correlation with optical flow (-?[0-9.]+)\n", outcome.out)
    assert float(correlation[1]) > 0.5
    assert heights[1] - heights[0] == 18 + 18 + 240


@pytest.mark.parametrize(("distances", "found"), [
    ([1.0, 1.0, 1.0], "constant, so nothing shows whether"),
    ([3.0, 2.0, 1.0], "correlation with optical flow -1.00. Look at the figure"),
    ([1.0, 2.0, 3.0], "correlation with optical flow 1.00")])
def test_speeds_that_do_not_fit_the_images_are_said(distances, found):
    words = describe_speeds(np.array(distances), np.array([2.0, 4.0, 6.0]))
    assert found in words
    assert ("Look" in words) == ("Look" in found)


def test_training_with_speed_makes_metric_weights(drive, script):
    outcome = script("train", *train_flags(drive, "--velocity_weight", 0.1, "--model_name",
                                           "speed", "--seed", 0))
    assert outcome.status == 0, outcome.err
    assert "--eval_mono --disable_median_scaling" in outcome.out
    weights = drive.parent / "log/speed/models/weights_0"
    camera = read_training_camera(weights, False)
    assert (camera.training, camera.metres) == ("mono+speed", 1.0)
    assert camera.unit().words == "metres (trained with speed)"
    image = drive / TRAIN / "image_02/data/0000000005.jpg"
    outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights,
                     "--no_cuda", "--output_dir", drive.parent / "speed", "--pred_metric_depth")
    assert "depth is metres (trained with speed)" in outcome.out
    assert "unknown scale" not in outcome.out
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split",
                     drive / "splits/tiny", "--load_weights_folder", weights, "--num_workers", 0,
                     "--no_cuda", "--eval_stereo")
    assert outcome.status == 0, outcome.err
    assert "warning" not in outcome.out
    words = ["--data_path", drive, "--eval_split", drive / "splits/tiny", "--load_weights_folder",
             weights, "--num_workers", 0, "--no_cuda", "--eval_mono"]
    said = "--disable_median_scaling evaluates them"
    assert said in script("evaluate_depth", *words).out
    assert said not in script("evaluate_depth", *words, "--disable_median_scaling").out


def test_stereo_and_data_without_speeds_are_refused(drive, tmp_path, script):
    assert "leave out --use_stereo" in one_line(script("train", *train_flags(
        drive, "--velocity_weight", 1, "--use_stereo")), 2)
    (tmp_path / "drive").symlink_to(drive)
    for folder in drive.iterdir():
        if folder.name != "2011_01_01":
            (tmp_path / folder.name).symlink_to(folder)
    date = tmp_path / "2011_01_01"
    for path in (drive / "2011_01_01").rglob("image_0[23]"):
        place = date / path.relative_to(drive / "2011_01_01")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    outcome = script("train", *train_flags(drive, "--velocity_weight", 1, "--data_path", tmp_path,
                                           "--model_name", "no_speed"))
    assert "has no readings of speed, which --velocity_weight needs" in one_line(outcome, 1)


def test_only_training_with_speed_has_metres_without_a_baseline():
    assert TrainingCamera("mono", baseline=0.54).metres is None
    assert TrainingCamera("mono+speed").metres == 1
