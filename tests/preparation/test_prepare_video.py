"""prepare_data.py video and check: footage becomes a dataset; what is wrong with one is said."""
import shutil

import numpy as np
import pytest
import torch
from conftest import one_line
from PIL import Image

from checkpoints.weights import load_weights
from datasets import Augment, KITTIRAWDataset, collate
from datasets.footage import Footage
from datasets.intrinsics import Intrinsics, read_intrinsics, write_intrinsics
from datasets.splits import parse_line, read_split
from losses import ReprojectionObjective
from networks import Monodepth2
from prediction.video import VideoFile
from preparation.check import predicted
from preparation.optical_flow import mean_flow, small_gray
from preparation.sequences import after_gaps, stretches
from synthetic.render import HELD_OUT, TRAIN


@pytest.fixture(scope="session")
def frames(drive):
    """Twenty frames of the drive, (64, 96, 3) uint8, after it has set off."""
    paths = sorted((drive / TRAIN / "image_02/data").glob("*.jpg"))[4:24]
    return [np.array(Image.open(path)) for path in paths]


def write_video(path, frames, fps=20):
    with VideoFile(path, fps) as file:
        for frame in frames:
            file.write(frame)
    return path


def targets(out, name):
    return [parse_line(line) for line in read_split(out / f"splits/{name}_files.txt")]


def test_a_video_becomes_frames_camera_and_lists(tmp_path, frames, script):
    video, out = write_video(tmp_path / "My drive.mp4", frames), tmp_path / "out"
    outcome = script("prepare_data", "video", video, "--out", out, "--fps", 10, "--min_flow", 0,
                     "--intrinsics", 60, 61, 47, 31)
    assert outcome.status == 0, outcome.err
    assert sorted(path.name for path in out.iterdir()) == ["My_drive", "splits"]
    images = sorted((out / "My_drive").glob("*.jpg"))
    assert [path.stem for path in images] == [f"{i:010d}" for i in range(10)]
    for i, path in enumerate(images):  # 10 of 20 frames a second
        image = np.array(Image.open(path)).astype(float)
        distances = [np.abs(image - frame).mean() for frame in frames]
        assert np.argmin(distances) == 2 * i
        assert distances[2 * i] < np.abs(image - frames[2 * i][..., ::-1]).mean()  # RGB
    assert read_intrinsics(out / "My_drive/intrinsics.json") == Intrinsics(60, 61, 47, 31, 96, 64)
    assert "python train.py --dataset folder --data_path" in outcome.out


def test_frames_that_hardly_move_are_left_out_and_counted(tmp_path, frames, script):
    for i, frame in enumerate(np.repeat(frames[:10], 3, 0)):
        (tmp_path / "slow").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / f"slow/{i:03d}.png")
    outcome = script("prepare_data", "video", tmp_path / "slow", "--out", tmp_path / "out", "--fov",
                     80)
    assert outcome.status == 0, outcome.err
    kept = sorted((tmp_path / "out/slow").glob("*.jpg"))
    gray = [small_gray(to_tensor(frame)) for frame in frames[:10]]
    assert min(map(mean_flow, gray, gray[1:])) > 1  # all of the ten move
    assert len(kept) == 10
    assert "slow: 10 frames written; 20 left out, which move less than 1 px" in outcome.out


def to_tensor(frame):
    return torch.from_numpy(frame).permute(2, 0, 1)


def test_flow_is_the_length_of_a_shift(frames):
    wide = np.array(Image.fromarray(frames[0]).resize((416, 277), Image.Resampling.BICUBIC))
    shifted = np.roll(wide, 5, 1)
    flow = mean_flow(small_gray(to_tensor(wide)), small_gray(to_tensor(shifted)))
    assert flow == pytest.approx(5, abs=1)
    assert mean_flow(small_gray(to_tensor(wide)), small_gray(to_tensor(wide))) < 0.1


@pytest.mark.parametrize("length", [6, 7, 20, 499, 500, 1730])
def test_no_frame_is_in_an_item_of_both_lists_and_none_lacks_a_neighbour(length):
    used = {"train": set(), "val": set()}
    for name, wanted in stretches(length):
        assert len(wanted) > 0
        used[name] |= {frame + offset for frame in wanted for offset in (-1, 0, 1)}
    assert not used["train"] & used["val"]
    assert used["train"] | used["val"] == set(range(length))
    assert 0.05 < len(used["val"]) / length < 0.15 or length < 30


def test_no_sample_reaches_over_a_gap_in_the_numbers_of_a_folders_images(tmp_path, frames, script):
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    for i, frame in zip([*range(0, 20, 2), *range(40, 60, 2)], frames, strict=True):
        Image.fromarray(frame).save(folder / f"f{i}.png")
    outcome = script("prepare_data", "video", folder, "--out", out, "--fov", 70, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert "; no sample reaches over the gaps before 10: frames are missing there" in outcome.out
    found = [frame for name in ("train", "val") for _, frame, _ in targets(out, name)]
    assert sorted(found) == [1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 15, 18]  # 6, 7: between lists
    scattered = tmp_path / "scattered"
    scattered.mkdir()
    for i, frame in zip([0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23], frames, strict=False):
        Image.fromarray(frame).save(scattered / f"{i}.png")
    outcome = script("prepare_data", "video", scattered, "--out", tmp_path / "no", "--fov", 70,
                     "--min_flow", 0)
    assert "give footage without gaps" in one_line(outcome, status=1)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("names", "expected"), [
    (["7", "8", "9", "12", "13"], ["12"]),
    (["a1", "a2", "a3", "b1", "b2"], ["b1"]),               # another recording
    ([str(1403636579763555584 + 50_000_000 * i + 4_000_000 * (i % 3)) for i in range(9)], []),
    (["0_640", "1_640", "2_640"], []),
    (["left", "right"], [])])
def test_a_gap_is_a_step_clearly_longer_than_the_others_or_back(names, expected, tmp_path):
    for name in names:
        (tmp_path / f"{name}.png").touch()
    assert [path.name for path in after_gaps(Footage(tmp_path))] == expected


def test_several_inputs_become_several_sequences(tmp_path, frames, script):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "clip.mp4", frames)
    out = tmp_path / "out"
    outcome = script("prepare_data", "video", tmp_path / "a/clip.mp4", tmp_path / "b/clip.mp4",
                     "--out", out, "--fov", 70, "--size", "128x96", "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert {folder for folder, _, _ in targets(out, "train")} == {"clip", "clip-2"}
    assert {folder for folder, _, _ in targets(out, "val")} == {"clip", "clip-2"}
    with Image.open(out / "clip-2/0000000000.jpg") as image:
        assert image.size == (128, 96)
    camera = read_intrinsics(out / "clip-2/intrinsics.json")
    assert (camera.width, camera.height) == (128, 96)
    assert camera.fx == pytest.approx(camera.fy * 128 / 96 * 64 / 96)


def test_a_stereo_pair_keeps_its_sides_and_its_baseline(drive, tmp_path, script):
    out = tmp_path / "out"
    places = [drive / TRAIN / f"image_0{i}/data" for i in (2, 3)]
    outcome = script("prepare_data", "video", "--left", places[0], "--right", places[1],
                     "--baseline", 0.54, "--fov", 80, "--out", out, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    (folder,) = (path for path in out.iterdir() if path.name != "splits")
    for side, own, other in ("left", *places), ("right", *places[::-1]):
        last = np.array(Image.open(folder / side / "0000000030.jpg")).astype(float)
        here, there = (np.abs(last - np.array(Image.open(place / "0000000030.jpg"))).mean()
                       for place in (own, other))
        assert here < there / 2
    assert read_intrinsics(folder / "intrinsics.json").baseline == 0.54
    assert {side for _, _, side in targets(out, "train")} == {"l", "r"}


def test_a_folders_own_intrinsics_are_taken(tmp_path, frames, script):
    (tmp_path / "walk").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"walk/{i}.png")
    camera = Intrinsics(70, 71, 40, 30, 96, 64)
    write_intrinsics(tmp_path / "walk/intrinsics.json", camera)
    outcome = script("prepare_data", "video", tmp_path / "walk", "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    for i, path in enumerate(sorted((tmp_path / "out/walk").glob("*.jpg"))):  # 2.png before 10.png
        image = np.array(Image.open(path)).astype(float)
        assert np.argmin([np.abs(image - frame).mean() for frame in frames]) == i
    assert read_intrinsics(tmp_path / "out/walk/intrinsics.json") == camera
    assert "warning" not in outcome.err
    write_intrinsics(tmp_path / "walk/intrinsics.json", camera._replace(width=200, height=100))
    outcome = script("prepare_data", "video", tmp_path / "walk", "--out", tmp_path / "more")
    assert "is for images of 200x100, those of" in one_line(outcome, status=1)


def test_a_camera_that_nobody_described_is_warned_of(tmp_path, frames, script):
    video = write_video(tmp_path / "clip.mp4", frames)
    outcome = script("prepare_data", "video", video, "--out", tmp_path / "out", "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert "nothing says what the camera sees; it is taken for 60 degrees wide" in outcome.err


@pytest.mark.parametrize(("words", "found", "status"), [
    (["--size", "640x190"], "640x190 is not of multiples of 32, from 64 on; for example 640x19", 2),
    (["--size", "big"], "'big' is no size; expected WxH", 2),
    (["--fov", "180"], "sees less than 180 degrees", 2),
    (["--baseline", "1"], "--baseline is of a stereo pair", 2),
    (["--left", "x"], "needs --left, --right and --baseline", 2),
    (["--intrinsics", "0.5", "1", "0.5", "0.5"], "focal lengths are in pixels", 1),
    (["--fps", "1", "--fov", "80"], "1 of 1 frames move, and 6 are needed", 1)])
def test_wrong_flags_get_one_line_and_leave_nothing(tmp_path, frames, script, words, found, status):
    video = write_video(tmp_path / "clip.mp4", frames)
    outcome = script("prepare_data", "video", video, "--out", tmp_path / "out", *words)
    assert found in one_line(outcome, status)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_footage_that_is_broken_gets_one_line_and_leaves_nothing(tmp_path, frames, script):
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "12.png").write_bytes(b"no image")
    outcome = script("prepare_data", "video", tmp_path, "--out", tmp_path / "out/new", "--fov", 80)
    assert "12.png cannot be read as an image" in one_line(outcome, 1)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "empty.mp4").write_bytes(b"")
    outcome = script("prepare_data", "video", tmp_path / "empty.mp4", "--out", tmp_path / "out/new")
    assert "empty.mp4 cannot be read as a video (0 bytes)" in one_line(outcome, 1)
    outcome = script("prepare_data", "video", tmp_path, "--out", tmp_path, "--fov", 80)
    assert "exists; remove it or choose another folder" in one_line(outcome, 1)


def check(script, drive, tmp_path, *words):
    return script("prepare_data", "check", "--data_path", drive, "--split", drive / "splits/tiny",
                  "--height", 64, "--width", 96, "--out", tmp_path / "check.png", "--no_cuda",
                  "--num_workers", 0, *words)


def test_a_check_of_whole_data_shows_camera_motion_and_a_picture(drive, weights, tmp_path, script):
    outcome = check(script, drive, tmp_path, "--use_stereo", "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    assert "files: all 6 samples can be read" in outcome.out
    assert "normalised fx 0.5800 fy 1.9200 cx 0.5000 cy 0.5000" in outcome.out
    assert "0% of 6 pairs are nearly static" in outcome.out
    assert "; the wrong way in 0% of 6 pairs\n" in outcome.out
    with Image.open(tmp_path / "check.png") as picture:
        cells, rows = max(1 + 3 + 3, 1 + 3 * 2 + 1), 4 * 2
        assert picture.size == (320 * cells, rows * (18 + 18 + round(64 * 320 / 96)))


def test_a_check_counts_what_is_broken_and_ends_with_1(drive, tmp_path, script):
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
    assert "files: 3 of 4 samples cannot be read; 1 missing files, 1 other faults" in outcome.out
    assert outcome.out.count("0000000010.jpg cannot be read as an image") == 2  # listed, in full
    assert outcome.out.count("0000000014.jpg is missing") == 1
    assert (tmp_path / "check.png").is_file()  # of the sample that is whole


def test_a_check_says_that_a_camera_stands_still(drive, tmp_path, script):
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


def test_a_check_says_that_left_and_right_are_exchanged(drive, tmp_path, script):
    for camera, source in (("image_02", "image_03"), ("image_03", "image_02")):
        shutil.copytree(drive / TRAIN / source, tmp_path / "data" / TRAIN / camera)
    outcome = script("prepare_data", "check", "--data_path", tmp_path / "data", "--split",
                     drive / "splits/tiny", "--height", 64, "--width", 96, "--num_workers", 0,
                     "--use_stereo", "--out", tmp_path / "check.png")
    assert "the wrong way in 100% of 6 pairs. Exchange left and right" in outcome.out


def test_what_a_check_shows_of_weights_is_what_training_makes_of_them(drive, weights):
    frames = [0, -1, 1, "s"]
    dataset = KITTIRAWDataset(drive, [f"{TRAIN} 12 r"], 64, 96, frames, 1, is_train=True)
    pictures = predicted(dataset[0], frames, str(weights), True)
    model = Monodepth2(18, False, frames).eval()
    load_weights(weights, model, ["encoder", "depth", "pose_encoder", "pose"])
    inputs = Augment("cpu", [0, -1, 1]).eval()(collate([dataset[0]]))
    _, views = ReprojectionObjective(frames, [0])(inputs, model(inputs))
    for f in frames[1:]:
        expected = 255 * views["color", f, 0][0].detach().permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pictures[f"{f} warped to 0"], expected, atol=1.01)


@pytest.mark.parametrize(("flags", "found", "status"), [
    (["--height", 100], "--height is 100; it must be a multiple of 32", 2),
    (["--height", 96, "--load_weights_folder", "WEIGHTS"], "add --height 64 --width 96", 1),
    (["--frame_ids", 0], "name a source frame unless there is --use_stereo", 2)])
def test_a_check_of_what_cannot_be_gets_one_line(drive, weights, tmp_path, script, flags, found,
                                                 status):
    flags = [weights if flag == "WEIGHTS" else flag for flag in flags]
    assert found in one_line(check(script, drive, tmp_path, *flags), status)


def test_footage_of_several_sizes_or_rates_is_refused(tmp_path, frames, script):
    (tmp_path / "a").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame[:32] if i == 7 else frame).save(tmp_path / f"a/{i}.png")
    out = ["--out", tmp_path / "out"]
    outcome = script("prepare_data", "video", tmp_path / "a", "--fov", 80, *out)
    assert "7.png has 96x32 pixels, the first frame 96x64" in one_line(outcome, 1)
    left = write_video(tmp_path / "left.mp4", frames)
    right = write_video(tmp_path / "right.mp4", frames, fps=10)
    pair = ["--left", left, "--baseline", 1, "--fov", 80, *out]
    outcome = script("prepare_data", "video", "--right", right, *pair)
    assert "left.mp4 has 20.0 frames a second" in one_line(outcome, 1)
    right = write_video(tmp_path / "right.mp4", frames[:-1])
    outcome = script("prepare_data", "video", "--right", right, *pair)
    assert "right.mp4 ends after 19 frames" in one_line(outcome, 1)
    assert one_line(script("prepare_data", "video", 0, *out), 1)
    assert not (tmp_path / "out").exists()


def test_a_pair_whose_frames_have_other_numbers_is_refused(tmp_path, frames, script):
    for side, missing in (("left", 3), ("right", 5)):
        (tmp_path / side).mkdir()
        for i, frame in enumerate(frames):
            if i != missing:
                Image.fromarray(frame).save(tmp_path / side / f"{i:03d}.png")
    outcome = script("prepare_data", "video", "--left", tmp_path / "left", "--right",
                     tmp_path / "right", "--baseline", 1, "--fov", 80, "--out", tmp_path / "out")
    assert "would be a pair, but have other numbers" in one_line(outcome, 1)
