"""Trajectories and times are written, read back, and named where they are malformed."""
import numpy as np
import pytest
from made_trajectories import pose, rotation, straight, wandering

from evaluation.trajectory_files import (
    kitti_text,
    quaternions,
    read_times,
    read_trajectory,
    tum_text,
)
from kitti_utils import read_poses
from runtime.errors import DataError


def test_the_kitti_file_is_read_back(tmp_path):
    poses = wandering(40)
    path = tmp_path / "kitti.txt"
    path.write_text(kitti_text(poses))
    assert [len(line.split()) for line in path.read_text().splitlines()] == [12] * 40
    frames, found = read_trajectory(path)
    assert frames.tolist() == list(range(40))
    np.testing.assert_allclose(found, poses, atol=1e-6)
    np.testing.assert_array_equal(read_poses(path), found)
    assert read_trajectory(path, first=7)[0].tolist() == list(range(7, 47))


def test_the_tum_file_has_the_same_poses():
    poses = np.concatenate([wandering(20), [pose(rotation(np.pi, axis), [1, 2, 3]) for axis in (
        [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -2, 3])]])
    times = np.arange(len(poses)) / 10
    rows = np.array([line.split() for line in tum_text(times, poses).splitlines()], float)
    np.testing.assert_allclose(rows[:, 0], times)
    np.testing.assert_allclose(rows[:, 1:4], poses[:, :3, 3], atol=1e-6)
    x, y, z, w = rows[:, 4:].T
    turned = np.stack([  # where the quaternion takes the point (1, 0, 0)
        1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], 1)
    np.testing.assert_allclose(turned, poses[:, :3, 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 4:], axis=1), 1, atol=1e-8)


def test_quaternions_of_quarter_turns_are_x_y_z_w():
    half = np.sqrt(0.5)
    poses = np.array([pose(rotation(np.pi / 2, axis), [0, 0, 0]) for axis in np.eye(3)])
    np.testing.assert_allclose(quaternions(poses), np.column_stack([half * np.eye(3), [half] * 3]),
                               atol=1e-12)


def test_a_file_of_13_columns_may_leave_out_frames(tmp_path):
    rows = kitti_text(straight(3)).splitlines()
    (tmp_path / "x.txt").write_text(f"# frames\n4 {rows[0]}\n5.0 {rows[1]}\n\n9 {rows[2]}\n")
    frames, poses = read_trajectory(tmp_path / "x.txt")
    assert frames.tolist() == [4, 5, 9]
    np.testing.assert_allclose(poses, straight(3))


ROW = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(("text", "found"), [
    ("", "has no poses"), (f"{ROW}\n1 2 3\n", "line 2: found 3 numbers; expected 12"),
    ("0.1 1 2 3 0 0 0 1\n", "line 1: found 8 numbers"), (f"{ROW}\n0 {ROW}\n", "after lines of 12"),
    (f"1 {ROW}\n1 {ROW}\n", "line 2: found 1 for a frame after 1"),
    (f"1.5 {ROW}\n", "found 1.5 for a frame"), (f"-1 {ROW}\n", "found -1 for a frame"),
    ("a b c\n", "line 1: found 'a b c'"), (f"nan {ROW}\n", "a number that is not below 1e+08"),
    (ROW.replace("1", "inf"), "a number that is not below 1e+08"),
    (ROW.replace("1", "2"), "pose 1 is no rotation"), (ROW.replace("1", "0"), "no rotation"),
    (f"{ROW}\n-1 0 0 0 0 1 0 0 0 0 1 0\n", "pose 2 is no rotation")])
def test_a_malformed_trajectory_is_named(tmp_path, text, found):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=r"x\.txt") as error:
        read_trajectory(tmp_path / "x.txt")
    assert found in str(error.value)


def test_malformed_times_are_named(tmp_path):
    (tmp_path / "times.txt").write_text("0.0\nnoon\n")
    with pytest.raises(DataError, match="line 2: found 'noon'; expected seconds"):
        read_times(tmp_path / "times.txt")

