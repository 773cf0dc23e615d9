"""Compare layers.py with figures of the published implementation, and with values by hand."""
import math

import pytest
import torch
from conftest import figures
from skimage.metrics import structural_similarity
from torch.testing import assert_close

import layers

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def parity():
    return {key: torch.from_numpy(value) for key, value in figures("layers.npz").items()}


def test_disp_to_depth_matches_the_published_figures(parity):
    scaled, depth = layers.disp_to_depth(parity["disp"], 0.1, 100)
    assert_close(scaled, parity["scaled_disp"], **TOLERANCE)
    assert_close(depth, parity["depth"], **TOLERANCE)


def test_disp_1_is_the_nearest_depth_and_disp_0_the_farthest():
    # Faithful 7
    _, depth = layers.disp_to_depth(torch.tensor([1.0, 0.0, 0.5]), 0.1, 100)
    assert_close(depth, torch.tensor([0.1, 100, 1 / (0.01 + 9.99 * 0.5)]))


@pytest.mark.parametrize(("invert", "name"), [(False, "T"), (True, "T_inv")])
def test_transformations_match_the_published_figures(parity, invert, name):
    T = layers.transformation_from_parameters(parity["axisangle"], parity["translation"], invert)
    assert_close(T, parity[name], **TOLERANCE)


def test_a_transformation_and_its_inverse_cancel_out():
    axisangle, translation = torch.randn(4, 1, 3), torch.randn(4, 1, 3)
    T = layers.transformation_from_parameters(axisangle, translation)
    T_inv = layers.transformation_from_parameters(axisangle, translation, invert=True)
    assert_close(T @ T_inv, torch.eye(4).expand(4, 4, 4), atol=1e-5, rtol=0)


def test_a_quarter_turn_about_y_takes_z_to_x():
    R = layers.rot_from_axisangle(torch.tensor([[[0, math.pi / 2, 0]]]))
    turned = R[0] @ torch.tensor([0.0, 0, 1, 1])
    assert_close(turned, torch.tensor([1.0, 0, 0, 1]), atol=1e-6, rtol=0)


def test_a_zero_rotation_is_the_identity_with_a_finite_gradient():
    vec = torch.zeros(1, 1, 3, requires_grad=True)
    R = layers.rot_from_axisangle(vec)
    R.sum().backward()
    assert_close(R[0], torch.eye(4))
    assert vec.grad.isfinite().all()


def test_projection_matches_the_published_figures(parity):
    points = layers.BackprojectDepth(2, 24, 40)(parity["depth"], parity["inv_K"])
    assert_close(points, parity["cam_points"], **TOLERANCE)
    grid = layers.Project3D(2, 24, 40)(points, parity["K"], parity["pix_T"])
    assert_close(grid, parity["pix_coords"], **TOLERANCE)


def test_backproject_refuses_batches_of_different_sizes():
    with pytest.raises(ValueError, match="batch size 2, inv_K has 3"):
        layers.backproject(torch.ones(2, 1, 4, 4), torch.eye(4).expand(3, 4, 4))


def pinhole(height, width):
    K = torch.eye(4)[None].repeat(2, 1, 1)
    K[:, 0, 0], K[:, 1, 1] = 0.58 * width, 1.92 * height
    K[:, 0, 2], K[:, 1, 2] = 0.5 * width, 0.5 * height
    return K


def test_identity_motion_leaves_the_image_unchanged():
    image, depth, K = torch.rand(2, 3, 24, 80), 1 + 9 * torch.rand(2, 1, 24, 80), pinhole(24, 80)
    points = layers.backproject(depth, torch.linalg.inv(K))
    warped = layers.sample(image, layers.project(points, K, torch.eye(4).expand(2, 4, 4), 24, 80))
    assert_close(warped, image, atol=1e-4, rtol=0)


def test_whole_pixel_shifts_are_exact_and_repeat_the_border():
    # Faithful 1: only align_corners=True with a division by size - 1 gives this
    image, K = torch.rand(2, 3, 24, 80), pinhole(24, 80)
    T = layers.get_translation_matrix(torch.tensor([[[3 / K[0, 0, 0], 0, 0]]])).expand(2, 4, 4)
    points = layers.backproject(torch.ones(2, 1, 24, 80), torch.linalg.inv(K))
    warped = layers.sample(image, layers.project(points, K, T, 24, 80))
    assert_close(warped[..., :-3], image[..., 3:], atol=1e-4, rtol=0)
    assert_close(warped[..., -3:], image[..., -1:].expand(2, 3, 24, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sample", [layers.sample,
                                    torch.compile(layers.sample, backend="eager")])
def test_nan_coordinates_sample_nan_and_leave_the_rest_alone(sample):
    # compiled code takes the path of a GPU, without data-dependent control flow
    image, grid = torch.rand(1, 3, 8, 8), torch.rand(1, 4, 4, 2) * 2 - 1
    whole = sample(image, grid)
    grid[0, 1, 2, 0] = torch.nan
    expected = whole.clone()
    expected[:, :, 1, 2] = torch.nan
    assert not whole.isnan().any()
    assert_close(sample(image, grid), expected, equal_nan=True, atol=0, rtol=0)


def test_disparities_are_resized_without_aligned_corners():
    # Faithful 1: by hand, pixel centres at (i + 0.5) / 2 - 0.5
    resized = layers.resize_disp(torch.tensor([[[[0.0, 1.0]]]]), 1, 4)
    assert_close(resized[0, 0, 0], torch.tensor([0, 0.25, 0.75, 1]))


@pytest.mark.parametrize("name", ["ssim", "ssim_near"])
def test_ssim_matches_the_published_figures(parity, name):
    x, y = parity["x"], parity["y"]
    y = y if name == "ssim" else (x + 0.02 * y).clamp(0, 1)
    assert_close(layers.SSIM()(x, y), parity[name], **TOLERANCE)


def test_ssim_inside_the_image_agrees_with_scikit_image():
    x = torch.rand(3, 12, 20, dtype=torch.float64)
    y = (x + 0.2 * torch.rand(3, 12, 20, dtype=torch.float64)).clamp(0, 1)
    _, ssim = structural_similarity(x.numpy(), y.numpy(), win_size=3, data_range=1,
                                    channel_axis=0, use_sample_covariance=False, full=True)
    expected = (1 - torch.from_numpy(ssim)) / 2
    error = layers.SSIM()(x[None], y[None])[0]
    assert_close(error[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-12, rtol=0)


def test_ssim_of_constant_images_is_the_hand_value():
    # Faithful 8: without variance only the means count, and C1 = 0.01^2
    x, y = torch.full((1, 3, 8, 8), 0.2), torch.full((1, 3, 8, 8), 0.6)
    expected = (1 - (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)) / 2
    assert_close(layers.SSIM()(x, y), torch.full_like(x, expected), atol=1e-3, rtol=0)


def test_ssim_of_a_broadcast_target_equals_repeated_targets():
    x, y = torch.rand(2, 3, 4, 3, 8, 12), torch.rand(3, 1, 3, 8, 12)
    repeated = y[None].expand_as(x)
    shared = layers.SSIM()(x, y)
    assert_close(shared, layers.SSIM()(x, repeated))
    assert_close(shared[1, 2, 3], layers.SSIM()(x[1, 2, 3][None], y[2])[0])


def test_a_local_means_gradient_is_that_of_average_pooling():
    x = torch.rand(2, 4, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    found, expected = layers.local_mean(x), torch.nn.functional.avg_pool2d(x.flatten(0, 1), 3, 1)
    expected = expected.view_as(found)
    assert_close(found, expected)
    weight = torch.rand_like(found)
    assert_close(*(torch.autograd.grad(means, x, weight)[0] for means in (found, expected)))


def test_smoothness_matches_the_published_figures(parity):
    assert_close(layers.get_smooth_loss(parity["disp"], parity["x"]), parity["smooth"], **TOLERANCE)


def test_smoothness_is_discounted_by_image_edges():
    disp = torch.tensor([[[[0.0, 1], [0, 1]]]])
    flat, edge = torch.zeros(1, 3, 2, 2), disp.expand(1, 3, 2, 2)
    assert_close(layers.get_smooth_loss(disp, flat), torch.tensor(1.0))
    assert_close(layers.get_smooth_loss(disp, edge), torch.tensor(math.exp(-1)))


def test_normalised_disparity_is_independent_of_scale():
    disp = torch.rand(2, 1, 8, 8)
    assert_close(layers.normalise_by_mean(disp), layers.normalise_by_mean(7 * disp))


def test_depth_errors_of_tensors_match_the_published_figures(parity):
    errors = torch.stack(layers.compute_depth_errors(parity["gt"], parity["pred"]))
    assert_close(errors.double(), parity["depth_errors"], **TOLERANCE)


def test_a_star_import_gives_the_names_that_papers_code_uses():
    names = {}
    exec("from layers import *", names)  # as it stands in code written against Monodepth2
    assert {"np", "torch", "nn", "F", "SSIM", "BackprojectDepth", "Project3D", "disp_to_depth",
            "transformation_from_parameters", "get_smooth_loss", "upsample"} <= names.keys()
    assert all(hasattr(layers, name) for name in layers.__all__)
