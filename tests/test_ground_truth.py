"""gt_depths.npz: written without pickles, the original's file read, a bad one refused."""
import io
import pickle
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from conftest import SHARED, Malicious, figures, needs_shared

from datasets.ground_truth import export_gt_depths, load_gt_depths, load_or_export_gt_depths
from datasets.synthetic import HELD_OUT
from utils import DataError

RAW = SHARED / "real" / "kitti_raw"


def object_array(maps):
    array = np.empty(len(maps), object)
    array[:] = maps
    return array


@pytest.fixture
def eigen_12(tmp_path):
    """A split folder of the 12 true Eigen frames."""
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


def test_ground_truth_of_another_list_is_refused(drive):
    split = drive / "splits" / "reordered"
    split.mkdir()
    for frames in ("5 6", "6 5"):
        (split / "test_files.txt").write_text(f"{HELD_OUT} l: {frames}\n")
        if frames == "5 6":
            export_gt_depths(drive, str(split))
            assert len(load_or_export_gt_depths(drive, str(split))) == 2
    with pytest.raises(DataError, match=r"of another list.*run export_gt_depth\.py again"):
        load_or_export_gt_depths(drive, str(split))


def test_the_benchmarks_ground_truth_is_not_to_be_had(drive):
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


@needs_shared
def test_a_missing_scan_is_named_and_nothing_is_written(eigen_12, tmp_path):
    partial = tmp_path / "raw"
    shutil.copytree(RAW / "2011_09_26", partial / "2011_09_26", ignore=lambda _, names: {
        name for name in names if name in ("0000000014.bin", "image_02", "image_03")})
    with pytest.raises(DataError, match=r"0000000014\.bin is missing.*line 2"):
        export_gt_depths(partial, str(eigen_12))
    assert [path.name for path in eigen_12.iterdir()] == ["test_files.txt"]


def write_original(path, data, protocol):
    """Write data.npy in a zip with an object array pickled as numpy of that protocol's time did."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": data.shape})
    pickle.dump(data, buffer, protocol=protocol)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", buffer.getvalue())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("shapes", [[(4, 5), (3, 5)], [(4, 5), (4, 5)]], ids=["ragged", "equal"])
def test_the_originals_file_is_read(tmp_path, shapes, protocol):
    maps = [np.random.rand(*shape).astype(np.float32) for shape in shapes]
    write_original(tmp_path / "gt_depths.npz", object_array(maps), protocol)
    for found, expected in zip(load_gt_depths(tmp_path / "gt_depths.npz"), maps, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_originals_file_is_read_as_numpy_writes_it_now(tmp_path):
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
    with pytest.raises(DataError, match="other things than depth maps"):
        load_gt_depths(tmp_path / "gt_depths.npz")
