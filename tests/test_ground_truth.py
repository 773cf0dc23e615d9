"""gt_depths.npz: written without pickles, the original's file read, a bad one refused."""
import pickle
import shutil

import numpy as np
import pytest
from conftest import SHARED, figures, needs_shared

from datasets.ground_truth import export_gt_depths, load_gt_depths
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


@needs_shared
def test_a_missing_scan_is_named_and_nothing_is_written(eigen_12, tmp_path):
    partial = tmp_path / "raw"
    shutil.copytree(RAW / "2011_09_26", partial / "2011_09_26", ignore=lambda _, names: {
        name for name in names if name in ("0000000014.bin", "image_02", "image_03")})
    with pytest.raises(DataError, match=r"0000000014\.bin is missing.*line 2"):
        export_gt_depths(partial, str(eigen_12))
    assert [path.name for path in eigen_12.iterdir()] == ["test_files.txt"]


@pytest.mark.parametrize("shapes", [[(4, 5), (3, 5)], [(4, 5), (4, 5)]], ids=["ragged", "equal"])
def test_the_originals_file_is_read(tmp_path, shapes):
    maps = [np.random.rand(*shape).astype(np.float32) for shape in shapes]
    data = object_array(maps) if len(set(shapes)) > 1 else np.array(maps)
    np.savez_compressed(tmp_path / "gt_depths.npz", data=data)
    for found, expected in zip(load_gt_depths(tmp_path / "gt_depths.npz"), maps, strict=True):
        np.testing.assert_array_equal(found, expected)


class Malicious:
    """Unpickled anywhere, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "gt_depths.npz", data=object_array([Malicious(trap), np.zeros((2, 2))]))
    with pytest.raises(DataError, match=r"asks for (io|_io|builtins)\.open"):
        load_gt_depths(tmp_path / "gt_depths.npz")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap))).close()  # the trap itself works
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"text"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "gt_depths.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"gt_depths\.npz can't be read.*export_gt_depth\.py"):
        load_gt_depths(tmp_path / "gt_depths.npz")


def test_other_things_than_depth_maps_are_refused(tmp_path):
    np.savez(tmp_path / "gt_depths.npz", data=object_array([np.zeros(3), np.zeros((2, 2))]))
    with pytest.raises(DataError, match="other things than depth maps"):
        load_gt_depths(tmp_path / "gt_depths.npz")
