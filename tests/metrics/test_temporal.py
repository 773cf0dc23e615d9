"""metrics/temporal.py against closed forms and the warp of the training."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layers import BackprojectDepth, Project3D
from metrics.temporal import temporal_errors

K = np.array([[0.5, 0, 0.5, 0], [0, 1.0, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SIZE = 24, 40


def moved(x=0.0, y=0.0, z=0.0):
    """Return the motion of a camera whose points shift by this much."""
    motion = np.eye(4)
    motion[:3, 3] = x, y, z
    return motion


def plane(depth):
    return np.full(SIZE, depth)


def test_a_static_camera_and_equal_maps_give_0():
    depth = np.random.default_rng(0).uniform(1, 80, SIZE)
    errors = temporal_errors(depth, depth, np.eye(4), K)
    assert errors == {"temporal": pytest.approx(0, abs=1e-12),
                      "temporal_median": pytest.approx(0, abs=1e-12)}


def test_a_true_plane_ahead_is_consistent():
    errors = temporal_errors(plane(10), plane(9), moved(z=-1), K)
    assert max(errors.values()) < 1e-12


@pytest.mark.parametrize("scale", [0.5, 1.2, 30])
def test_a_scaled_plane_has_the_analytic_error(scale):
    # it is at s Z - m by its motion, and at s (Z - m) in its own map
    Z, m = 10, 1
    errors = temporal_errors(scale * plane(Z), scale * plane(Z - m), moved(z=-m), K)
    expected = m * abs(scale - 1) / (scale * (2 * Z - m) - m)
    assert list(errors.values()) == pytest.approx([expected] * 2)


def test_a_flicker_of_a_tenth_has_the_analytic_error():
    depth = np.random.default_rng(0).uniform(1, 80, SIZE)
    for pair in ((depth, 1.1 * depth), (1.1 * depth, depth)):
        assert temporal_errors(*pair, np.eye(4), K) == pytest.approx(
            {"temporal": 0.1 / 2.1, "temporal_median": 0.1 / 2.1})


def test_no_common_scale_changes_the_error():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(5, 80, (2, *SIZE))
    expected = temporal_errors(a, b, moved(0.2, 0.1, -0.8), K)
    assert temporal_errors(7 * a, 7 * b, moved(1.4, 0.7, -5.6), K) == pytest.approx(expected)


def test_a_pixel_is_compared_where_it_lands():
    # 40 columns with focal length 20: points at 10 m move by 2 columns for 1 m
    ramp = plane(10) + np.arange(SIZE[1])
    errors = temporal_errors(plane(10), ramp, moved(x=1), K)
    landed = ramp[:, 2:]  # the last two columns leave the image
    assert errors["temporal"] == pytest.approx((abs(10 - landed) / (10 + landed)).mean())


def test_pixels_land_where_the_warp_of_training_samples():
    rng = np.random.default_rng(0)
    depth, next_depth = rng.uniform(2, 20, (2, *SIZE))
    angle = 0.05
    motion = moved(0.3, -0.1, -0.5)
    motion[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                      [-np.sin(angle), 0, np.cos(angle)]]
    pixels = torch.from_numpy(K * np.array([[SIZE[1]], [SIZE[0]], [1], [1]]))
    pixels[:2, 2] -= 0.5  # the layers count from the centre of the first pixel
    T = torch.from_numpy(motion)
    points = BackprojectDepth(1, *SIZE).double()(
        torch.from_numpy(depth)[None, None], pixels.inverse()[None])
    grid = Project3D(1, *SIZE)(points, pixels[None], T[None])
    d = F.grid_sample(torch.from_numpy(next_depth)[None, None], grid, padding_mode="border",
                      align_corners=True).flatten()
    z = (T @ points[0])[2]
    edge = torch.tensor(SIZE[::-1]) / (torch.tensor(SIZE[::-1]) - 1)
    found = (grid.abs() < edge).all(-1).flatten() & (z > 0)
    assert 0.5 < found.double().mean() < 1
    expected = ((z - d).abs() / (z + d))[found]
    assert temporal_errors(depth, next_depth, motion, K) == pytest.approx(
        {"temporal": expected.mean().item(), "temporal_median": expected.quantile(0.5).item()},
        rel=1e-6)


def test_what_appears_behind_an_edge_raises_the_mean_alone():
    # a post 2 m away before a wall at 20 m; the camera moves sideways, and the wall shows through
    first, second = plane(20.0), plane(20.0)
    first[:, 18:22], second[:, 8:12] = 2, 2
    errors = temporal_errors(first, second, moved(x=-1), K)
    assert errors["temporal_median"] == pytest.approx(0, abs=1e-12)
    assert errors["temporal"] > 0.05


def test_masked_pixels_do_not_count():
    where = np.zeros(SIZE, bool)
    where[:, :5] = True
    flickering = plane(10.0)
    flickering[:, 5:] = 30
    assert temporal_errors(plane(10), flickering, np.eye(4), K, where)["temporal"] < 1e-12


def test_a_view_of_other_things_has_no_error():
    turned = np.diag([-1.0, 1, -1, 1])
    for motion, where in ((turned, None), (np.eye(4), np.zeros(SIZE, bool))):
        assert np.isnan(list(temporal_errors(plane(1), plane(1), motion, K, where).values())).all()
