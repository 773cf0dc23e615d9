"""metrics/clouds.py against hand values."""
import math

import numpy as np
import pytest

from metrics import clouds
from metrics.clouds import back_project, cloud_errors, normal_angle

K = np.array([[0.5, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])


def grid():
    """Return (27, 3) points, one metre apart."""
    return np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)


def test_a_pixel_is_lifted_along_its_ray():
    # 4 x 2 pixels: focal lengths 2 and 2, centre (2, 1) from the image's corner
    points = back_project(np.full((2, 4), 6.0), K)
    assert points.shape == (2, 4, 3)
    assert points[0, 0].tolist() == [6 * (0.5 - 2) / 2, 6 * (0.5 - 1) / 2, 6]
    assert points[1, 3].tolist() == [6 * (3.5 - 2) / 2, 6 * (1.5 - 1) / 2, 6]


def test_identical_clouds_have_no_error():
    errors = cloud_errors(grid(), grid()[::-1])
    assert errors.pop("cloud_chamfer") == 0
    assert len(errors) == 9
    assert set(errors.values()) == {1}


def test_clouds_a_known_shift_apart_have_the_hand_values():
    errors = cloud_errors(grid(), grid() + np.array([0, 0.2, 0]))
    assert errors["cloud_chamfer"] == pytest.approx(0.2)
    assert [errors[f"cloud_f_{cm}cm"] for cm in (10, 25, 50)] == [0, 1, 1]


def test_precision_and_recall_are_those_of_the_two_directions():
    # every true point is found; one of four predicted points is 2 m off
    gt = np.array([[0.0, 0, 5], [1, 0, 5], [2, 0, 5]])
    pred = np.vstack([gt, [[2.0, 2, 5]]])
    errors = cloud_errors(gt, pred)
    assert errors["cloud_precision_10cm"] == 3 / 4
    assert errors["cloud_recall_10cm"] == 1
    assert errors["cloud_f_10cm"] == pytest.approx(2 * 0.75 / 1.75)
    assert errors["cloud_chamfer"] == pytest.approx((2 / 4 + 0) / 2)


def test_large_clouds_are_thinned_evenly():
    points = np.arange(15.0).reshape(5, 3)
    assert clouds._thin(points, 3).tolist() == points[[0, 2, 4]].tolist()
    assert len(clouds._thin(points[:3], 3)) == 3


def plane(degrees):
    """Return the points of a plane, turned about the vertical axis, seen by a camera."""
    rays = back_project(np.ones((5, 7)), K)
    normal = np.array([math.sin(math.radians(degrees)), 0, math.cos(math.radians(degrees))])
    return rays * (10 / (rays @ normal))[..., None]


@pytest.mark.parametrize("degrees", [0, 1e-4, 20, 45])
def test_turned_planes_have_the_angle_of_their_turn(degrees):
    where = np.ones((5, 7), bool)
    assert normal_angle(plane(0), plane(degrees), where) == pytest.approx(degrees, abs=1e-9)
    assert normal_angle(plane(0), 3 * plane(degrees), where) == pytest.approx(degrees, abs=1e-9)


def test_normals_are_unknown_without_surfaces():
    where = np.zeros((5, 7), bool)
    where[0] = where[:, 0] = True  # the border has no neighbours
    assert math.isnan(normal_angle(plane(0), plane(1), where))
