"""evaluate_pose.py from the command line: the 5-frame error, files, wrong input."""
import inspect
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import HEIGHT, ROOT, SHARED, WIDTH, needs_shared, one_line, train_flags
from PIL import Image

from checkpoints.architecture import load_model
from checkpoints.weights import InputFormat, save_weights
from datasets import KITTIOdomDataset
from evaluate_pose import compute_ate, dump_xyz, evaluate
from evaluation.odometry import five_frame_error
from kitti_utils import read_poses
from metrics.trajectory import chain_motions
from networks import Monodepth2
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
    expected = five_frame_error(read_poses(drive / "poses/09.txt"), motions)
    assert (mean, std) == pytest.approx(expected, abs=5.1e-4)


def test_true_motions_have_no_error(drive):
    poses = read_poses(drive / "poses/09.txt")
    mean, std = five_frame_error(poses, np.linalg.inv(poses[1:]) @ poses[:-1])
    assert mean == pytest.approx(0, abs=1e-6)
    assert std == pytest.approx(0, abs=1e-6)


@needs_shared
def test_a_part_of_a_real_sequence_is_evaluated(weights, tmp_path, script):
    (tmp_path / "06.txt").write_text("6 l: 3-19\n")
    outcome = call(script, SHARED / "real/kitti_odom", weights, tmp_path / "06.txt", "--png",
                   "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    gt = read_poses(SHARED / "real/kitti_odom/poses/06.txt")[3:21]
    mean, _ = five_frame_error(gt, np.load(tmp_path / "poses.npy"))
    assert f"Trajectory error: {mean:.3f}" in outcome.out


@pytest.mark.parametrize("kind", ["posecnn", "shared"])
def test_every_pose_network_of_pairs_is_evaluated(drive, tmp_path, script, kind):
    Trainer(MonodepthOptions().parse(train_flags(
        drive, "--pose_model_type", kind, "--log_dir", tmp_path, "--model_name", kind))).train()
    outcome = call(script, drive, tmp_path / kind / "models/weights_0",
                   drive / "splits/odom/test_files_09.txt")
    assert "Trajectory error: " in outcome.out


@pytest.mark.parametrize(("frames", "kind"), [
    ([0, -1, 1], "separate_resnet"), ([0, 1, 2], "posecnn"), ([0, -1], "shared")])
def test_networks_of_all_frames_are_evaluated(drive, tmp_path, script, frames, kind):
    Trainer(MonodepthOptions().parse(train_flags(
        drive, "--pose_model_input", "all", "--pose_model_type", kind, "--frame_ids", *frames,
        "--log_dir", tmp_path, "--model_name", "all"))).train()
    folder = tmp_path / "all/models/weights_0"
    outcome = call(script, drive, folder, drive / "splits/odom/test_files_09.txt",
                   "--batch_size", 3)
    assert outcome.status == 0, outcome.err
    assert "Trajectory error: " in outcome.out
    motions = np.load(folder / "poses.npy")
    assert motions.shape == (11, 4, 4)
    model = load_model(folder, with_pose=True)[0]
    data = KITTIOdomDataset(drive, ["9 4 l", "9 1 l", "9 9 l"], HEIGHT, WIDTH, frames, 1,
                            img_ext=".png" if "reading .png" in outcome.out else ".jpg")
    at_4, at_1, at_9 = ({f: model.motions({f: item["color", f, 0][None] for f in frames}
                                          )[f][0].detach().numpy() for f in frames[1:]}
                        for item in data)
    if frames == [0, -1]:  # only the frame after sees both
        expected = {3: np.linalg.inv(at_4[-1]), 0: np.linalg.inv(at_1[-1])}
    elif frames == [0, -1, 1]:  # frame 0 has no frame before it
        expected = {4: at_4[1], 0: np.linalg.inv(at_1[-1])}
    else:  # frame 10 has no second frame after it
        expected = {4: at_4[1], 10: at_9[2] @ np.linalg.inv(at_9[1])}
    for i, motion in expected.items():
        np.testing.assert_allclose(motions[i], motion, atol=1e-5)


def test_networks_that_cannot_see_a_motion_are_refused(drive, tmp_path, script):
    folder = tmp_path / "run/weights_0"
    model = Monodepth2(frame_ids=[0, -2, 2], pose_model_type="posecnn", pose_model_input="all")
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, False))
    split = drive / "splits/odom/test_files_09.txt"
    (folder.parent / "opt.json").write_text(
        '{"pose_model_input": "all", "frame_ids": [0, -2, 2]}')
    assert "no two are consecutive" in one_line(call(script, drive, folder, split), status=1)
    (tmp_path / "short.txt").write_text("9 l: 0-1\n")
    (folder.parent / "opt.json").write_text(
        '{"pose_model_input": "all", "frame_ids": [0, 1, 5]}')
    assert "3 frames are too few" in one_line(
        call(script, drive, folder, tmp_path / "short.txt"), status=1)
    (folder.parent / "opt.json").unlink()  # three are taken for 0 -1 1
    assert call(script, drive, folder, split).status == 0
    model = Monodepth2(frame_ids=[0, 1, 2, 3], pose_model_type="posecnn", pose_model_input="all")
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, False))
    assert "takes 4 frames at once, and no opt.json" in one_line(
        call(script, drive, folder, split), status=1)


@pytest.mark.parametrize(("text", "found"), [
    ("9 l: 0-3 5\n", "must list consecutive frames of one sequence"),
    ("9 0 l\n10 1 l\n", "must list consecutive frames of one sequence"),
    ("drive 0 l\n", "names 'drive'"), ("9 l: 0-11\n", "has 12 poses from frame 0 on"),
    ("8 l: 0-3\n", "08.txt is missing"), ("9 zero l\n", "line 1: found the frame 'zero'")])
def test_a_wrong_list_is_named(drive, weights, tmp_path, script, text, found):
    (tmp_path / "list.txt").write_text(text)
    outcome = call(script, drive, weights, tmp_path / "list.txt")
    assert found in one_line(outcome, status=1)
    assert not (tmp_path / "poses.npy").exists()


def test_a_missing_list_is_named(drive, weights, script):
    outcome = call(script, drive, weights, "nowhere")
    assert "--eval_split nowhere does not exist; give odom_9" in one_line(outcome, status=1)
    outcome = call(script, drive, weights, drive / "splits/odom")
    assert "splits/odom is a folder; give odom_9" in one_line(outcome, status=1)


def test_a_missing_data_path_is_named(drive, weights, script):
    outcome = call(script, "nowhere", weights, drive / "splits/odom/test_files_09.txt")
    assert "--data_path nowhere does not exist" in one_line(outcome, status=1)


def test_the_published_lists_are_found_by_name(drive, weights, script):
    # the drive plays sequence 09 but has only its first frames
    found = one_line(call(script, drive, weights, "odom_9"), status=1)
    assert "has 12 poses from frame 0 on; the list asks for 1591" in found
    assert "splits/odom/test_files_09.txt); give a list of fewer frames, or --sequences 9" in found


def test_public_names_are_where_monodepth2_has_them():
    assert compute_ate(np.eye(3), np.eye(3)) == 0
    assert dump_xyz([np.eye(4)]).shape == (2, 3)
    assert list(inspect.signature(evaluate).parameters) == ["opt"]


@pytest.fixture(scope="module")
def evaluated(drive, weights, tmp_path_factory):
    """Evaluate sequence 09 of the drive once; return the folder and the printed text."""
    out = tmp_path_factory.mktemp("evaluated")
    done = subprocess.run([sys.executable, "evaluate_pose.py", "--data_path", drive,
                           "--load_weights_folder", weights, "--sequences", "09", "--num_workers",
                           "0", "--no_cuda", "--eval_out_dir", out], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_sequence_gives_motions_trajectories_and_a_picture(evaluated):
    out, printed = evaluated
    assert sorted(path.name for path in out.iterdir()) == [
        "poses_09.npy", "trajectory_09.json", "trajectory_09.png", "trajectory_09_kitti.txt",
        "trajectory_09_tum.txt"]
    motions = np.load(out / "poses_09.npy")
    assert motions.shape == (11, 4, 4)
    # the weights were trained with stereo: the trajectory is in metres, motions are not
    expected = chain_motions(motions, 5.4)
    np.testing.assert_allclose(read_poses(out / "trajectory_09_kitti.txt"), expected, atol=1e-6)
    tum = np.loadtxt(out / "trajectory_09_tum.txt")
    np.testing.assert_allclose(tum[:, 0], np.arange(12) / 10)
    np.testing.assert_allclose(tum[:, 1:4], expected[:, :3, 3], atol=1e-6)
    assert "frame / 10 s" in printed
    assert "12 of 12 frames, alignment: 7dof (scale " in printed
    with Image.open(out / "trajectory_09.png") as picture:
        assert len(np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_the_written_trajectory_has_the_same_errors(evaluated, drive, script):
    out, printed = evaluated
    outcome = script("evaluate_pose", "--data_path", drive, "--sequences", 9,
                     "--ext_poses_to_eval", out / "trajectory_09_kitti.txt")
    assert outcome.status == 0, outcome.err
    for name in ("Trajectory error", "t_err", "r_err"):
        line = re.search(rf" *{name}.*\n", printed)[0]
        assert line in outcome.out
    for name in ("ATE +", "RPE +"):
        found = [float(re.search(rf"{name}([\d.]+)", text)[1]) for text in (printed, outcome.out)]
        assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_the_written_tum_trajectory_has_the_same_errors(evaluated, drive, script):
    out, _ = evaluated
    printed = {script("evaluate_pose", "--data_path", drive, "--sequences", 9,
                      "--ext_poses_to_eval", out / f"trajectory_09_{kind}.txt").out
               for kind in ("kitti", "tum")}
    assert len(printed) == 1
    assert "ATE " in printed.pop()


def test_the_printed_errors_are_in_the_json(evaluated):
    out, printed = evaluated
    found = json.loads((out / "trajectory_09.json").read_text())
    assert found["alignment"] == "7dof"
    assert found["t_err"] is None  # the drive is shorter than 100 m
    mean, std = re.search(r"Trajectory error: ([\d.]+), std: ([\d.]+)", printed).groups()
    assert found["five_frame_error"] == pytest.approx(float(mean), abs=5e-4)
    assert found["five_frame_error_std"] == pytest.approx(float(std), abs=5e-4)
    assert f"ATE    {found['ate']:10.6f} m" in printed
    assert f"RPE    {found['rpe_deg']:10.6f} deg" in printed


def test_each_of_several_sequences_is_evaluated(drive, weights, tmp_path, script):
    data = tmp_path / "data"
    (data / "poses").mkdir(parents=True)
    for number in ("03", "09"):
        shutil.copytree(drive / "sequences/09", data / "sequences" / number)
        shutil.copy(drive / "poses/09.txt", data / "poses" / f"{number}.txt")
    (data / "sequences/03/times.txt").write_text("".join(f"{i / 8}\n" for i in range(12)))
    outcome = script("evaluate_pose", "--data_path", data, "--load_weights_folder", weights,
                     "--sequences", "3", "09", "--num_workers", 0, "--no_cuda",
                     "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("Trajectory error: ") == 2
    np.testing.assert_array_equal(np.load(tmp_path / "poses_03.npy"),
                                  np.load(tmp_path / "poses_09.npy"))
    assert np.loadtxt(tmp_path / "trajectory_03_tum.txt")[-1, 0] == 11 / 8
    # a sequence without a published list, by its number
    outcome = call(script, data, weights, "odom_03", "--eval_out_dir", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "poses.npy"),
                                  np.load(tmp_path / "poses_09.npy"))


def test_images_of_the_other_extension_are_found_and_reported(drive, weights, tmp_path, script):
    is_png = any((drive / "sequences/09/image_2").glob("*.png"))
    found, other = (".png", []) if is_png else (".jpg", ["--png"])
    outcome = call(script, drive, weights, drive / "splits/odom/test_files_09.txt", *other,
                   "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert f"reading {found} images, as in " in outcome.out


@needs_shared
def test_the_recorded_scores_are_printed(tmp_path, script):
    outcome = script("evaluate_pose", "--data_path", SHARED / "real/kitti_odom", "--eval_split",
                     "odom_10", "--ext_poses_to_eval",
                     SHARED / "real/odom_estimates/example_0_10.txt", "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert "sequence 10, 1197 of 1201 frames, alignment: 7dof (scale " in outcome.out
    for line in ("   t_err    3.297840 %\n", "   r_err    0.304590 deg/100 m\n",
                 "   ATE      6.630158 m\n"):
        assert line in outcome.out
    assert (tmp_path / "trajectory_10.png").is_file()
    found = json.loads((tmp_path / "trajectory_10.json").read_text())
    assert f"{found['t_err']:.6f} {found['r_err']:.6f} {found['ate']:.6f}" == (
        "3.297840 0.304590 6.630158")
    assert f"Trajectory error: {found['five_frame_error']:.3f}, " in outcome.out


def test_two_alignments_of_a_trajectory_keep_their_files(drive, tmp_path, script):
    flags = ["--data_path", drive, "--sequences", 9, "--ext_poses_to_eval", drive / "poses/09.txt",
             "--eval_out_dir", tmp_path]
    names = {"7dof": "trajectory_09", "none": "trajectory_09_none", "6dof": "trajectory_09_6dof"}
    for alignment, name in names.items():
        assert f"{name}.json and {name}.png\n" in script(
            "evaluate_pose", *flags, "--alignment", alignment).out
    for alignment, name in names.items():
        assert json.loads((tmp_path / f"{name}.json").read_text())["alignment"] == alignment
        assert (tmp_path / f"{name}.png").is_file()


@pytest.mark.parametrize(("text", "found"), [
    ("12 1 0 0 0 0 1 0 0 0 0 1 0\n", "has frame 12; of sequence 09 the frames 0 to 11"),
    ("3 1 0 0 0 0 1 0 0 0 0 1 0\n", "has 1 frame; expected two or more"),
    ("1 2\n", "line 1: found 2 numbers; expected 12")])
def test_a_trajectory_that_does_not_fit_is_named(drive, tmp_path, script, text, found):
    (tmp_path / "x.txt").write_text(text)
    outcome = script("evaluate_pose", "--data_path", drive, "--sequences", 9,
                     "--ext_poses_to_eval", tmp_path / "x.txt")
    assert found in one_line(outcome, status=1)


def test_a_wrong_sequence_and_missing_poses_are_named(drive, weights, script):
    assert "odom_x is not a sequence of KITTI odometry" in one_line(
        call(script, drive, weights, "odom_x"), status=1)
    found = one_line(call(script, drive, weights, "odom_10"), status=1)
    assert "poses/10.txt is missing; extract data_odometry_poses.zip" in found
    assert f"prepare_data.py kitti --odometry --download --data_path {drive}" in found
    assert "12.txt is missing; KITTI publishes the poses of sequences 00 to 10" in one_line(
        call(script, drive, weights, "odom_12"), status=1)


@pytest.mark.parametrize(("pose", "found"), [
    ("1 0 0 1e300 0 1 0 0 0 0 1 0", "has a position of 1e+08 m or more"),
    ("1 0 0 0 0 0 0 0 0 0 1 0", "pose 2 is no rotation")])
def test_invalid_true_poses_are_named(tmp_path, script, pose, found):
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/09.txt").write_text(f"1 0 0 0 0 1 0 0 0 0 1 0\n{pose}\n")
    outcome = script("evaluate_pose", "--data_path", tmp_path, "--sequences", 9,
                     "--ext_poses_to_eval", tmp_path / "poses/09.txt")
    assert found in one_line(outcome, status=1)
    assert "09.txt" in outcome.err
