"""prepare_data.py video: footage becomes images, intrinsics and split lists."""

import numpy as np
import pytest
import torch
from conftest import one_line
from PIL import Image

from datasets.footage import Footage
from datasets.intrinsics import Intrinsics, read_intrinsics, write_intrinsics
from datasets.splits import parse_line, read_split
from prediction.video import VideoFile
from preparation.optical_flow import mean_flow, small_gray
from preparation.sequences import EARLY, Pace, frames_after_gaps, stretches
from synthetic.render import TRAIN


@pytest.fixture(scope="session")
def frames(drive):
    """Return twenty frames of the drive, (64, 96, 3) uint8, from when the camera moves."""
    paths = sorted((drive / TRAIN / "image_02/data").glob("*.jpg"))[4:24]
    return [np.array(Image.open(path)) for path in paths]


def write_video(path, frames, fps=20, times=None):
    with VideoFile(path, fps) as file:
        for frame, time in zip(frames, times or [None] * len(frames), strict=True):
            file.write(frame, time)
    return path


def targets(out, name):
    return [parse_line(line) for line in read_split(out / f"splits/{name}_files.txt")]


def test_a_video_becomes_images_intrinsics_and_lists(tmp_path, frames, script):
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


def test_a_variable_rate_is_sampled_by_time_stamps(tmp_path, frames, script):
    # 12 frames at 30 a second, then 6 at 10 a second
    expected = [*np.arange(12) / 30, *(0.4 + np.arange(6) / 10)]
    video, out = write_video(tmp_path / "clip.mp4", frames[:18], 30, expected), tmp_path / "out"
    times = [still.time for still in Footage(video)]
    assert times == pytest.approx(expected, abs=1e-3)
    outcome = script("prepare_data", "video", video, "--out", out, "--fps", 10, "--min_flow", 0,
                     "--fov", 70)
    assert outcome.status == 0, outcome.err
    kept = [np.array(Image.open(path)).astype(float)
            for path in sorted((out / "clip").glob("*.jpg"))]
    found = [int(np.argmin([np.abs(image - frame).mean() for frame in frames])) for image in kept]
    assert found == [0, 3, 6, 9, *range(12, 18)]


@pytest.mark.parametrize(("rate", "fps", "jitter", "kept"), [
    (30, 10, 0, 100), (30, 10, 0.2, 100), (10, 10, 0.2, 300), (29.97, 30, 0, 300),
    (25, 10, 0.1, 120), (30, 25, 0, 250)])
def test_a_pace_keeps_its_frames_a_second(rate, fps, jitter, kept):
    times = (np.arange(300) + np.random.uniform(-jitter, jitter, 300)) / rate
    pace = Pace(fps, EARLY / rate)
    chosen = [time for time in times - times[0] if pace.keeps(time)]
    assert len(chosen) == kept
    assert np.diff(chosen).max() < 1 / fps + 1 / rate


def test_nearly_static_frames_are_left_out_and_counted(tmp_path, frames, script):
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


def test_mean_flow_is_the_length_of_a_shift(frames):
    wide = np.array(Image.fromarray(frames[0]).resize((416, 277), Image.Resampling.BICUBIC))
    shifted = np.roll(wide, 5, 1)
    flow = mean_flow(small_gray(to_tensor(wide)), small_gray(to_tensor(shifted)))
    assert flow == pytest.approx(5, abs=1)
    assert mean_flow(small_gray(to_tensor(wide)), small_gray(to_tensor(wide))) < 0.1


@pytest.mark.parametrize("length", [6, 7, 20, 499, 500, 1730])
def test_training_and_validation_samples_share_no_frame(length):
    used = {"train": set(), "val": set()}
    for name, wanted in stretches(length):
        assert len(wanted) > 0
        used[name] |= {frame + offset for frame in wanted for offset in (-1, 0, 1)}
    assert not used["train"] & used["val"]
    assert used["train"] | used["val"] == set(range(length))
    assert 0.05 < len(used["val"]) / length < 0.15 or length < 30


def test_samples_do_not_reach_over_gaps_in_the_frame_numbers(tmp_path, frames, script):
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    for i, frame in zip([*range(0, 20, 2), *range(40, 60, 2)], frames, strict=True):
        Image.fromarray(frame).save(folder / f"f{i}.png")
    outcome = script("prepare_data", "video", folder, "--out", out, "--fov", 70, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert "; no sample reaches over the gaps before 10: frames are missing there" in outcome.out
    found = [frame for name in ("train", "val") for _, frame, _ in targets(out, name)]
    assert sorted(found) == [1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 15, 18]  # 6 and 7 separate the lists
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
def test_a_gap_is_a_clearly_longer_step_or_a_step_back(names, expected, tmp_path):
    for name in names:
        (tmp_path / f"{name}.png").touch()
    assert [path.name for path in frames_after_gaps(Footage(tmp_path))] == expected


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


@pytest.mark.parametrize(("baseline", "is_long"), [(0.54, False), (120, True)])
def test_a_stereo_pair_keeps_its_sides_and_its_baseline(drive, tmp_path, script, baseline,
                                                        is_long):
    out = tmp_path / "out"
    places = [drive / TRAIN / f"image_0{i}/data" for i in (2, 3)]
    outcome = script("prepare_data", "video", "--left", places[0], "--right", places[1],
                     "--baseline", baseline, "--fov", 80, "--out", out, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert ("warning: --baseline: a baseline of 120 metres" in outcome.err) == is_long
    (folder,) = (path for path in out.iterdir() if path.name != "splits")
    for side, own, other in ("left", *places), ("right", *places[::-1]):
        last = np.array(Image.open(folder / side / "0000000030.jpg")).astype(float)
        here, there = (np.abs(last - np.array(Image.open(place / "0000000030.jpg"))).mean()
                       for place in (own, other))
        assert here < there / 2
    assert read_intrinsics(folder / "intrinsics.json").baseline == baseline
    assert {side for _, _, side in targets(out, "train")} == {"l", "r"}


def test_the_intrinsics_file_of_a_folder_is_used(tmp_path, frames, script):
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
    assert "is for images of 200x100, but" in one_line(outcome, status=1)


def test_an_unknown_field_of_view_is_assumed_with_a_warning(tmp_path, frames, script):
    video = write_video(tmp_path / "clip.mp4", frames)
    outcome = script("prepare_data", "video", video, "--out", tmp_path / "out", "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    assert "field of view is unknown; 60 degrees are assumed" in outcome.err


@pytest.mark.parametrize(("words", "found", "status"), [
    (["--size", "640x190"], "640x190 is not in multiples of 32 from 64 on; for example 640x19", 2),
    (["--size", "big"], "'big' is not a size; expected WxH", 2),
    (["--fov", "180"], "sees less than 180 degrees", 2),
    (["--baseline", "1"], "--baseline belongs to a stereo pair", 2),
    (["--left", "x"], "needs --left, --right and --baseline", 2),
    (["--intrinsics", "0.5", "1", "0.5", "0.5"], "focal lengths are in pixels", 1),
    (["--fps", "1", "--fov", "80"], "1 of 1 frames move, and 6 are needed", 1)])
def test_wrong_flags_get_one_line_and_no_files(tmp_path, frames, script, words, found, status):
    video = write_video(tmp_path / "clip.mp4", frames)
    outcome = script("prepare_data", "video", video, "--out", tmp_path / "out", *words)
    assert found in one_line(outcome, status)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_broken_footage_gets_one_line_and_no_files(tmp_path, frames, script):
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


def test_a_turned_photo_is_prepared_upright_once(tmp_path, frames, script):
    (tmp_path / "turned").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"turned/{i}.jpg", exif=exif)
    outcome = script("prepare_data", "video", tmp_path / "turned", "--out", tmp_path / "out",
                     "--fov", 60, "--min_flow", 0)
    assert outcome.status == 0, outcome.err
    with Image.open(tmp_path / "out/turned/0000000000.jpg") as image:
        assert (image.size, dict(image.getexif())) == ((64, 96), {})
        found = np.array(image).astype(float)
    upright = np.rot90(frames[0], -1)
    assert np.abs(found - upright).mean() < np.abs(found - np.rot90(frames[0])).mean() / 2
    camera = read_intrinsics(tmp_path / "out/turned/intrinsics.json")
    assert (camera.width, camera.height) == (64, 96)


def test_footage_of_several_sizes_or_frame_rates_is_an_error(tmp_path, frames, script):
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


def test_stereo_pairs_of_different_frame_numbers_are_an_error(tmp_path, frames, script):
    for side, missing in (("left", 3), ("right", 5)):
        (tmp_path / side).mkdir()
        for i, frame in enumerate(frames):
            if i != missing:
                Image.fromarray(frame).save(tmp_path / side / f"{i:03d}.png")
    outcome = script("prepare_data", "video", "--left", tmp_path / "left", "--right",
                     tmp_path / "right", "--baseline", 1, "--fov", 80, "--out", tmp_path / "out")
    assert "would be a pair, but have different numbers" in one_line(outcome, 1)
