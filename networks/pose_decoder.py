"""Decode image features into the poses between frames."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from networks.precision import apply_in_float32

POSE_SCALE = 0.01  # keeps the poses of an untrained network small


def split_pose(out: Tensor, num_poses: int) -> tuple[Tensor, Tensor]:
    """Average (B, 6 * num_poses, h, w) over pixels, and split it into axis-angle and translation.

    Returns:
        (axisangle, translation), each (B, num_poses, 1, 3).
    """
    # Faithful: outputs are multiplied by 0.01
    poses = POSE_SCALE * out.mean((2, 3)).view(-1, num_poses, 1, 6)
    return poses[..., :3], poses[..., 3:]


class PoseDecoder(nn.Module):
    """Predict poses from the last feature maps of one or several images.

    Args:
        num_ch_enc: channels of the encoder's five feature maps.
        num_input_features: encoded images, whose feature maps are joined along the channels.
        num_frames_to_predict_for: number of poses (default: num_input_features - 1).
        stride: stride of the 3x3 convolutions.
    """

    def __init__(self, num_ch_enc: Sequence[int], num_input_features: int,
                 num_frames_to_predict_for: int | None = None, stride: int = 1):
        super().__init__()
        self.num_ch_enc, self.num_input_features = num_ch_enc, num_input_features
        self.num_frames_to_predict_for = num_frames_to_predict_for or num_input_features - 1
        self.net = nn.ModuleList([
            nn.Conv2d(int(num_ch_enc[-1]), 256, 1),
            nn.Conv2d(256 * num_input_features, 256, 3, stride, 1),
            nn.Conv2d(256, 256, 3, stride, 1),
            nn.Conv2d(256, 6 * self.num_frames_to_predict_for, 1)])

    def forward(self, input_features: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """Decode poses into (axisangle, translation), each (B, num_frames_to_predict_for, 1, 3).

        Args:
            input_features: the encoder's five feature maps of each encoded image; only the last
                map is read.
        """
        squeeze, *convs, head = self.net
        x = torch.cat([torch.relu(squeeze(features[-1])) for features in input_features], 1)
        for conv in convs:
            x = torch.relu(conv(x))
        return split_pose(apply_in_float32(head, x), self.num_frames_to_predict_for)
