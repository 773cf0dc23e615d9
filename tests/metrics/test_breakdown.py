"""metrics/breakdown.py against hand values."""
import math

import numpy as np
import pytest

from metrics.breakdown import (
    breakdown,
    edge_errors,
    edge_mask,
    hole_share,
    scale_invariant_log_error,
)


def test_the_scale_invariant_log_error_is_the_spread_of_log_ratios():
    # d is 0 and log 4, so mean(d^2) - mean(d)^2 = log(4)^2 / 4
    gt, pred = np.array([1.0, 2.0]), np.array([1.0, 8.0])
    assert scale_invariant_log_error(gt, pred) == pytest.approx(math.log(4) / 2)


def test_no_scale_of_a_prediction_changes_its_scale_invariant_error():
    gt, pred = np.random.uniform(1, 80, (2, 500))
    assert scale_invariant_log_error(gt, 7 * pred) == pytest.approx(
        scale_invariant_log_error(gt, pred))
    assert scale_invariant_log_error(gt, 7 * gt) == pytest.approx(0, abs=1e-9)


def test_the_scale_invariant_error_is_the_published_pairwise_form():
    # Eigen et al. 2014: 1 / (2 n^2) times the sum over all pairs of (d_i - d_j)^2
    gt, pred = np.random.uniform(1, 80, (2, 40))
    d = np.log(pred) - np.log(gt)
    pairs = ((d[:, None] - d) ** 2).sum() / (2 * 40**2)
    assert scale_invariant_log_error(gt, pred) == pytest.approx(math.sqrt(pairs))


def test_log10_is_the_mean_number_of_powers_of_ten():
    assert breakdown(np.array([1.0, 20.0]), np.array([10.0, 2.0]))["log10"] == pytest.approx(1)
    assert breakdown(np.array([3.0, 5.0]), np.array([3.0, 50.0]))["log10"] == pytest.approx(1 / 2)


def test_holes_are_near_pixels_predicted_at_the_end_of_the_range():
    gt = np.array([5.0, 39.9, 10.0, 20.0, 40.0, 79.0])
    pred = np.array([80.0, 80.0, 79.9, 20.0, 80.0, 80.0], np.float32)
    assert hole_share(gt, pred) == 2 / 4
    assert math.isnan(hole_share(gt[4:], pred[4:]))


def test_errors_by_distance_are_of_each_bands_own_pixels():
    gt = np.array([10.0, 19.9, 20.0, 39.9, 40.0, 80.0])
    pred = np.array([11.0, 19.9, 10.0, 39.9, 60.0, 40.0])
    found = breakdown(gt, pred)
    assert found["abs_rel_0_20"] == pytest.approx(0.05)
    assert found["rmse_0_20"] == pytest.approx(math.sqrt(1 / 2))
    assert found["abs_rel_20_40"] == pytest.approx(0.25)
    assert found["a1_20_40"] == 0.5
    assert found["rmse_40_80"] == pytest.approx(20)  # 80 m is beyond
    assert found["a1_40_80"] == 0


def test_a_band_without_pixels_has_no_errors():
    found = breakdown(np.array([10.0]), np.array([10.0]))
    assert found["abs_rel_0_20"] == 0
    assert all(math.isnan(found[f"{name}_20_40"]) for name in ("abs_rel", "rmse", "a1"))


def dense():
    """Return a wall at 10 m and, from column 5 on, a wall at 13 m."""
    gt = np.full((6, 10), 10.0)
    gt[:, 5:] = 13
    return gt


def test_an_edge_is_a_change_of_dense_depth_over_a_quarter():
    mask = edge_mask(dense())
    assert np.flatnonzero(mask.any(0)).tolist() == [4, 5]
    assert mask[:, 4:6].all()
    gt = dense()
    gt[:, 5:] = 12.4
    assert not edge_mask(gt).any()


def test_a_window_with_a_gap_is_not_dense():
    gt = dense()
    gt[3, 4] = 0
    assert np.flatnonzero(edge_mask(gt).any(1)).tolist() == [0, 1, 5]
    gt[::2] = 0
    assert not edge_mask(gt).any()


def test_errors_at_edges_are_of_edge_pixels_alone():
    gt, pred = np.array([10.0, 13.0, 20.0]), np.array([11.0, 26.0, 90.0])
    found = edge_errors(np.array([True, True, False]), gt, pred)
    assert found == {"edge_abs_rel": pytest.approx(0.55), "edge_a1": 0.5}
    assert all(map(math.isnan, edge_errors(np.zeros(3, bool), gt, pred).values()))
