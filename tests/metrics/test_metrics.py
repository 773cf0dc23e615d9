"""Errors of depth and of trajectories against the published figures and hand values."""
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, figures

from metrics import depth
from metrics.trajectory import compute_ate, five_frame_errors

EXACT = {"rel": 1e-6, "abs": 1e-6}


def test_post_processing_is_the_published_one():
    parity = figures("eval.npz")
    found = depth.batch_post_process_disparity(parity["pp_l"], parity["pp_r"])
    np.testing.assert_allclose(found, parity["pp"], atol=1e-6)


def test_the_error_of_a_window_is_the_published_one():
    parity = figures("eval.npz")
    assert compute_ate(parity["ate_gt"], parity["ate_pred"]) == pytest.approx(
        float(parity["ate"]), **EXACT)


def trajectory():
    parity = figures("eval.npz")
    gt = np.tile(np.eye(4), (60, 1, 1))
    gt[:, :3] = parity["traj_gt_global"].reshape(-1, 3, 4)
    return parity, gt


def test_the_5_frame_error_of_a_trajectory_is_the_published_one():
    # Faithful 16: the last windows have 4, 3 and 2 frames, and count
    parity, gt = trajectory()
    errors = five_frame_errors(gt, parity["traj_pred_rel"].astype(float))
    np.testing.assert_allclose(errors, parity["traj_ates"], atol=1e-6)
    assert len(errors) == len(gt) - 1
    assert [errors.mean(), errors.std()] == pytest.approx(parity["traj_mean_std"].tolist(), **EXACT)


def test_a_perfect_trajectory_of_any_scale_has_no_error():
    _, gt = trajectory()
    motions = np.linalg.inv(gt[1:]) @ gt[:-1]
    motions[:, :3, 3] *= 7
    np.testing.assert_allclose(five_frame_errors(gt, motions), 0, atol=1e-9)


def test_the_error_of_a_window_is_divided_by_n_outside_the_root():
    # Faithful 16: off by (-0.5, 0.5) at one of 2 frames, at scale 1; a true RMSE would be 1 / 2
    gt, pred = np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 0, 0], [0.5, 0.5, 0]])
    assert compute_ate(gt, pred) == pytest.approx(np.sqrt(0.5) / 2)


@pytest.mark.parametrize(("flags", "scale_factor", "alignment"), [
    ("eigen/mono", 1.0, "median"), ("eigen/stereo", 5.4, "none"),
    ("eigen/mono_no_median", 1.4, "none"), ("eigen_benchmark/mono", 1.0, "median"),
    ("eigen_benchmark/stereo", 5.4, "none")])
def test_depth_errors_are_the_published_ones(flags, scale_factor, alignment):
    inputs, expected = figures("eval_depth_inputs.npz"), figures("eval_depth.json")[flags]
    for i, per_image in enumerate(expected["per_image"]):
        gt = inputs[f"gt_{i}"]
        mask = depth.eigen_mask(gt) if flags.startswith("eigen/") else gt > 0
        errors, _ = depth.depth_errors(gt, inputs["disps"][i], mask, scale_factor, alignment)
        assert errors.tolist() == pytest.approx(per_image, rel=1e-5, abs=1e-5)


def test_eigens_crop_of_kittis_size_is_the_published_one():
    # Faithful 14
    rows, columns = np.nonzero(depth.eigen_mask(np.full((375, 1242), 10.0)))
    assert (rows.min(), rows.max() + 1) == (153, 371)
    assert (columns.min(), columns.max() + 1) == (44, 1197)


def test_eigens_mask_leaves_out_missing_and_far_depth():
    gt = np.full((375, 1242), 10.0)
    gt[200, 100:104] = [0, 80, 1e-3, 79.9]
    assert depth.eigen_mask(gt)[200, 100:104].tolist() == [False, False, False, True]


def test_disparity_is_resized_and_then_inverted():
    # Faithful 14: the mean of disparities 1 and 1/3 is depth 1.5, that of depths would be 2
    disp = np.array([[1.0, 1 / 3]], np.float32)
    gt = np.ones((1, 3), np.float32)
    resized = cv2.resize(disp, (3, 1))[0, 1]
    errors, _ = depth.depth_errors(gt, disp, np.array([[False, True, False]]), 1.0, "none")
    assert errors[0] == pytest.approx(1 / resized - 1)
    assert 1 / resized == pytest.approx(1.5, abs=1e-5)


def test_median_scaling_gives_the_ratio_and_drops_the_scale():
    # Faithful 14: np.median takes the mean of the middle two
    gt, pred = np.array([[1.0, 2, 4, 100]]), np.array([[2.0, 4, 8, 16]])
    errors, ratio = depth.depth_errors(gt, 1 / pred, gt > 0)
    assert ratio == pytest.approx(3 / 6)
    assert errors[4] == pytest.approx(3 / 4)


def test_predictions_are_clamped_to_80_metres():
    gt, disp = np.array([[79.0]]), np.array([[1e-4]])
    errors, _ = depth.depth_errors(gt, disp, gt > 0, alignment="none")
    assert errors[0] == pytest.approx(1 / 79)


def test_errors_are_the_hand_values():
    errors = depth.compute_errors(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert list(errors) == pytest.approx(
        [0.5, 1.0, np.sqrt(2), np.log(2) / np.sqrt(2), 0.5, 0.5, 0.5])


def test_errors_by_distance_are_means_over_the_pixels_of_all_images():
    near = np.array([5.0, 9.9]), np.array([6.0, 9.9])
    far = np.array([8.0, 10.0, 79.9, 80.0, 200.0]), np.array([4.0, 9.0, 79.9, 40.0, 80.0])
    abs_rel, counts = depth.errors_by_distance([near, far])
    assert counts.tolist() == [3, 1, 0, 0, 0, 0, 0, 1, 2]
    np.testing.assert_allclose(abs_rel, [(0.2 + 0 + 0.5) / 3, 0.1, *[np.nan] * 5, 0, 0.55])


def test_tensors_have_the_errors_of_arrays():
    gt, pred = np.random.uniform(1, 80, (2, 500))
    errors = depth.compute_errors(torch.from_numpy(gt), torch.from_numpy(pred))
    assert all(isinstance(error, torch.Tensor) for error in errors)
    assert [float(error) for error in errors] == pytest.approx(depth.compute_errors(gt, pred))


def test_metrics_are_imported_without_torch():
    code = "import sys, metrics, metrics.breakdown; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
