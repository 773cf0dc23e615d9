"""evaluate_pose.py from its command line: the 5-frame error, motions on disk, bad input."""
import re

import numpy as np
import pytest
from conftest import SHARED, needs_shared, one_line, train_flags

from datasets.kitti_utils import read_poses
from evaluate_pose import compute_ate, dump_xyz, evaluate
from options import MonodepthOptions
from trainer import Trainer


def call(script, data, weights, split, *flags):
    return script("evaluate_pose", "--data_path", data, "--load_weights_folder", weights,
                  "--eval_split", split, "--num_workers", 0, "--no_cuda", *flags)


def test_a_sequence_gives_the_error_and_its_motions(drive, weights, script):
    outcome = call(script, drive, weights, drive / "splits/odom/test_files_09.txt")
    assert outcome.status == 0, outcome.err
    mean, std = map(float, re.search(
        r"\n   Trajectory error: (\d\.\d{3}), std: (\d\.\d{3})\n", outcome.out).groups())
    motions = np.load(weights / "poses.npy")
    assert motions.shape == (11, 4, 4)
    expected = evaluate(read_poses(drive / "poses/09.txt"), motions)
    assert (mean, std) == pytest.approx(expected, abs=5.1e-4)


def test_true_motions_have_no_error(drive):
    poses = read_poses(drive / "poses/09.txt")
    mean, std = evaluate(poses, np.linalg.inv(poses[1:]) @ poses[:-1])
    assert mean == pytest.approx(0, abs=1e-6)
    assert std == pytest.approx(0, abs=1e-6)


@needs_shared
def test_a_part_of_a_real_sequence_is_evaluated(weights, tmp_path, script):
    (tmp_path / "06.txt").write_text("6 l: 3-19\n")
    outcome = call(script, SHARED / "real/kitti_odom", weights, tmp_path / "06.txt", "--png",
                   "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    gt = read_poses(SHARED / "real/kitti_odom/poses/06.txt")[3:21]
    mean, _ = evaluate(gt, np.load(tmp_path / "poses.npy"))
    assert f"Trajectory error: {mean:.3f}" in outcome.out


@pytest.mark.parametrize("kind", ["posecnn", "shared"])
def test_every_pose_network_of_pairs_is_evaluated(drive, tmp_path, script, kind):
    Trainer(MonodepthOptions().parse(train_flags(
        drive, "--pose_model_type", kind, "--log_dir", tmp_path, "--model_name", kind))).train()
    outcome = call(script, drive, tmp_path / kind / "models/weights_0",
                   drive / "splits/odom/test_files_09.txt")
    assert "Trajectory error: " in outcome.out


def test_a_pose_network_of_all_frames_is_refused(drive, tmp_path, script):
    Trainer(MonodepthOptions().parse(train_flags(
        drive, "--pose_model_input", "all", "--log_dir", tmp_path, "--model_name", "all"))).train()
    outcome = call(script, drive, tmp_path / "all/models/weights_0",
                   drive / "splits/odom/test_files_09.txt")
    assert "takes 3 frames at once" in one_line(outcome, status=1)


@pytest.mark.parametrize(("text", "found"), [
    ("9 l: 0-3 5\n", "must list consecutive frames of one sequence"),
    ("9 0 l\n10 1 l\n", "must list consecutive frames of one sequence"),
    ("drive 0 l\n", "names 'drive'"), ("9 l: 0-11\n", "has 12 poses from frame 0 on"),
    ("8 l: 0-3\n", "08.txt is missing"), ("9 zero l\n", "line 1: found 'zero' for a frame")])
def test_a_wrong_list_is_named(drive, weights, tmp_path, script, text, found):
    (tmp_path / "list.txt").write_text(text)
    outcome = call(script, drive, weights, tmp_path / "list.txt")
    assert found in one_line(outcome, status=1)
    assert not (tmp_path / "poses.npy").exists()


def test_a_missing_list_is_named(drive, weights, script):
    outcome = call(script, drive, weights, "nowhere")
    assert "--eval_split nowhere does not exist; give odom_9" in one_line(outcome, status=1)


def test_a_missing_data_path_is_named(drive, weights, script):
    outcome = call(script, "nowhere", weights, drive / "splits/odom/test_files_09.txt")
    assert "--data_path nowhere does not exist" in one_line(outcome, status=1)


def test_the_published_lists_are_found_by_name(drive, weights, script):
    # the drive plays sequence 09 but has only its first frames
    assert "has 12 poses from frame 0 on; the list asks for 1591" in one_line(
        call(script, drive, weights, "odom_9"), status=1)


def test_public_names_are_where_monodepth2_has_them():
    assert compute_ate(np.eye(3), np.eye(3)) == 0
    assert dump_xyz([np.eye(4)]).shape == (2, 3)
