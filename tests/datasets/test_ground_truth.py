"""gt_depths.npz: written without pickles, read in both formats, refused if broken."""
import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
from conftest import HEIGHT, ROOT, SHARED, WIDTH, Malicious, figures, needs_shared

from datasets.ground_truth import (
    export_gt_depths,
    load_ground_truth,
    load_gt_depths,
)
from datasets.splits import read_split
from kitti_utils import generate_depth_map
from runtime.errors import DataError
from synthetic.render import HELD_OUT

RAW = SHARED / "real" / "kitti_raw"


def loaded(data_path, split):
    """Load the ground truth of a split folder."""
    return load_ground_truth(data_path, str(split), read_split(split / "test_files.txt"))


def object_array(maps):
    array = np.empty(len(maps), object)
    array[:] = maps
    return array


@pytest.fixture
def eigen_12(tmp_path):
    """Write a split folder of the 12 real Eigen frames."""
    split = tmp_path / "eigen_12"
    split.mkdir()
    (split / "test_files.txt").write_text("\n".join(figures("evaluate_real.json")["lines"]) + "\n")
    return split


@needs_shared
def test_exported_maps_have_the_published_counts_and_sums(eigen_12):
    path = export_gt_depths(RAW, str(eigen_12))
    depths = load_gt_depths(path)
    for depth, expected in zip(depths, figures("evaluate_real.json")["gt"], strict=True):
        assert list(depth.shape) == expected["shape"]
        assert abs((depth > 0).sum() - expected["pixels"]) <= 2
        assert depth.sum(dtype=float) == pytest.approx(expected["sum"], rel=1e-3)
        assert depth[depth > 0].min() == pytest.approx(expected["min"], rel=1e-3)
        assert depth.max() == pytest.approx(expected["max"], rel=1e-3)
    np.load(path, allow_pickle=False)["depth_000000"]  # no pickle inside


@pytest.fixture
def five(drive, tmp_path):
    """Write a split folder of five frames of the drive, out of order."""
    (tmp_path / "five").mkdir()
    (tmp_path / "five" / "test_files.txt").write_text(f"{HELD_OUT} l: 9 3-5 2\n")
    return tmp_path / "five"


def test_any_number_of_processes_writes_the_same_file(drive, five):
    written = [export_gt_depths(drive, str(five), workers).read_bytes() for workers in (0, 1, 3)]
    assert written[0] == written[1] == written[2]


def test_the_npz_has_the_maps_in_the_order_of_the_list(drive, five):
    path = export_gt_depths(drive, str(five), num_workers=2)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as maps:
        assert sorted(maps.files) == [*(f"depth_{i:06d}" for i in range(5)), "lines"]
        assert list(maps["lines"]) == [f"{HELD_OUT} {frame} l" for frame in (9, 3, 4, 5, 2)]
        for i, frame in enumerate((9, 3, 4, 5, 2)):
            scan = drive / HELD_OUT / f"velodyne_points/data/{frame:010d}.bin"
            expected = generate_depth_map((drive / HELD_OUT).parent, scan, vel_depth=True)
            assert expected.shape == (HEIGHT, WIDTH)
            np.testing.assert_array_equal(maps[f"depth_{i:06d}"], expected)


def test_the_error_is_the_same_with_and_without_workers(drive, five):
    (five / "test_files.txt").write_text(f"{HELD_OUT} l: 2-4 9999 5\n")
    lines = set()
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            export_gt_depths(drive, str(five), workers)
        lines.add(str(caught.value))
    (line,) = lines
    assert "0000009999.bin is missing" in line
    assert line.endswith("test_files.txt, line 1)")
    assert not (five / "gt_depths.npz").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_an_interrupted_export_leaves_no_process_and_no_file(drive, five):
    (five / "test_files.txt").write_text(f"{HELD_OUT} l: 2-9\n" * 10_000)
    with (five / "err").open("w") as err:
        running = subprocess.Popen(
            [sys.executable, "export_gt_depth.py", "--data_path", drive, "--split", five,
             "--num_workers", "2"], cwd=ROOT, stderr=err, start_new_session=True,
            env={**os.environ, "COLUMNS": "300"})  # room for the rate in the bar
    deadline = time.monotonic() + 120
    while not re.search(r"\dit/s", (five / "err").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal's Ctrl-C: to it and its workers
    assert running.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
    assert sorted(path.name for path in five.iterdir()) == ["err", "test_files.txt"]


def test_a_map_has_the_nearest_of_all_points_that_fall_on_a_pixel(tmp_path):
    # from a tenth of a millimetre before the camera on; every point, one by one
    (tmp_path / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: 96 64\nR_rect_00: {'1 0 0 0 ' * 2}1\n"
        "P_rect_02: 55 0 48 4 0 60 32 -1 0 0 1 0.003\n")
    (tmp_path / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")
    ahead = 10 ** np.random.uniform(-4, 2, (4000, 1))
    scan = np.random.uniform(-1.2, 1.2, (4000, 4)) * ahead
    scan[:, 3] = abs(scan[:, 3])  # reflectance
    scan[:, 0] = 0.267 + ahead[:, 0] * np.random.choice([1, -1], 4000, p=[0.9, 0.1])
    scan.astype(np.float32).tofile(tmp_path / "scan.bin")
    P = np.array([[55, 0, 48, 4], [0, 60, 32, -1], [0, 0, 1, 0.003]])
    expected = np.zeros((64, 96), np.float32)
    for x, y, z in scan.astype(np.float32)[:, :3].astype(float):
        u, v, w = P @ [-y, -z - 0.08, x - 0.27, 1]
        if x >= 0 and w > 0:
            row, column = round(v / w) - 1, round(u / w) - 1
            if 0 <= row < 64 and 0 <= column < 96:
                expected[row, column] = min(expected[row, column] or np.inf, x)
    assert 300 < (expected > 0).sum() < 3000
    np.testing.assert_array_equal(
        generate_depth_map(tmp_path, tmp_path / "scan.bin", vel_depth=True), expected)


def test_ground_truth_of_another_list_is_refused(drive):
    split = drive / "splits" / "reordered"
    split.mkdir()
    for frames in ("5 6", "6 5"):
        (split / "test_files.txt").write_text(f"{HELD_OUT} l: {frames}\n")
        if frames == "5 6":
            assert len(loaded(drive, split).depths) == 2  # and writes the file
    with pytest.raises(DataError, match=r"another list .*; delete it, and it is made again"):
        loaded(drive, split)


def test_the_benchmarks_ground_truth_cannot_be_exported(drive):
    with pytest.raises(DataError, match="on KITTI's server only"):
        export_gt_depths(drive, "benchmark")


@needs_shared
def test_annotated_depth_is_exported_for_eigen_benchmark(tmp_path):
    split = tmp_path / "eigen_benchmark"
    split.mkdir()
    (split / "test_files.txt").write_text("2011_09_26/2011_09_26_drive_0001_sync l: 5 25\n")
    depths = load_gt_depths(export_gt_depths(RAW, str(split)))
    for depth, frame in zip(depths, (5, 25), strict=True):
        png = cv2.imread(str(RAW / "2011_09_26/2011_09_26_drive_0001_sync/proj_depth/groundtruth"
                             / f"image_02/{frame:010d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(depth, png.astype(np.float32) / 256)


@pytest.mark.parametrize("layout", ["day/day_drive_1", "train/day_drive_1", "val/day_drive_1"])
def test_annotated_depth_is_found_in_either_of_kittis_layouts(tmp_path, layout):
    split = tmp_path / "eigen_benchmark"
    split.mkdir()
    (split / "test_files.txt").write_text("day/day_drive_1 l: 7\nday/day_drive_1 r: 7\n")
    for camera in (2, 3):
        place = tmp_path / layout / f"proj_depth/groundtruth/image_0{camera}"
        place.mkdir(parents=True)
        cv2.imwrite(str(place / "0000000007.png"), np.full((4, 6), 256 * camera, np.uint16))
    depths, eigen, *_ = loaded(tmp_path, split)
    assert [depth.tolist() for depth in depths] == [[[camera] * 6] * 4 for camera in (2.0, 3.0)]
    assert not eigen


def test_a_missing_file_is_named_with_its_download_and_command(tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    for name, words in (
            ("eigen_benchmark", r"day/day_drive_1/proj_depth.*0000000007\.png is missing.*"
             r"data_depth_annotated\.zip \(14 GB.*unzip data_depth_annotated\.zip -d '.*my data'"),
            ("mine", r"0000000007\.bin is missing; it is in day_drive_1\.zip.*175 GB.*"
             r"python prepare_data\.py kitti --data_path '.*my data' --download \(")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_files.txt").write_text("day/day_drive_1 7 l\n")
        with pytest.raises(DataError, match=words):
            loaded(data, tmp_path / name)
    with pytest.raises(DataError, match="--download --split eigen"):
        export_gt_depths(data, "eigen")


def pngs(tmp_path, *names):
    """Write a split whose ground truth is 1, 2, ... m in PNGs of these names."""
    (tmp_path / "test_files.txt").write_text(f"mine: 0-{len(names) - 1}\n")
    (tmp_path / "gt_depths").mkdir()
    for metres, name in enumerate(names, 1):
        cv2.imwrite(str(tmp_path / "gt_depths" / name), np.full((4, 6), 256 * metres, np.uint16))


def test_pngs_beside_a_list_are_read_in_the_order_of_their_names(tmp_path):
    pngs(tmp_path, "frame_2.png", "frame_9.png", "frame_10.png")
    (tmp_path / "gt_depths/._frame_2.png").touch()  # of macOS
    np.savez(tmp_path / "gt_depths.npz", depth_000000=np.zeros((4, 6)))  # the PNGs come first
    depths, eigen, source, *_ = loaded("nowhere", tmp_path)
    assert [depth[0, 0] for depth in depths] == [1, 2, 3]
    assert not eigen
    assert source == tmp_path / "gt_depths"


def test_too_few_pngs_and_pngs_of_8_bits_are_refused(tmp_path):
    pngs(tmp_path, "1.png", "2.png")
    cv2.imwrite(str(tmp_path / "gt_depths/2.png"), np.full((4, 6), 20, np.uint8))
    with pytest.raises(DataError, match=r"2\.png has 8 bits; a depth PNG has 16"):
        loaded("nowhere", tmp_path)
    (tmp_path / "gt_depths/2.png").unlink()
    with pytest.raises(DataError, match="has 1 PNG for the 2 lines"):
        loaded("nowhere", tmp_path)


@needs_shared
def test_a_missing_scan_is_named_and_nothing_is_written(eigen_12, tmp_path):
    partial = tmp_path / "raw"
    shutil.copytree(RAW / "2011_09_26", partial / "2011_09_26", ignore=lambda _, names: {
        name for name in names if name in ("0000000014.bin", "image_02", "image_03")})
    with pytest.raises(DataError, match=r"0000000014\.bin is missing.*line 2"):
        export_gt_depths(partial, str(eigen_12))
    assert [path.name for path in eigen_12.iterdir()] == ["test_files.txt"]


def write_original(path, data, protocol):
    """Write data.npy in a zip: an object array, pickled by an old protocol as old numpy did."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": data.shape})
    pickle.dump(data, buffer, protocol=protocol)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", buffer.getvalue())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("shapes", [[(4, 5), (3, 5)], [(4, 5), (4, 5)]], ids=["ragged", "equal"])
def test_the_file_of_monodepth2_is_read(tmp_path, shapes, protocol):
    maps = [np.random.rand(*shape).astype(np.float32) for shape in shapes]
    write_original(tmp_path / "gt_depths.npz", object_array(maps), protocol)
    for found, expected in zip(load_gt_depths(tmp_path / "gt_depths.npz"), maps, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_the_pickle_of_python_2_is_read_without_a_warning(tmp_path, protocol, recwarn):
    maps = [np.random.rand(*shape).astype(np.float32) for shape in [(4, 5), (3, 5)]]
    write_original(tmp_path / "gt_depths.npz", object_array(maps), protocol)
    for found, expected in zip(load_gt_depths(tmp_path / "gt_depths.npz"), maps, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(recwarn) == 0


@pytest.mark.parametrize("name", ["arr_{}", "depth_{}", "{}"])
def test_maps_come_in_the_order_of_their_numbers(tmp_path, name):
    maps = {name.format(i): np.full((2, 3), i, np.float32) for i in range(12)}
    for shuffled in (maps, dict(sorted(maps.items()))):
        np.savez(tmp_path / "gt.npz", **shuffled)
        assert [depth[0, 0] for depth in load_gt_depths(tmp_path / "gt.npz")] == list(range(12))


def test_the_hidden_files_of_macos_in_an_archive_are_passed_over(tmp_path):
    np.savez(tmp_path / "gt.npz", np.full((2, 3), 5, np.float32))
    with zipfile.ZipFile(tmp_path / "gt.npz", "a") as archive:
        archive.writestr("__MACOSX/._arr_0.npy", b"\0\5\x16\7")
    assert [depth[0, 0] for depth in load_gt_depths(tmp_path / "gt.npz")] == [5]


def test_maps_without_a_number_each_keep_the_archives_order(tmp_path):
    names = ("drive_2_frame_7", "drive_1_frame_8", "drive_1_frame_10")
    np.savez(tmp_path / "gt.npz", **{
        name: np.full((2, 3), i, np.float32) for i, name in enumerate(names)})
    assert [depth[0, 0] for depth in load_gt_depths(tmp_path / "gt.npz")] == [0, 1, 2]


def test_files_of_current_numpy_with_the_originals_name_are_read(tmp_path):
    for name, data in (("objects", object_array([np.ones((2, 3)), np.ones((4, 3))])),
                       ("floats", np.ones((2, 4, 3)))):
        np.savez_compressed(tmp_path / f"{name}.npz", data=data)
        assert len(load_gt_depths(tmp_path / f"{name}.npz")) == 2


def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "gt_depths.npz", data=object_array([Malicious(trap), np.zeros((2, 2))]))
    with pytest.raises(DataError, match=r"asks for (io|_io|builtins)\.open"):
        load_gt_depths(tmp_path / "gt_depths.npz")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap))).close()  # the trap itself works
    assert trap.exists()


def damaged():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, depth_000000=np.random.rand(50, 50))
    content = bytearray(buffer.getvalue())
    content[200:400] = bytes(200)
    return bytes(content)


@pytest.mark.parametrize("content", [b"", b"PK", b"text", damaged()],
                         ids=["empty", "cut", "text", "damaged"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "gt_depths.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"gt_depths\.npz cannot be read.*export_gt_depth\.py"):
        load_gt_depths(tmp_path / "gt_depths.npz")


def test_other_things_than_depth_maps_are_refused(tmp_path):
    np.savez(tmp_path / "gt_depths.npz", data=object_array([np.zeros(3), np.zeros((2, 2))]))
    with pytest.raises(DataError, match="arrays that are not depth maps"):
        load_gt_depths(tmp_path / "gt_depths.npz")
