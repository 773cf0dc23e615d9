"""metrics/boundaries.py against hand values."""
import math

import numpy as np
import pytest

from metrics.boundaries import THRESHOLDS, boundary_f1


def wall(column, near=10.0, far=20.0):
    """Return the depth of a near wall that ends at a column, before a far one."""
    depth = np.full((6, 12), near)
    depth[:, column:] = far
    return depth


def test_the_thresholds_are_ten_from_1_05_to_1_25():
    assert len(THRESHOLDS) == 10
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (1.05, 1.25)


def test_identical_maps_with_edges_have_f1_of_1():
    depth = np.random.default_rng(0).uniform(1, 60, (20, 30))
    assert boundary_f1(depth, depth) == 1
    assert boundary_f1(wall(5), wall(5)) == 1


def test_no_scale_changes_the_boundary_f1():
    gt, pred = np.random.default_rng(0).uniform(1, 60, (2, 20, 30))
    assert boundary_f1(gt, 7 * pred) == pytest.approx(boundary_f1(gt, pred))


def test_a_boundary_one_pixel_off_is_missed():
    assert boundary_f1(wall(5), wall(6)) == 0


def test_half_of_the_boundaries_give_the_hand_value():
    # P = 1, R = 1 / 2
    gt = np.full((1, 9), 10.0)
    gt[:, 3:6] = 20
    pred = np.full((1, 9), 10.0)
    pred[:, 3:] = 20
    assert boundary_f1(gt, pred) == pytest.approx(2 / 3)


def test_larger_thresholds_weigh_more():
    # the predicted step of 1.15 is a boundary at the five smaller thresholds
    expected = THRESHOLDS[:5].sum() / THRESHOLDS.sum()
    assert boundary_f1(wall(5), wall(5, far=11.5)) == pytest.approx(expected)
    assert expected < 0.5


def test_a_boundary_towards_the_wrong_side_is_wrong():
    assert boundary_f1(wall(5), wall(5, near=20, far=10)) == 0


def test_pixels_without_truth_have_no_boundary():
    gt, pred = wall(5), wall(8)
    gt[:, 7:9] = 0  # hides the step of the prediction
    gt[:, 4] = 0    # and its own
    assert math.isnan(boundary_f1(gt, pred))
    assert math.isnan(boundary_f1(np.full((4, 4), 5.0), pred[:4, :4]))
