"""Predict poses with the network of SfMLearner: convolutions on stacked frames."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.pose_decoder import split_pose
from networks.precision import apply_in_float32

LAYERS = ((16, 7), (32, 5), (64, 3), (128, 3), (256, 3), (256, 3), (256, 3))  # (channels, kernel)


class PoseCNN(nn.Module):
    """Predict the poses between `num_input_frames` frames stacked along the channels.

    Source: Zhou et al. 2017 (arXiv:1704.07813).
    """

    def __init__(self, num_input_frames: int):
        super().__init__()
        self.num_input_frames = num_input_frames
        self.net, channels = nn.ModuleList(), 3 * num_input_frames
        for out_channels, kernel in LAYERS:
            self.net.append(nn.Conv2d(channels, out_channels, kernel, 2, kernel // 2))
            channels = out_channels
        self.pose_conv = nn.Conv2d(channels, 6 * (num_input_frames - 1), 1)

    def forward(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Map stacked frames to axis-angles and translations.

        Args:
            out: (B, 3 * num_input_frames, H, W) in [0, 1].

        Returns:
            (axisangle, translation), each (B, num_input_frames - 1, 1, 3).
        """
        for conv in self.net:
            out = torch.relu(conv(out))
        return split_pose(apply_in_float32(self.pose_conv, out), self.num_input_frames - 1)
