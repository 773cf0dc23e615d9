"""datasets/, kitti_utils.py: published items and depth maps, KITTI's layouts, broken files."""
import os

import numpy as np
import pytest
import torch
from conftest import SHARED, figures, needs_shared
from PIL import Image
from torch.utils.data import DataLoader

from datasets import (
    DATASETS,
    Augment,
    KITTIDepthDataset,
    KITTIOdomDataset,
    KITTIRAWDataset,
    KITTITestDataset,
    MonoDataset,
)
from datasets.batches import collate
from datasets.frame_cache import FrameCache
from datasets.kitti_dataset import read_depth_png
from datasets.splits import read_split
from kitti_utils import (
    generate_depth_map,
    load_velodyne_points,
    nearest_returns,
    read_calib_file,
    read_poses,
)
from runtime.errors import DataError

RAW = SHARED / "real" / "kitti_raw"
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@needs_shared
def test_training_items_equal_the_published_ones_to_1_of_255():
    items = [KITTIRAWDataset(RAW, [f"{DRIVE} 2 l"], 192, 640, [0, -1, 1, "s"], 4, is_train,
                             img_ext=".png").load(0) for is_train in (False, True)]
    exact, fast = (Augment("cpu", [0], num_scales=4).eval()(collate([item])) for item in items)
    for key in fast:
        if key[0] == "color":
            difference = (255 * (fast[key] - exact[key])).round().abs()
            assert difference.max() <= 1
            assert (difference > 0).float().mean() < (0.03 if key[2] else 0.005)
        elif key[0] != "color_aug":
            assert torch.equal(fast[key], exact[key])


@needs_shared
@pytest.mark.parametrize("name", ["map_0", "map_1", "map_2", "cam_z_02", "cam_z_03"])
def test_depth_maps_equal_the_published_ones(name):
    # Faithful 14, 15: eigen's maps are the scanner's forward distance, the others the camera's z
    if name.startswith("map"):
        folder, frame, _ = figures("evaluate_real.json")["lines"][int(name[-1])].split()
        arguments = {"cam": 2, "vel_depth": True}
    else:
        folder, frame, arguments = DRIVE, "0000000002", {"cam": int(name[-1])}
    found = generate_depth_map(RAW / "2011_09_26",
                               RAW / folder / f"velodyne_points/data/{frame}.bin", **arguments)
    expected = np.load(SHARED / "parity" / "gt_depth_maps.npz")[name]
    assert found.dtype == expected.dtype
    assert (found != expected).sum() <= 2


@needs_shared
def test_odometry_and_depth_layouts_are_read():
    odom = KITTIOdomDataset(SHARED / "real/kitti_odom", ["6 1 l"], 64, 96, [0, -1, 1, "s"], 1,
                            img_ext=".png")
    assert odom.load(0)["color", "s", 0].shape == (3, 64, 96)
    assert "depth_gt" not in odom.load(0)
    depth = KITTIDepthDataset(RAW, [f"{DRIVE} 5 l"], 64, 96, [0], 1, img_ext=".png")
    gt = depth.load(0)["depth_gt"]
    assert gt.shape == (1, 375, 1242)
    assert 3 < gt[gt > 0].min() < gt.max() < 90


def test_the_nearest_return_wins_and_pixels_count_from_1():
    # Faithful 15: matlab's pixel (1, 1) is the first; 0.5 rounds to even
    pixels = np.array([[1.0, 1.2, 2.6, 0.4, 4.0], [1.0, 0.9, 3.4, 1.0, 1.0]])
    depth = np.array([7.0, 5.0, 9.0, 1.0, 1.0])
    expected = np.zeros((3, 4))
    expected[0, 0], expected[2, 2] = 5, 9
    np.testing.assert_array_equal(nearest_returns(pixels, depth, (3, 4)), expected)


def test_eigens_depth_is_the_scanners_forward_distance(tmp_path):
    # Faithful 14: a point 10 m ahead of a scanner that stands 0.27 m behind the camera
    (tmp_path / "calib_cam_to_cam.txt").write_text(
        "S_rect_02: 8 4\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 4 0 4 0 0 4 2 0 0 0 1 0\n")
    (tmp_path / "calib_velo_to_cam.txt").write_text(
        "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.27\n")
    np.array([10, 0, 0, 0.5, -10, 0, 0, 0.5], np.float32).tofile(tmp_path / "scan.bin")
    for vel_depth, expected in ((True, 10), (False, 9.73)):
        depth = generate_depth_map(tmp_path, tmp_path / "scan.bin", 2, vel_depth)
        assert depth[1, 3] == pytest.approx(expected)  # (4, 2), counted from 1
        assert (depth > 0).sum() == 1


def write_images(tmp_path, names, size=(96, 64)):
    folder = tmp_path / "drive" / "image_02" / "data"
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.random.randint(0, 256, (*size[::-1], 3), np.uint8)).save(folder / name)
    return folder


def raw(tmp_path, lines=("drive 1 l",), frames=(0, -1, 1), ext=".jpg"):
    return KITTIRAWDataset(tmp_path, list(lines), 64, 96, list(frames), 4, is_train=True,
                           img_ext=ext)


def test_only_images_that_are_read_get_a_pyramid(tmp_path):
    write_images(tmp_path, [f"{i:010d}.jpg" for i in range(3)])
    item = raw(tmp_path).load(0)
    colors = {key for key in item if key[0] == "color"}
    assert colors == {("color", 0, 0), ("color", -1, 0), ("color", 1, 0)}
    assert {item[key].dtype for key in colors} == {torch.uint8}
    assert item["color", 0, 0].shape == (3, 64, 96)
    for pyramids in (False, True):
        inputs = Augment("cpu", [0, 1], num_scales=4, pyramids=pyramids)(collate([item]))
        scales = {f: {key[2] for key in inputs if key[:2] == ("color", f)} for f in (0, -1, 1)}
        rest = {0, 1, 2, 3} if pyramids else {0}
        assert scales == {0: {0, 1, 2, 3}, -1: rest, 1: rest}
        assert inputs["color", 0, 2].shape == (1, 3, 16, 24)
        assert {key[1] for key in inputs if key[0] == "color_aug"} == {0, 1}


def test_intrinsics_are_the_normalised_k_times_the_size_of_each_scale(tmp_path):
    # Faithful 5
    write_images(tmp_path, [f"{i:010d}.jpg" for i in range(3)])
    item = raw(tmp_path).load(0)
    for s in range(4):
        width, height = 96 >> s, 64 >> s
        expected = [[0.58 * width, 0, 0.5 * width, 0], [0, 1.92 * height, 0.5 * height, 0],
                    [0, 0, 1, 0], [0, 0, 0, 1]]
        np.testing.assert_allclose(item["K", s], expected, rtol=1e-6)
        np.testing.assert_allclose(item["K", s] @ item["inv_K", s], np.eye(4), atol=1e-5)


def test_the_side_sets_the_sign_of_the_nominal_baseline(tmp_path):
    # Faithful 6: seen from the right camera, points lie further left
    for side in (2, 3):
        folder = tmp_path / f"drive/image_0{side}/data"
        folder.mkdir(parents=True)
        Image.new("RGB", (96, 64)).save(folder / "0000000000.jpg")
    dataset = raw(tmp_path, ["drive 0 l", "drive 0 r"], (0, "s"))
    assert dataset.load(0)["stereo_T"][0, 3].item() == pytest.approx(-0.1)
    assert dataset.load(1)["stereo_T"][0, 3].item() == pytest.approx(0.1)


def test_a_custom_dataset_needs_only_k_and_image_paths(tmp_path):
    class Mine(MonoDataset):
        K = np.array([[1, 0, 0.4, 0], [0, 2, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

        def get_image_path(self, folder, frame_index, side):
            return str(tmp_path / folder / f"{frame_index}{self.img_ext}")

    (tmp_path / "clip").mkdir()
    Image.new("RGB", (200, 100), (10, 200, 30)).save(tmp_path / "clip" / "7.png")
    item = Mine(tmp_path, ["clip 7"], 64, 96, [0], 2, img_ext=".png").load(0)
    assert item["color", 0, 0][:, 5, 5].tolist() == [10, 200, 30]
    assert item["K", 1][0, 0] == 48
    assert item["K", 1].dtype == torch.float32


def test_a_dataset_may_override_get_color():
    class Mine(KITTIRAWDataset):
        def get_color(self, folder, frame_index, side, do_flip):
            return Image.new("RGB", (10, 10), (frame_index, 0, 0))

    item = Mine("nowhere", ["drive 7 l"], 32, 32, [0, 1], 1, is_train=True).load(0)
    assert item["color", 0, 0][0, 0, 0] == 7
    assert item["color", 1, 0][0, 0, 0] == 8


def test_kittis_test_images_are_single_pngs(tmp_path):
    (tmp_path / "image").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "image" / "0000000003.png")
    dataset = KITTITestDataset(tmp_path, ["image 3"], 64, 96, [0], 1)
    assert dataset.load(0)["color", 0, 0].shape == (3, 64, 96)
    assert DATASETS["kitti_test"] is KITTITestDataset


def test_a_missing_image_is_named_with_its_split_line(tmp_path):
    folder = write_images(tmp_path, ["0000000000.jpg", "0000000001.jpg"])
    split = tmp_path / "train_files.txt"
    split.write_text("# mine\ndrive l: 0\ndrive 1 l\n")
    with pytest.raises(DataError) as caught:
        raw(tmp_path, [read_split(split)[1]]).load(0)
    message = str(caught.value)
    assert str(folder / "0000000002.jpg") in message
    assert "line 3" in message
    assert "\n" not in message


@pytest.mark.parametrize(("dataset", "line", "path", "archive"), [
    ("kitti", "day/drive 7 l", "day/drive/image_02/data/0000000007.jpg", "the drive"),
    ("kitti_odom", "9 7 r", "sequences/09/image_3/000007.jpg", "data_odometry_color.zip"),
    ("kitti_test", "image 7 l", "image/0000000007.png", "data_depth_selection.zip"),
    ("kitti_2015", "training 7 l", "training/image_2/000007_10", "data_scene_flow.zip")])
def test_a_missing_image_is_named_with_its_archive(
        tmp_path, dataset, line, path, archive):
    with pytest.raises(DataError, match=rf"^{tmp_path}/{path}.* is missing; extract {archive}"):
        DATASETS[dataset](tmp_path, [line], 64, 96, [0], 1).load(0)


def test_a_split_line_without_a_side_is_named(tmp_path):
    write_images(tmp_path, ["0000000001.jpg"])
    with pytest.raises(DataError, match=r"the side is missing.*split line 'drive 1'"):
        raw(tmp_path, ["drive 1"], (0,)).load(0)


def test_stereo_needs_sides_in_the_split_lines(tmp_path):
    write_images(tmp_path, ["0000000001.jpg"])
    with pytest.raises(DataError, match="the side is missing"):
        raw(tmp_path, ["drive 1"], (0, "s")).load(0)


def test_a_broken_scan_is_named_with_its_split_line(tmp_path):
    write_images(tmp_path, ["0000000001.jpg"])
    scans = tmp_path / "drive/velodyne_points/data"
    scans.mkdir(parents=True)
    (scans / "0000000001.bin").write_bytes(b"12")
    (tmp_path / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: 8 4\nR_rect_00: {'1 0 0 0 ' * 2}1\nP_rect_02:{' 1' * 12}\n")
    (tmp_path / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    dataset = KITTIRAWDataset(tmp_path, ["drive 1 l"], 64, 96, [0], 1)
    with pytest.raises(DataError, match=r"0000000001\.bin has 2 bytes.*'drive 1 l'"):
        dataset.load(0)


def test_png_images_without_the_flag_png_name_the_flag(tmp_path):
    write_images(tmp_path, [f"{i:010d}.png" for i in range(3)])
    with pytest.raises(DataError, match="pass --png"):
        raw(tmp_path).load(0)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0broken"])
def test_a_broken_image_is_named(tmp_path, content):
    folder = write_images(tmp_path, [f"{i:010d}.jpg" for i in range(3)])
    (folder / "0000000002.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"0000000002\.jpg.*cannot be read as an image"):
        raw(tmp_path).load(0)


def test_a_truncated_image_is_named(tmp_path):
    folder = write_images(tmp_path, [f"{i:010d}.jpg" for i in range(3)])
    path = folder / "0000000000.jpg"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"0000000000\.jpg.*truncated"):
        raw(tmp_path).load(0)


def test_an_error_in_a_worker_is_one_line(tmp_path):
    write_images(tmp_path, ["0000000000.jpg"])
    loader = DataLoader(raw(tmp_path, ["drive 0 l"], (0, 1)), num_workers=1)
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path))
    assert "0000000001.jpg is missing" in message


def test_a_frame_without_a_scan_has_an_empty_depth_map(tmp_path):
    write_images(tmp_path, ["0000000000.jpg"])
    dataset = raw(tmp_path, ["drive 0 l"], (0,))
    assert not dataset.check_depth()
    assert not dataset.get_depth("drive", 0, "l", False).any()
    annotated = KITTIDepthDataset(tmp_path, ["drive 0 l"], 64, 96, [0], 1)
    assert not annotated.get_depth("drive", 0, "l", False).any()


@pytest.mark.parametrize("shape", [(370, 1226), (374, 1238), (376, 1241), (375, 1242)])
def test_depth_maps_of_all_sizes_are_resized_to_the_nearest_pixel(shape):
    depth = np.random.uniform(1, 80, shape).astype(np.float32)
    depth[np.random.rand(*shape) < 0.9] = 0  # as sparse as a scan
    rows, columns = (((np.arange(to) + 0.5) * size / to).astype(int)
                     for size, to in zip(shape, (375, 1242), strict=True))
    expected = depth[rows[:, None], columns]
    resized = raw("nowhere").to_full_res(depth, False)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized, expected)
    np.testing.assert_array_equal(raw("nowhere").to_full_res(depth, True), expected[:, ::-1])


def test_a_calibration_with_missing_keys_is_named(tmp_path):
    (tmp_path / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 3 4\n")
    assert list(read_calib_file(tmp_path / "calib_cam_to_cam.txt")) == ["S_rect_02"]
    with pytest.raises(DataError, match=r"cam_to_cam\.txt has no R_rect_00 of 9 finite numbers"):
        generate_depth_map(tmp_path, tmp_path / "scan.bin")


@pytest.mark.parametrize("size", [0, 12, 15, 17, 68])
def test_a_scan_cut_within_a_point_is_named(tmp_path, size):
    (tmp_path / "scan.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"scan\.bin has {size} bytes"):
        load_velodyne_points(tmp_path / "scan.bin")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scan_with_infinite_or_nan_points_is_named(tmp_path, value):
    np.float32([[1, 2, 3, 0], [4, value, 6, 0]]).tofile(tmp_path / "scan.bin")
    with pytest.raises(DataError, match=r"scan\.bin has points that are not finite; extract"):
        load_velodyne_points(tmp_path / "scan.bin")


POINTS = np.random.default_rng(0).uniform([-80, -80, -5, 0], [80, 80, 5, 1], (1000, 4))


@pytest.mark.parametrize(("content", "found"), [
    (POINTS.tobytes(), "has numbers of 64 bits"),
    (POINTS.astype(np.float32).astype(float).tobytes(), "has numbers of 64 bits"),
    ("".join(f"{value:07.3f} " for value in abs(POINTS).ravel()).encode(), "is text"),
    (b"1.25 0.5 3.125\n", "has 15 bytes of text"),
    ((1000 * POINTS).astype(np.float32).tobytes(), "m as its largest coordinate, which no lidar"),
    (abs(1000 * POINTS).astype(np.int32).tobytes(), "m as its largest coordinate, which no lidar"),
    (POINTS[:, :3].astype(np.float32).tobytes(), "as if its points had 3 or 5 numbers each"),
    (POINTS[:, [0, 1, 2, 3, 3]].astype(np.float32).tobytes(), "had 3 or 5 numbers each")],
    ids=["float64", "widened", "text", "short text", "millimetres", "int32", "3", "5"])
def test_a_scan_of_another_type_is_refused(tmp_path, content, found):
    (tmp_path / "scan.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"scan\.bin .*{found}.*; extract it again, or write"):
        load_velodyne_points(tmp_path / "scan.bin")


def test_a_scan_with_reflectance_of_16_bits_is_read(tmp_path):
    (POINTS * [1, 1, 1, 65535]).astype(np.float32).tofile(tmp_path / "scan.bin")
    points = load_velodyne_points(tmp_path / "scan.bin")
    np.testing.assert_array_equal(points[:, :3], POINTS[:, :3].astype(np.float32))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_calibration_and_poses_of_windows_are_read(tmp_path, encoding):
    (tmp_path / "calib.txt").write_bytes("R: 1 2\r\nT: 3\r\n\r\n".encode(encoding))
    assert {key: value.tolist() for key, value in read_calib_file(tmp_path / "calib.txt").items()
            if value.size} == {"R": [1, 2], "T": [3]}
    (tmp_path / "poses.txt").write_bytes("1 0 0 7 0 1 0 8 0 0 1 9\r\n\r\n".encode(encoding))
    assert read_poses(tmp_path / "poses.txt")[:, :3, 3].tolist() == [[7, 8, 9]]


@pytest.mark.parametrize("size", ["0 4", "-3 4", "1e9 1e9", "nan 4"])
def test_a_calibration_of_an_impossible_image_size_is_named(tmp_path, size):
    (tmp_path / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: {size}\nR_rect_00: {'1 0 0 0 ' * 2}1\nP_rect_02:{' 1' * 12}\n")
    (tmp_path / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    with pytest.raises(DataError, match=r"calib_cam_to_cam\.txt has .*S_rect_02"):
        generate_depth_map(tmp_path, tmp_path / "scan.bin")


def test_frames_of_different_sizes_in_a_sample_are_named(tmp_path):
    folder = write_images(tmp_path, [f"{i:010d}.jpg" for i in range(3)])
    Image.new("RGB", (50, 40)).save(folder / "0000000002.jpg")
    for cache in (None, FrameCache(tmp_path / "cache", 64, 96)):
        dataset = KITTIRAWDataset(tmp_path, ["drive 1 l"], 64, 96, (0, -1, 1), 1, is_train=True)
        dataset.cache = cache
        for _ in range(2):  # from the cache too
            with pytest.raises(DataError, match=r"02\.jpg has 50x40 pixels, frame 0 of its sample"):
                dataset.load(0)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    folder = write_images(tmp_path, ["0000000000.png"])
    Image.new("1", (8001, 8000)).save(folder / "0000000000.png")
    dataset = KITTIRAWDataset(tmp_path, ["drive 0 l"], 64, 96, [0], 1, img_ext=".png")
    with pytest.raises(DataError, match="8001x8000 pixels are more than the 64,000,000 that an"):
        dataset.load(0)
    with pytest.raises(DataError, match="8001x8000 pixels are more"):
        read_depth_png(folder / "0000000000.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_an_image_without_read_permission_is_named(tmp_path):
    folder = write_images(tmp_path, ["0000000000.jpg"])
    (folder / "0000000000.jpg").chmod(0)
    with pytest.raises(DataError, match=r"0000000000\.jpg cannot be read as an image: .*ermission"):
        raw(tmp_path, ["drive 0 l"], (0,)).load(0)


def test_a_folder_in_the_place_of_an_image_is_named(tmp_path):
    folder = write_images(tmp_path, ["0000000001.jpg"])
    (folder / "0000000000.jpg").mkdir()
    with pytest.raises(DataError, match=r"0000000000\.jpg cannot be read as an image: .*directory"):
        raw(tmp_path, ["drive 0 l"], (0,)).load(0)


def test_poses_are_read_as_matrices(tmp_path):
    (tmp_path / "09.txt").write_text("1 0 0 5 0 1 0 6 0 0 1 7\n")
    np.testing.assert_array_equal(read_poses(tmp_path / "09.txt"),
                                  [[[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]])


def test_blank_lines_between_poses_are_skipped(tmp_path):
    (tmp_path / "09.txt").write_text("1 0 0 5 0 1 0 6 0 0 1 7\n\n1 0 0 5 0 1 0 6 0 0 1 7\n\n")
    assert read_poses(tmp_path / "09.txt").shape == (2, 4, 4)


@pytest.mark.parametrize("text", [
    "", "\n", "1 2 3\n", "1 0 0 5 0 1 0 6 0 0 1 x\n", "1 0 0 5 0 1 0 6 0 0 1 nan\n",
    "1 0 0 5 0 1 0 6 0 0 1 7\n1 0 0 5 0 1 0 6 0 0 1\n"])
def test_malformed_poses_are_named(tmp_path, text):
    (tmp_path / "09.txt").write_text(text)
    with pytest.raises(DataError, match=r"09\.txt"):
        read_poses(tmp_path / "09.txt")
