"""synthetic/: the rendered street's depth and motion, KITTI's files, the command."""
import io
import os
import re
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.ground_truth import load_ground_truth
from datasets.splits import parse_line, read_split
from kitti_utils import DEPTH_PNG_SCALE, generate_depth_map
from runtime.errors import run
from synthetic import render
from synthetic.street import Drive

HEIGHT, WIDTH = 96, 320
FRAME = 30
K = np.array([[0.58 * WIDTH, 0, 0.5 * WIDTH], [0, 1.92 * HEIGHT, 0.5 * HEIGHT], [0, 0, 1]])
SMALL = {"frames": 16, "height": 64, "width": 96, "seed": 5, "workers": 2}
TRAIN_FRAMES, HELD_OUT_FRAMES = 12, 4  # of these 16
KINDS = {"image_02": "jpg", "image_03": "jpg", "velodyne_points": "bin"}


@pytest.fixture(scope="module")
def drive():
    return Drive(seed=1, frames=40)


@pytest.fixture(scope="module")
def target(drive):
    return drive.render(FRAME, "l", HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Run the command; return the folder that it wrote, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("drive") / "new/drive", io.StringIO()
    flags = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        command(patch, folder, *flags)
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def out(rendered):
    return rendered[0]


def sources(drive):
    """Yield the right and the previous image, each with the motion from the target to it."""
    yield drive.render(FRAME, "r", HEIGHT, WIDTH)[0], shifted(-0.54)
    previous = drive.render(FRAME - 1, "l", HEIGHT, WIDTH)[0]
    yield previous, np.linalg.inv(drive.pose(FRAME - 1)) @ drive.pose(FRAME)


def shifted(x):
    matrix = np.eye(4)
    matrix[0, 3] = x
    return matrix


def warp_error(image, source, depth, source_from_target):
    """Return the median difference, in gray levels, of an image and a source warped onto it."""
    v, u = np.indices(depth.shape)
    points = np.minimum(depth, 1e6) * np.tensordot(np.linalg.inv(K), [u, v, np.ones_like(u)], 1)
    rotation, translation = source_from_target[:3, :3], source_from_target[:3, 3]
    x, y, z = np.tensordot(K @ rotation, points, 1) + (K @ translation)[:, None, None]
    u, v = (x / z).astype(np.float32), (y / z).astype(np.float32)
    warped = cv2.remap(source, u, v, cv2.INTER_LINEAR)
    inside = (u >= 0) & (u <= WIDTH - 1) & (v >= 0) & (v <= HEIGHT - 1)
    return np.median(np.abs(warped.astype(float) - image).mean(2)[inside])


def test_true_depth_and_motion_warp_other_views_onto_the_target(drive, target):
    image, depth = target
    for source, motion in sources(drive):
        error = warp_error(image, source, depth, motion)
        assert error < 2
        assert error < 0.2 * warp_error(image, source, depth, np.eye(4))


@pytest.mark.parametrize("scale", [0.85, 1.15])
def test_wrong_depth_or_motion_warp_worse(drive, target, scale):
    image, depth = target
    for source, motion in sources(drive):
        error = warp_error(image, source, depth, motion)
        wrong = motion.copy()
        wrong[:3, 3] *= scale
        assert error < 0.8 * warp_error(image, source, scale * depth, motion)
        assert error < 0.8 * warp_error(image, source, depth, wrong)
        assert error < 0.8 * warp_error(image, source, depth, shifted(scale - 1) @ motion)


def test_depth_is_exact_at_pixel_centres(drive, target):
    # the lane before the camera is flat ground, whose depth along a pixel's ray is known
    v, u = np.mgrid[HEIGHT - 12:HEIGHT, WIDTH // 2 - 12:WIDTH // 2 + 12]
    rays = np.tensordot(drive.pose(FRAME)[:3, :3] @ np.linalg.inv(K), [u, v, np.ones_like(u)], 1)
    np.testing.assert_allclose(target[1][v, u], -drive.pose(FRAME)[1, 3] / rays[1], rtol=1e-4)


def test_the_sky_is_at_infinity_and_everything_else_in_front(target):
    depth = target[1]
    assert np.isinf(depth).any()
    assert np.isfinite(depth).mean() > 0.8
    assert depth.min() > 1


def test_views_have_texture_almost_everywhere(target):
    grey = target[0].astype(float).mean(2)
    blocks = grey.reshape(HEIGHT // 16, 16, WIDTH // 16, 16).std((1, 3))
    assert (blocks > 2).mean() > 0.95


def test_while_the_camera_stands_only_traffic_changes(drive):
    np.testing.assert_array_equal(drive.pose(0), drive.pose(3))
    (first, first_depth), (last, last_depth) = (drive.render(i, "l", HEIGHT, WIDTH) for i in (0, 3))
    moved = (first_depth != last_depth).astype(np.uint8)
    near_it = cv2.dilate(moved, np.ones((3, 3))) > 0
    changed = (first != last).any(2)
    assert 0 < changed.mean() < 0.1
    assert not (changed & ~near_it).any()
    assert not np.array_equal(drive.pose(3), drive.pose(4))


def test_the_flag_turns_yaws_the_camera_along_the_road():
    yaws = {}
    for flags in ([], ["--turns"]):
        turns = render.parse_args(["out", *flags]).turns
        poses = [Drive(1, 60, turns).pose(i) for i in range(60)]
        yaws[turns] = np.degrees(np.diff([np.arctan2(T[0, 2], T[2, 2]) for T in poses]))
    assert np.abs(yaws[False]).max() < 0.5
    assert -5 < yaws[True].min() < -2 < 2 < yaws[True].max() < 5


def test_turns_keep_depth_and_motion_true():
    drive = Drive(1, 60, turns=True)
    image, depth = drive.render(FRAME, "l", HEIGHT, WIDTH)
    for source, motion in sources(drive):
        error = warp_error(image, source, depth, motion)
        assert error < 3
        assert error < 0.2 * warp_error(image, source, depth, np.eye(4))


def test_equal_seeds_give_equal_images_and_different_seeds_do_not(target):
    image, depth = Drive(seed=1, frames=40).render(FRAME, "l", HEIGHT, WIDTH)
    np.testing.assert_array_equal(image, target[0])
    np.testing.assert_array_equal(depth, target[1])
    other = Drive(seed=2, frames=40).render(FRAME, "l", HEIGHT, WIDTH)[0]
    assert np.abs(other.astype(float) - target[0]).mean() > 10


def test_a_drive_is_written_with_the_same_bytes_each_time(out, tmp_path):
    render.write_drives(tmp_path / "again", **{**SMALL, "workers": 1})
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert all((out / file).read_bytes() == (again / file).read_bytes() for file in files)


def calibration(path):
    pairs = (line.split(":", 1) for line in path.read_text().splitlines())
    return {key: np.array(value.split(), float) for key, value in pairs if key != "calib_time"}


@pytest.mark.parametrize(("camera", "side"), [("02", "l"), ("03", "r")])
def test_scans_projected_as_in_kitti_hit_the_true_depth(out, camera, side):
    cameras = calibration(out / "2011_01_01" / "calib_cam_to_cam.txt")
    velodyne = calibration(out / "2011_01_01" / "calib_velo_to_cam.txt")
    np.testing.assert_array_equal(cameras[f"S_rect_{camera}"], [96, 64])
    to_camera = np.eye(4)
    to_camera[:3] = np.column_stack([velodyne["R"].reshape(3, 3), velodyne["T"]])
    rectify = np.eye(4)
    rectify[:3, :3] = cameras["R_rect_00"].reshape(3, 3)
    scan = np.fromfile(out / render.TRAIN / "velodyne_points/data/0000000007.bin", np.float32)
    points = scan.reshape(-1, 4).astype(float)
    forward = points[:, 0].copy()
    points[:, 3] = 1
    x, y, z = cameras[f"P_rect_{camera}"].reshape(3, 4) @ rectify @ to_camera @ points.T
    u, v = np.rint(x / z).astype(int) - 1, np.rint(y / z).astype(int) - 1
    inside = (u >= 0) & (u < 96) & (v >= 0) & (v < 64)
    depth = Drive(2 * SMALL["seed"], TRAIN_FRAMES).render(7, side, 64, 96)[1]
    off = np.abs(depth[v[inside], u[inside]] / forward[inside] - 1)
    np.testing.assert_allclose(forward, z, atol=1e-5)
    if side == "l":
        assert inside.all()
        assert off.max() < 1e-4
        assert 0.08 < len(points) / depth.size < 0.2
    else:  # points lie between the pixels of the right camera, and some are hidden from it
        assert np.median(off) < 0.03


def test_poses_are_relative_to_the_first_frame(out):
    held_out = Drive(2 * SMALL["seed"] + 1, HELD_OUT_FRAMES)
    rows = np.loadtxt(out / "poses" / "09.txt").reshape(-1, 3, 4)
    assert len(rows) == HELD_OUT_FRAMES
    np.testing.assert_allclose(rows[0], np.eye(3, 4), atol=1e-9)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(held_out.pose(0)[:3] @ np.vstack([row, [0, 0, 0, 1]]),
                                   held_out.pose(i)[:3], atol=1e-6)


def test_every_listed_frame_its_neighbours_and_its_scan_exist(out):
    places = {}
    for name in "train", "val", "test":
        lines = read_split(out / "splits" / "drive" / f"{name}_files.txt")
        assert lines
        for folder, frame, side in map(str.split, lines):
            assert side in ("l" if name == "test" else "lr")
            for kind, ending in KINDS.items():
                for i in range(int(frame) - 1, int(frame) + 2):
                    assert (out / folder / kind / "data" / f"{i:010d}.{ending}").is_file()
        places[name] = {tuple(line.split()[:2]) for line in lines}
    assert not places["val"] & places["test"]
    assert not {folder for folder, _ in places["train"]} & {
        folder for folder, _ in places["val"] | places["test"]}


def test_every_frame_but_the_last_of_the_odometry_sequence_is_listed(out):
    lines = read_split(out / "splits" / "odom" / "test_files_09.txt")
    assert lines == [f"9 {i} l" for i in range(HELD_OUT_FRAMES - 1)]
    for kind, source in ("image_2", "image_02"), ("image_3", "image_03"):
        for i in range(HELD_OUT_FRAMES):
            image = out / "sequences" / "09" / kind / f"{i:06d}.jpg"
            raw = out / render.HELD_OUT / source / "data" / f"{i:010d}.jpg"
            assert image.read_bytes() == raw.read_bytes()
    projection = calibration(out / "sequences" / "09" / "calib.txt")
    np.testing.assert_allclose(projection["P3"][3], -0.54 * 0.58 * 96)


def test_images_are_written_as_rendered(out):
    image, _ = Drive(2 * SMALL["seed"], TRAIN_FRAMES).render(7, "r", 64, 96)
    read = Image.open(out / render.TRAIN / "image_03" / "data" / "0000000007.jpg")
    assert read.size == (96, 64)
    assert np.abs(np.asarray(read, float) - image).mean() < 3


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["synthetic", *map(str, words)])
    run(render.main)


def test_the_command_writes_a_whole_folder_and_prints_the_next_command(rendered):
    out, printed = rendered
    assert re.search(r"python train\.py --data_path \S+drive ", printed)
    assert os.listdir(out.parent) == ["drive"]


def test_a_folder_that_exists_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as exit_:
        command(monkeypatch, tmp_path)
    assert exit_.value.code == 1
    assert "exists; remove it or choose another folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_an_unwritable_folder_gets_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        command(monkeypatch, tmp_path / "file" / "out")
    assert re.fullmatch(r"error: .*/out cannot be written: .+\n", capsys.readouterr().err)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("flag", "value", "found"), [
    ("--frames", 3, "it must be at least 16"), ("--height", 32, "it must be at least 64"),
    ("--width", 200, "to train on it, it must be a multiple of 32")])
def test_impossible_sizes_get_one_line(tmp_path, monkeypatch, capsys, flag, value, found):
    with pytest.raises(SystemExit) as exit_:
        command(monkeypatch, tmp_path / "out", flag, value)
    assert exit_.value.code == 2
    assert f"{flag} is {value}; {found}" in capsys.readouterr().err


def test_the_dense_split_has_depth_maps_that_agree_with_the_scans(out):
    lines = read_split(out / "splits/dense/test_files.txt")
    truth = load_ground_truth(out, str(out / "splits/dense"), lines)
    assert len(lines) == len(truth.depths) > 0
    for line, depth in zip(lines, truth.depths, strict=True):
        folder, frame, _ = parse_line(line)
        scan = out / folder / f"velodyne_points/data/{frame:010d}.bin"
        sampled = generate_depth_map((out / folder).parent, scan)
        hit = sampled > 0
        assert hit.mean() > 0.05
        assert (depth > 0).mean() > 0.5
        np.testing.assert_allclose(depth[hit], sampled[hit], atol=0.6 / DEPTH_PNG_SCALE)
