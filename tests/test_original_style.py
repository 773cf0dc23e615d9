"""A training loop in the original's style, on our modules: the loss of `ReprojectionObjective`."""
from __future__ import annotations

import pytest
import recipe
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import networks
from layers import (
    SSIM,
    BackprojectDepth,
    Project3D,
    disp_to_depth,
    get_smooth_loss,
    transformation_from_parameters,
)
from losses import ReprojectionObjective

BATCH, HEIGHT, WIDTH = 2, 64, 96
SCALES = [0, 1, 2, 3]
NOISE_SEED = 7


class Loop:
    """Train five networks by hand: a dict of modules, warps and losses written out, one Adam.

    Args:
        frames: 0, then the source frames.
        masked: train a predictive mask instead of auto-masking.
        v1: compare images at the size of each disparity.
    """

    def __init__(self, frames: list, masked: bool, v1: bool):
        self.frames, self.masked, self.v1 = frames, masked, v1
        encoder = networks.ResnetEncoder(18, False)
        pose_encoder = networks.ResnetEncoder(18, False, num_input_images=2)
        self.models = {
            "encoder": encoder,
            "depth": networks.DepthDecoder(encoder.num_ch_enc, SCALES),
            "pose_encoder": pose_encoder,
            "pose": networks.PoseDecoder(pose_encoder.num_ch_enc, num_input_features=1,
                                         num_frames_to_predict_for=2)}
        if masked:
            self.models["predictive_mask"] = networks.DepthDecoder(
                encoder.num_ch_enc, SCALES, num_output_channels=len(frames) - 1)
        parameters = []
        for name, network in self.models.items():
            network.load_state_dict(recipe.filled_state_dict(network.state_dict(), name))
            network.train()
            parameters += list(network.parameters())
        self.optimizer = torch.optim.Adam(parameters, 1e-4)
        sizes = [(BATCH, HEIGHT // 2**s, WIDTH // 2**s) for s in SCALES]
        self.backproject = {s: BackprojectDepth(*size) for s, size in enumerate(sizes)}
        self.project = {s: Project3D(*size) for s, size in enumerate(sizes)}
        self.ssim = SSIM()

    def predict_poses(self, inputs: dict) -> dict:
        """Return the pose from the target camera to the camera of each source frame."""
        poses = {}
        for f in self.frames[1:]:
            if f == "s":
                poses[f] = inputs["stereo_T"]
                continue
            pair = [inputs["color_aug", each, 0] for each in sorted([0, f])]
            features = [self.models["pose_encoder"](torch.cat(pair, 1))]
            axisangle, translation = self.models["pose"](features)
            poses[f] = transformation_from_parameters(axisangle[:, 0], translation[:, 0], f < 0)
        return poses

    def warp(self, inputs: dict, disp: torch.Tensor, T: torch.Tensor, f: int | str,
             size: int) -> torch.Tensor:
        """Sample source frame f at the pixels that the target frame's points project to."""
        _, depth = disp_to_depth(disp, 0.1, 100)
        points = self.backproject[size](depth, inputs["inv_K", size])
        pixels = self.project[size](points, inputs["K", size], T)
        return F.grid_sample(inputs["color", f, size], pixels, padding_mode="border",
                             align_corners=True)

    def error(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare two images by SSIM and L1: (B, 1, H, W)."""
        l1 = (target - image).abs().mean(1, keepdim=True)
        return 0.85 * self.ssim(image, target).mean(1, keepdim=True) + 0.15 * l1

    def identity_errors(self, inputs: dict, size: int) -> torch.Tensor:
        """Return the errors of the unmoved source frames, with noise against ties."""
        target = inputs["color", 0, size]
        errors = [self.error(inputs["color", f, size], target) for f in self.frames[1:]]
        return torch.cat(errors, 1) + 1e-5 * self.noise[size]

    def loss_of_scale(self, inputs: dict, disps: dict, masks: dict, poses: dict,
                      s: int) -> torch.Tensor:
        """Return the loss of one scale."""
        size = s if self.v1 else 0
        target, disp = inputs["color", 0, size], disps["disp", s]
        resized = F.interpolate(disp, target.shape[2:], mode="bilinear", align_corners=False)
        errors = torch.cat([self.error(self.warp(inputs, resized, poses[f], f, size), target)
                            for f in self.frames[1:]], 1)
        loss = 0
        if self.masked:
            mask = F.interpolate(masks["disp", s], target.shape[2:], mode="bilinear",
                                 align_corners=False)
            errors = errors * mask
            loss = 0.2 * F.binary_cross_entropy(mask, torch.ones_like(mask))
        else:
            errors = torch.cat([self.identity_errors(inputs, size), errors], 1)
        smooth = get_smooth_loss(disp / (disp.mean((2, 3), True) + 1e-7), inputs["color", 0, s])
        return loss + errors.min(1)[0].mean() + 1e-3 * smooth / 2**s

    def loss(self, inputs: dict) -> torch.Tensor:
        """Return the total loss of a batch."""
        torch.manual_seed(NOISE_SEED)  # drawn as by the objective: once for each size of images
        self.noise = {s: torch.randn(len(self.frames) - 1, BATCH, HEIGHT >> s, WIDTH >> s
                                     ).transpose(0, 1) for s in (SCALES if self.v1 else [0])}
        features = self.models["encoder"](inputs["color_aug", 0, 0])
        disps = self.models["depth"](features)
        masks = self.models["predictive_mask"](features) if self.masked else {}
        poses = self.predict_poses(inputs)
        return sum(self.loss_of_scale(inputs, disps, masks, poses, s)
                   for s in SCALES) / len(SCALES)


MODES = pytest.mark.parametrize(("frames", "masked", "v1"), [
    ([0, -1, 1], False, False), ([0, -1, 1, "s"], False, False), ([0, -1, 1], True, False),
    ([0, -1, 1], False, True)], ids=["mono", "mono+stereo", "predictive_mask", "v1_multiscale"])


@MODES
def test_a_loop_in_the_originals_style_has_our_loss(frames, masked, v1):
    loop, inputs = Loop(frames, masked, v1), recipe.training_batch(frames)
    model = networks.Monodepth2(frame_ids=frames, predictive_mask=masked).train()
    for name, network in model.named_children():
        network.load_state_dict(loop.models[name].state_dict())
    objective = ReprojectionObjective(frames, SCALES, v1_multiscale=v1, automasking=not masked,
                                      predictive_mask=masked)
    loss = loop.loss(inputs)
    outputs = model(inputs)
    torch.manual_seed(NOISE_SEED)
    ours = objective(inputs, outputs)[0]["loss"]
    assert loss.item() == pytest.approx(ours.item(), rel=1e-5)

    loss.backward()
    ours.backward()
    for name, network in model.named_children():
        found, expected = (torch.cat([p.grad.flatten() for p in side.parameters()
                                      if p.grad is not None])
                           for side in (loop.models[name], network))
        assert_close(found.norm(), expected.norm(), rtol=1e-3, atol=0)
        assert torch.cosine_similarity(found, expected, 0) > 0.999, name


def test_an_adam_step_over_all_parameters_lowers_the_loss():
    loop, inputs = Loop([0, -1, 1], False, False), recipe.training_batch([0, -1, 1])
    trained = [p for group in loop.optimizer.param_groups for p in group["params"]
               if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    loop.optimizer.param_groups[0]["lr"] = 1e-6  # small: each number moves by this much
    loss = loop.loss(inputs)
    loss.backward()
    loop.optimizer.step()
    assert all((p != old).any() for p, old in zip(trained, before, strict=True))
    with torch.no_grad():
        assert loop.loss(inputs) < loss
