"""Learn the intrinsics of cameras together with the networks."""
from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from runtime.errors import UsageError

# Adam moves a parameter by about the learning rate in a step: 1e-4 of the image for a centre, and
# ten times as much for the logarithm of a focal length, which may be far off at the start
FOCAL_GAIN = 10


class LearnedIntrinsics(nn.Module):
    """Learn the focal length and the centre of each camera, relative to the K of the inputs.

    fx and fy change by one factor: pixels are square, or resized by a known ratio, and a camera
    that hardly pitches would leave fy on its own unknown.

    Args:
        cameras: names of the cameras, the folders of the training list.

    Attributes:
        focal: (cameras, 1) logarithm of the focal length as a multiple of the start's, over
            `FOCAL_GAIN`.
        centre: (cameras, 2) shift of the principal point, in units of the image's width and height.
        probe: multiplies the focal lengths, to compare losses beside those found.
        drift: for each epoch and camera, the `changes` at the end of the epoch.

    Source: Gordon et al. 2019 (arXiv:1904.04998), Sec. 3.
    """

    def __init__(self, cameras: Collection[str]):
        super().__init__()
        self.cameras = list(cameras)
        self.focal = nn.Parameter(torch.zeros(len(cameras), 1))
        self.centre = nn.Parameter(torch.zeros(len(cameras), 2))
        self.probe = 1.0
        self.drift: list[list[list[float]]] = []

    def forward(self, inputs: dict, poses: dict) -> tuple[dict[tuple, Tensor], dict, Tensor | None]:
        """Return the intrinsics of each sample, and the motions tied to the focal lengths.

        A yaw or pitch, and a shift to the side, move pixels by the focal length times their size.
        A focal length alone could hardly change: the motion found with it holds it in place. So
        these parts of the motion are divided by the focal length's change. In training that leaves
        values alone, and adds the motion's share to the gradient of the focal length.

        Args:
            inputs: ("K", s) and ("inv_K", s), the intrinsics at the start; "camera" (B,), numbers
                of the cameras, beyond the last one for a camera that is not learned; "flipped" (B,)
                bool, samples that are mirrored; optional "stereo_T" (B, 4, 4).
            poses: {source frame: (axisangle, translation, ...)}, (B, 1, 3) each.

        Returns:
            ("K", s) and ("inv_K", s) (B, 4, 4); `poses` and "stereo_T", tied.

        Raises:
            UsageError: nothing tells in training which samples are mirrored.
        """
        if self.training and "flipped" not in inputs:
            raise UsageError("--learn_intrinsics must know which samples are mirrored, and this "
                             "dataset mirrors items of its own; leave it out")
        factor, x, y = self._changes().index_select(0, inputs["camera"]).unbind(1)  # (B,) each
        if "flipped" in inputs:
            x = torch.where(inputs["flipped"], -x, x)
        height, width = inputs["color_aug", 0, 0].shape[2:]
        intrinsics = {}
        for s in [key[1] for key in inputs if key[0] == "K"]:
            K, inv_K = inputs["K", s].clone(), inputs["inv_K", s].clone()
            for axis, shift in ((0, width // 2**s * x), (1, height // 2**s * y)):
                focal = inputs["K", s][:, axis, axis] * factor * self.probe
                centre = inputs["K", s][:, axis, 2] + shift
                K[:, axis, axis], K[:, axis, 2] = focal, centre
                inv_K[:, axis, axis], inv_K[:, axis, 2] = 1 / focal, -centre / focal
            intrinsics["K", s], intrinsics["inv_K", s] = K, inv_K
        # 1 / probe, with the gradient of 1 / factor
        over = factor.detach() / (factor * self.probe)
        share = torch.stack([over, over, torch.ones_like(over)], 1)[:, None]        # (B, 1, 3)
        poses = {f: (axisangle * share, translation * share, *rest)
                 for f, (axisangle, translation, *rest) in poses.items()}
        stereo_T = inputs.get("stereo_T")
        if stereo_T is not None:  # a shift to the side alone
            stereo_T = stereo_T.clone()
            stereo_T[:, 0, 3] = inputs["stereo_T"][:, 0, 3] * over
        return intrinsics, poses, stereo_T

    def _changes(self) -> Tensor:
        """Return factor, x, y of each camera, and last their means: (cameras + 1, 3)."""
        known = torch.cat([FOCAL_GAIN * self.focal, self.centre], 1)
        factor, shift = torch.cat([known, known.mean(0, keepdim=True)]).split((1, 2), 1)
        return torch.cat([factor.exp(), shift], 1)

    @torch.no_grad()
    def changes(self) -> list[list[float]]:
        """Return what each camera has learned: factor of the focal length, shift of the centre.

        The last entry is the mean of all cameras. This waits for the device.
        """
        return self._changes().tolist()

    def get_extra_state(self) -> dict:
        """Return the drift, for the state dict."""
        return {"drift": self.drift}

    def set_extra_state(self, state: dict) -> None:
        """Continue the drift of a state dict."""
        self.drift = state["drift"]
