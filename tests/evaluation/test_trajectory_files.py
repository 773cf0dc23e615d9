"""Trajectories and times are written, read back, and named where they are malformed."""
import numpy as np
import pytest
from made_trajectories import pose, rotation, straight, wandering

from evaluation.trajectory_files import kitti_text, read_times, read_trajectory
from kitti_utils import read_poses
from metrics.trajectory import quaternions, tum_text
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


@pytest.mark.parametrize("first", [0, 5])
def test_the_tum_file_is_read_back_with_the_times_of_the_frames(tmp_path, first):
    poses, times = wandering(40), 1.3e9 + np.arange(40) * 0.1036
    kept = np.flatnonzero(np.arange(40) % 3)
    text = "# time x y z qx qy qz qw\n" + tum_text(times[kept] + 0.004, poses[kept])
    (tmp_path / "tum.txt").write_text(text, "utf-8-sig")
    frames, found = read_trajectory(tmp_path / "tum.txt", first, lambda: (times, "times.txt"))
    assert frames.tolist() == (first + kept).tolist()
    np.testing.assert_allclose(found, poses[kept], atol=1e-6)


@pytest.mark.parametrize(("text", "found"), [
    ("0.1 1 2 3 0 0 0 1\n0.15 1 2 3 0 0 0 1\n", r"line 2: .*TUM's .* within 0\.01 s of .*0\.15"
     r".* from 0\.000000 to 0\.900000 s \(times\.txt\)"),
    ("1000 1 2 3 0 0 0 1\n", "line 1: .*no frame within"), ("nan 1 2 3 0 0 0 1", "no frame within"),
    ("0.2 1 2 3 0 0 0 1\n0.1 1 2 3 0 0 0 1\n", "line 2: found 1 for a frame after 2"),
    ("0.1 1 2 3 0 0 0 0\n", "line 1: .*no unit quaternion"),
    ("0.1 1 2 3 0 0 0 1\n0.2 1 2 3 0 0 1 1\n", "line 2: .*no unit quaternion")])
def test_a_tum_file_that_does_not_fit_is_named(tmp_path, text, found):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=found):
        read_trajectory(tmp_path / "x.txt", 0, lambda: (np.arange(10) / 10, "times.txt"))
    with pytest.raises(DataError, match=r"found 8 numbers, as in TUM's format .*, which needs the"):
        read_trajectory(tmp_path / "x.txt")


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


def test_times_with_a_mark_and_blank_lines_are_read(tmp_path):
    (tmp_path / "times.txt").write_bytes("0.0\r\n1e-1\r\n\r\n".encode("utf-16"))
    assert read_times(tmp_path / "times.txt").tolist() == [0, 0.1]


def test_malformed_times_are_named(tmp_path):
    (tmp_path / "times.txt").write_text("0.0\nnoon\n")
    with pytest.raises(DataError, match="line 2: found 'noon'; expected seconds"):
        read_times(tmp_path / "times.txt")

