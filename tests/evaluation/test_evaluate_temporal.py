"""--temporal: depth along a video, with true and with predicted poses."""
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, filled_weights, one_line, read_results
from PIL import Image

from checkpoints.architecture import load_model
from checkpoints.weights import InputFormat, save_weights
from datasets import KITTIRAWDataset
from datasets.splits import parse_line, read_split
from kitti_utils import read_poses
from metrics.temporal import temporal_errors
from metrics.trajectory import tum_text
from networks import Monodepth2
from synthetic.render import HELD_OUT

FLICKER = 0.1 / 2.1  # between a depth and 1.1 times the depth


def call(script, drive, out, *flags, split="dense"):
    """Evaluate on the drive; return the values of the images, or the outcome if it failed."""
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split",
                     drive / "splits" / split, "--num_workers", 0, "--no_cuda", "--eval_out_dir",
                     out, *flags)
    if outcome.status:
        return outcome
    (path,) = out.glob("results_*.json")
    return json.loads(path.read_text())["images"]


def true_depths(drive):
    """Return the true depths of the test images; the sky is at 80 m."""
    paths = sorted((drive / "splits/dense/gt_depths").iterdir())
    depths = np.stack([np.asarray(Image.open(path)) / np.float32(256) for path in paths])
    return np.where(depths > 0, depths, 80).astype(np.float32)


def along_true_poses(script, drive, folder, depths, *flags):
    """Evaluate depths along the true poses."""
    np.save(folder / "disps.npy", 1 / depths)
    return call(script, drive, folder, "--ext_disp_to_eval", folder / "disps.npy", "--temporal",
                drive / "poses/09.txt", *flags)


def test_true_depth_along_true_poses_differs_at_edges_only(drive, tmp_path, script):
    found = along_true_poses(script, drive, tmp_path, true_depths(drive), "--alignment", "none")
    assert found["temporal"][-1] is found["temporal_median"][-1] is None  # no next frame
    assert 0 < np.mean(found["temporal_median"][:-1]) < 0.005
    assert 0.005 < np.mean(found["temporal"][:-1]) < 0.05


def test_a_flickering_depth_has_the_error_of_its_flicker(drive, tmp_path, script):
    depths = true_depths(drive)
    depths[1::2] *= 1.1
    found = along_true_poses(script, drive, tmp_path, depths, "--alignment", "none")
    assert np.mean(found["temporal_median"][:-1]) == pytest.approx(FLICKER, abs=0.01)
    # an alignment takes the flicker away: the depth is compared as it is evaluated
    (tmp_path / "scale").mkdir()
    found = along_true_poses(script, drive, tmp_path / "scale", depths, "--alignment", "scale")
    assert np.mean(found["temporal_median"][:-1]) < 0.01


def test_wrong_poses_and_a_wrong_scale_raise_the_error(drive, tmp_path, script):
    depths = true_depths(drive)
    rows = np.loadtxt(drive / "poses/09.txt")
    np.savetxt(tmp_path / "still.txt", rows[:1].repeat(len(rows), 0))
    found = {name: along_true_poses(script, drive, tmp_path, depth, "--alignment", "none", *flags)
             for name, depth, flags in (("true", depths, []), ("near", depths / 4, []),
                                        ("still", depths, ["--temporal", tmp_path / "still.txt"]))}
    medians = {name: np.mean(each["temporal_median"][:-1]) for name, each in found.items()}
    assert medians["true"] < min(medians["near"], medians["still"]) / 3


def test_all_formats_of_true_poses_give_one_error(drive, tmp_path, script):
    poses = np.loadtxt(drive / "poses/09.txt")
    np.savetxt(tmp_path / "thirteen.txt", np.column_stack([np.arange(len(poses)), poses])[2:])
    text = tum_text(np.arange(len(poses)) / 10, read_poses(drive / "poses/09.txt"))
    (tmp_path / "tum.txt").write_text(text)
    found = [along_true_poses(script, drive, tmp_path, true_depths(drive), "--alignment", "none",
                              *flags)["temporal"][:-1]
             for flags in ([], ["--temporal", tmp_path / "thirteen.txt"],
                           ["--temporal", tmp_path / "tum.txt"])]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-6)


def test_predicted_poses_are_those_of_the_pose_network(drive, weights, tmp_path, script):
    flags = ["--load_weights_folder", weights, "--temporal", "predicted"]
    found = call(script, drive, tmp_path, *flags, "--eval_mono", "--save_pred_disps")
    assert {"pose_encoder.pth", "pose.pth"} < read_results(tmp_path)["weights"]["sha256"].keys()
    disps = np.load(tmp_path / "disps_dense_split.npy")
    lines = read_split(drive / "splits/dense/test_files.txt")
    model, _ = load_model(weights, with_pose=True)
    data = KITTIRAWDataset(drive, lines[:1], HEIGHT, WIDTH, [0, 1], 1)[0]
    with torch.no_grad():
        motion = model.motion(data["color", 0, 0][None], data["color", 1, 0][None])[0].numpy()
    expected = temporal_errors(1 / disps[0], 1 / disps[1], motion, KITTIRAWDataset.K)
    assert {name: found[name][0] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert [value is None for value in found["temporal"]] == [False] * (len(lines) - 1) + [True]
    # in the networks' own unit: no alignment changes it
    again = call(script, drive, tmp_path / "stereo", *flags, "--eval_stereo")
    assert again["temporal"] == found["temporal"]


def write_list(drive, name, text):
    """Write a split of the drive, with a flat ground truth for each of its images."""
    folder = drive / "splits" / name
    folder.mkdir()
    (folder / "test_files.txt").write_text(text)
    count = len(read_split(folder / "test_files.txt"))
    np.savez(folder / "gt_depths.npz", *np.full((count, HEIGHT, WIDTH), 10, np.float32))
    return name


def test_pairs_are_found_in_any_order_and_across_runs(drive, weights, tmp_path, script):
    flags = ["--load_weights_folder", weights, "--temporal", "predicted", "--eval_mono"]
    ordered = call(script, drive, tmp_path / "a", *flags, split=write_list(
        drive, "ordered", f"{HELD_OUT} l: 2-4 7-8\n{HELD_OUT} r: 5\n"))["temporal"]
    assert [value is None for value in ordered] == [False, False, True, False, True, True]
    mixed = call(script, drive, tmp_path / "b", *flags, split=write_list(
        drive, "mixed", f"{HELD_OUT} l: 8 3 7\n{HELD_OUT} r: 5\n{HELD_OUT} l: 2 4\n"))["temporal"]
    np.testing.assert_allclose(np.array(mixed, float)[[4, 1, 5, 2, 0, 3]],
                               np.array(ordered, float), rtol=1e-4)


def test_a_network_of_three_frames_stays_within_its_run(drive, tmp_path, script):
    folder = tmp_path / "run/weights_0"
    model = Monodepth2(frame_ids=[0, -1, 1], pose_model_type="posecnn", pose_model_input="all")
    save_weights(folder, model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, False))
    (folder.parent / "opt.json").write_text('{"pose_model_input": "all", "frame_ids": [0, -1, 1]}')
    flags = ["--load_weights_folder", folder, "--temporal", "predicted", "--eval_mono"]
    found = call(script, drive, tmp_path / "a", *flags, split=write_list(
        drive, "three", f"{HELD_OUT} l: 0-2 9-11\n"))  # the drive has the frames 0 to 11
    assert [value is None for value in found["temporal"]] == [False, False, True] * 2
    outcome = call(script, drive, tmp_path / "b", *flags, split=write_list(
        drive, "two", f"{HELD_OUT} l: 2-4 7-8\n"))
    assert "2 frames are too few to predict their motions" in one_line(outcome, status=1)


def test_masked_pixels_are_left_out(drive, tmp_path, script):
    depths = true_depths(drive)
    depths[1::2, :, WIDTH // 2:] *= 3  # the right half flickers
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, :WIDTH // 2 - 8] = 255
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/mask.png"), mask)
    errors = [np.mean(along_true_poses(script, drive, tmp_path, depths, "--alignment", "none",
                                       *flags)["temporal"][:-1])
              for flags in ([], ["--mask_dir", tmp_path / "masks"])]
    assert errors[1] < 0.05 < 0.2 < errors[0]


def test_lists_and_poses_that_do_not_fit_are_named(drive, tmp_path, script):
    def error(*flags, split="dense", poses=drive / "poses/09.txt"):
        return one_line(call(script, drive, tmp_path, "--eval_mono", "--load_weights_folder",
                             tmp_path / "absent", "--temporal", poses, *flags, split=split), 1)
    apart = write_list(drive, "apart", f"{HELD_OUT} l: 2 4 6\n{HELD_OUT} r: 3 5\n")
    for poses in (drive / "poses/09.txt", "predicted"):
        assert "no two images of --eval_split" in error(split=apart, poses=poses)
    both = write_list(drive, "both", f"{HELD_OUT} l: 2-3\n2011_01_01/other l: 2-3\n")
    assert f"runs of frames in {HELD_OUT} and 2011_01_01/other; " in error(split=both)
    rows = np.loadtxt(drive / "poses/09.txt")
    np.savetxt(tmp_path / "short.txt", rows[:-3])
    last = parse_line(read_split(drive / "splits/dense/test_files.txt")[-1])[1]
    assert f"has no pose of frame {len(rows) - 3} of {HELD_OUT}" in error(
        poses=tmp_path / "short.txt")
    assert last >= len(rows) - 3
    assert "absent.txt is no file; give a trajectory" in error(poses=tmp_path / "absent.txt")


def test_weights_without_a_pose_network_are_refused_first(drive, tmp_path, script):
    filled_weights(tmp_path / "stereo")
    outcome = call(script, drive, tmp_path / "out", "--load_weights_folder", tmp_path / "stereo",
                   "--eval_stereo", "--temporal", "predicted")
    assert "pose.pth" in one_line(outcome, status=1)
    assert "predicting" not in outcome.err


def test_temporal_errors_are_compared(drive, tmp_path, script):
    depths = true_depths(drive)
    for name in "ab":
        (tmp_path / name).mkdir()
        depths[1::2] *= 1.1 if name == "b" else 1
        along_true_poses(script, drive, tmp_path / name, depths, "--alignment", "none")
    out = script("evaluate_depth", "--compare", tmp_path / "a", tmp_path / "b").out
    (row,) = [line for line in out.splitlines() if line.startswith("  temporal_median")]
    assert row.endswith("A is better")
