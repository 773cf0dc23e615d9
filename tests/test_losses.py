"""Compare losses.py with published losses and gradients by flag, and with hand values."""
import pytest
import recipe
import torch
from conftest import figures
from torch.testing import assert_close

from layers import disp_to_depth
from losses import ReprojectionObjective
from networks import Monodepth2
from options import MonodepthOptions

PARITY = figures("losses.json")


def build(argv):
    """Build the model, objective and batch of a command line, as the trainer does."""
    opts = MonodepthOptions().parse(["--height", "64", "--width", "96", "--batch_size", "2",
                                     "--weights_init", "scratch", *argv.split()])
    frames = opts.frame_ids + ["s"] * opts.use_stereo
    model = Monodepth2(opts.num_layers, False, frames, opts.scales, opts.pose_model_type,
                       opts.pose_model_input, opts.predictive_mask)
    for tag, network in model.named_children():
        network.load_state_dict(recipe.filled_state_dict(network.state_dict(), tag))
    objective = ReprojectionObjective(
        frames, opts.scales, opts.min_depth, opts.max_depth, opts.disparity_smoothness,
        opts.v1_multiscale, opts.avg_reprojection, not opts.disable_automasking,
        opts.predictive_mask, not opts.no_ssim, opts.pose_model_type == "posecnn", tie_noise=0)
    return model.train(), objective, recipe.training_batch(frames)


@pytest.mark.parametrize("flags", PARITY)
def test_losses_and_gradients_match_the_published_figures(flags):
    expected = PARITY[flags]
    model, objective, inputs = build(expected["argv"])
    outputs = model(inputs)
    losses, views = objective(inputs, outputs)
    losses["loss"].backward()
    loss_tolerance, gradient_tolerance = (5e-4, 1e-2) if flags == "resnet50" else (1e-5, 1e-3)
    for name, value in expected["losses"].items():
        assert losses[name].item() == pytest.approx(value, rel=loss_tolerance), name
    norms = {name: torch.cat([p.grad.flatten() for p in network.parameters()
                              if p.grad is not None]).double().norm().item()
             for name, network in model.named_children()}
    assert norms == pytest.approx(expected["grad_norm"], rel=gradient_tolerance)
    for name, value in expected["mean"].items():
        found = lookup(name, outputs, views).float().mean().item()
        assert found == pytest.approx(value, rel=1e-2 if flags == "resnet50" else 1e-3), name


def lookup(name, outputs, views):
    """Find the tensor that has the name `name` in the figures, such as color/-1/0."""
    kind, *key = name.split("/")
    key = tuple(k if k == "s" else int(k) for k in key)
    if kind == "identity_selection":
        return views[("automask", *key)]
    return (outputs | views)[(kind, *key)]


def objective_of(**arguments):
    return ReprojectionObjective([0, -1, 1], [0], tie_noise=0, **arguments)


def shifted_scene():
    """Make source frames by shifting the target 3 pixels, and outputs of constant depth at rest."""
    inputs = recipe.training_batch([0, -1, 1])
    for f, shift in ((-1, 3), (1, -3)):
        inputs["color", f, 0] = inputs["color", 0, 0].roll(shift, 3)
    outputs = {("disp", 0): torch.full((2, 1, 64, 96), 0.1)}
    for f in (-1, 1):
        outputs["cam_T_cam", 0, f] = torch.eye(4).expand(2, 4, 4)
    return inputs, outputs


@pytest.mark.parametrize(("ssim", "expected"), [
    (True, 0.85 * (1 - (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)) / 2 + 0.15 * 0.4), (False, 0.4)])
def test_the_photometric_error_is_085_ssim_plus_015_l1(ssim, expected):
    # Faithful 8: value by hand for constant images; --no_ssim compares by L1 alone
    inputs, outputs = shifted_scene()
    for f, grey in ((0, 0.6), (-1, 0.2), (1, 0.2)):
        inputs["color", f, 0] = torch.full((2, 3, 64, 96), grey)
    losses, _ = objective_of(automasking=False, ssim=ssim)(inputs, outputs)
    assert losses["photometric/0"].item() == pytest.approx(expected, abs=1e-3)


def test_the_lower_error_of_two_source_frames_counts_alone():
    # Faithful 10
    inputs, outputs = shifted_scene()
    inputs["color", 1, 0] = inputs["color", 0, 0]
    minimum = objective_of(automasking=False)(inputs, outputs)[0]["photometric/0"]
    average = objective_of(automasking=False, avg_reprojection=True)(inputs, outputs)[0]
    assert minimum.item() == pytest.approx(0, abs=1e-5)
    assert average["photometric/0"].item() > 0.01


def test_pixels_that_stay_between_frames_are_masked_out():
    # Faithful 10: the frames are identical, but the predicted poses move
    inputs, outputs = shifted_scene()
    for f in (-1, 1):
        inputs["color", f, 0] = inputs["color", 0, 0]
        outputs["cam_T_cam", 0, f] = torch.eye(4).repeat(2, 1, 1)
        outputs["cam_T_cam", 0, f][:, 0, 3] = 0.05
    _, views = objective_of()(inputs, outputs)
    assert views["automask", 0].mean() < 0.05


@pytest.mark.parametrize("flags", [{}, {"v1_multiscale": True, "scales": [0, 1]},
                                   {"automasking": False, "avg_reprojection": True}])
def test_no_gradient_of_the_photometric_loss_reaches_under_a_mask(flags):
    inputs, _ = shifted_scene()
    for f in (0, -1, 1):  # wanted by --v1_multiscale
        inputs["color", f, 1] = torch.nn.functional.avg_pool2d(inputs["color", f, 0], 2)
    mask = torch.ones(2, 1, 64, 96, dtype=torch.bool)
    mask[:, :, 40:, 32:64] = mask[:, :, 0] = False
    flags = {"scales": [0], **flags}
    objective = ReprojectionObjective([0, -1, 1], disparity_smoothness=0, tie_noise=0, **flags)
    outputs = {("disp", s): torch.full((2, 1, 64 >> s, 96 >> s), 0.1, requires_grad=True)
               for s in flags["scales"]}
    for f in (-1, 1):  # by about 3 pixels, as the scene moves
        outputs["cam_T_cam", 0, f] = torch.eye(4).repeat(2, 1, 1)
        outputs["cam_T_cam", 0, f][:, 0, 3] = -0.05 * f
    losses, views = objective(inputs | {"mask": mask}, outputs)
    losses["loss"].backward()
    gradient = outputs["disp", 0].grad
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).float().mean() > 0.5
    if ("automask", 0) in views:
        assert (views["automask", 0][~mask[:, 0]] == 0).all()


def test_the_loss_is_the_mean_over_the_pixels_that_count():
    inputs, outputs = shifted_scene()
    for f, grey in ((0, 0.6), (-1, 0.2), (1, 0.2)):
        inputs["color", f, 0] = torch.full((2, 3, 64, 96), grey)
    inputs["mask"] = torch.ones(2, 1, 64, 96, dtype=torch.bool)
    inputs["mask"][:, :, :, :24] = False
    losses, _ = objective_of(automasking=False, ssim=False)(inputs, outputs)
    assert losses["photometric/0"].item() == pytest.approx(0.4, abs=1e-3)
    inputs["mask"][:] = False
    losses, _ = objective_of(automasking=False)(inputs, outputs)
    assert losses["photometric/0"].item() == 0


def test_noise_decides_between_equal_identity_and_warped_errors():
    # Faithful 10: without the noise, auto-masking would remove a static scene completely
    inputs, outputs = shifted_scene()
    for f in (-1, 1):
        inputs["color", f, 0] = inputs["color", 0, 0]
    noisy = ReprojectionObjective([0, -1, 1], [0])
    assert noisy.tie_noise == 1e-5
    seen = noisy(inputs, outputs)[1]["automask", 0].mean()
    assert 0.05 < seen < 0.95


def test_smoothness_halves_by_scale_and_the_loss_is_the_mean():
    # Faithful 11
    inputs = recipe.training_batch([0, -1, 1])
    outputs = {("disp", s): torch.rand(2, 1, 64 >> s, 96 >> s) for s in range(4)}
    for f in (-1, 1):
        outputs["cam_T_cam", 0, f] = torch.eye(4).expand(2, 4, 4)
    objective = ReprojectionObjective([0, -1, 1], range(4), disparity_smoothness=0.5)
    losses, _ = objective(inputs, outputs)
    for s in range(4):
        expected = losses[f"photometric/{s}"] + 0.5 / 2**s * losses[f"smoothness/{s}"]
        assert_close(losses[f"loss/{s}"], expected)
    assert_close(losses["loss"], sum(losses[f"loss/{s}"] for s in range(4)) / 4)


def test_scales_compare_at_full_size_unless_v1_multiscale():
    # Faithful 9
    inputs = recipe.training_batch([0, -1, 1])
    outputs = {("disp", s): torch.rand(2, 1, 64 >> s, 96 >> s) for s in range(4)}
    for f in (-1, 1):
        outputs["cam_T_cam", 0, f] = torch.eye(4).expand(2, 4, 4)
    for v1 in (False, True):
        _, views = ReprojectionObjective([0, -1, 1], range(4), v1_multiscale=v1)(inputs, outputs)
        assert views["color", 1, 3].shape == ((2, 3, 8, 12) if v1 else (2, 3, 64, 96))


def test_only_posecnn_translations_scale_by_mean_inverse_depth():
    # Faithful 12
    inputs, outputs = shifted_scene()
    inputs["color", "s", 0] = inputs["color", -1, 0]
    outputs["disp", 0] = torch.rand(2, 1, 64, 96)
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, 0, 3] = 0.1
    inverse_depth, _ = disp_to_depth(outputs["disp", 0], 0.1, 100)
    scaled = T.clone()
    scaled[:, 0, 3] *= inverse_depth.mean((1, 2, 3))
    sources = [0, 1, "s"]
    poses = {("cam_T_cam", 0, 1): T, ("cam_T_cam", 0, "s"): T}
    _, found = ReprojectionObjective(sources, [0], scale_translation=True)(inputs, outputs | poses)
    poses["cam_T_cam", 0, 1] = scaled
    _, expected = ReprojectionObjective(sources, [0])(inputs, outputs | poses)
    for f in (1, "s"):
        assert_close(found["color", f, 0], expected["color", f, 0])


@pytest.mark.parametrize("scaled", [False, True])
def test_the_velocity_loss_is_the_error_of_the_distance_travelled(scaled):
    inputs, outputs = shifted_scene()
    for f, moved in ((-1, [0, 3.0, 4.0]), (1, [2.0, 0, 0])):
        outputs["cam_T_cam", 0, f] = torch.eye(4).repeat(2, 1, 1)
        outputs["cam_T_cam", 0, f][:, :3, 3] = torch.tensor(moved)
    inputs["distances"] = torch.tensor([[5.0, 3.0], [4.0, 2.0]])
    factor = disp_to_depth(outputs["disp", 0], 0.1, 100)[0].mean().item() if scaled else 1
    expected = sum(abs(factor * t - d) for t, d in ((5, 5), (2, 3), (5, 4), (2, 2))) / 4
    losses = [objective_of(scale_translation=scaled, velocity_weight=weight)(inputs, outputs)[0]
              for weight in (0, 0.5)]
    assert "velocity" not in losses[0]
    assert losses[1]["velocity"].item() == pytest.approx(expected, rel=1e-5)
    difference = losses[1]["loss"] - losses[0]["loss"]
    assert difference.item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_objective_computes_in_float32_for_half_outputs():
    inputs, outputs = shifted_scene()
    full, _ = objective_of()(inputs, outputs)
    half, _ = objective_of()(inputs, {key: value.bfloat16() for key, value in outputs.items()})
    assert half["loss"].dtype == torch.float32
    assert half["loss"].item() == pytest.approx(full["loss"].item(), rel=1e-2)


def test_the_objective_leaves_inputs_and_outputs_unchanged():
    inputs, outputs = shifted_scene()
    before = {key: value.clone() for key, value in (inputs | outputs).items()}
    objective_of()(inputs, outputs)
    assert before.keys() == (inputs | outputs).keys()
    for key, value in (inputs | outputs).items():
        assert_close(value, before[key], atol=0, rtol=0)
