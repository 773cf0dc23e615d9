"""Decode the encoder's feature maps into disparities at several scales."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from layers import Conv3x3, ConvBlock, upsample
from networks.precision import apply_in_float32

NUM_CH_DEC = (16, 32, 64, 128, 256)  # channels at 1/1, 1/2, ... 1/16 of the input size


class UpConvBlock(ConvBlock):
    """Upsample a feature map by 2, join a skip connection, and apply a `ConvBlock`."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (B, c, H, W) and an optional skip (B, in - c, 2H, 2W) to (B, out, 2H, 2W)."""
        x = upsample(x)                                                    # (B, c, 2H, 2W)
        return super().forward(x if skip is None else torch.cat([x, skip], 1))


class DepthDecoder(nn.Module):
    """Decode features with a U-Net decoder that has one sigmoid output at each scale.

    Args:
        num_ch_enc: channels of the encoder's five feature maps.
        scales: scales of the outputs; scale s has 1 / 2^s of the input size.
        num_output_channels: channels of each output (1 for disparity).
        use_skips: join the encoder's feature maps by skip connections.

    Attributes:
        num_ch_dec: (5,) array, the channels of the decoder at 1/1, 1/2, ... 1/16 of the input size.

    In the state dict, `decoder.<n>` numbers five pairs of blocks from the coarsest level to the
    finest, then the output convolutions, as in the published checkpoints.

    Source: Monodepth2 (arXiv:1806.01260), supplementary Table 5.
    """

    def __init__(self, num_ch_enc: Sequence[int], scales: Iterable[int] = range(4),
                 num_output_channels: int = 1, use_skips: bool = True):
        super().__init__()
        self.num_ch_enc, self.num_ch_dec = num_ch_enc, np.array(NUM_CH_DEC)
        self.scales, self.num_output_channels = list(scales), num_output_channels
        self.use_skips = use_skips
        blocks = []
        for level in reversed(range(5)):
            below = num_ch_enc[-1] if level == 4 else NUM_CH_DEC[level + 1]
            skip = num_ch_enc[level - 1] if use_skips and level > 0 else 0
            blocks += [ConvBlock(below, NUM_CH_DEC[level]),
                       UpConvBlock(NUM_CH_DEC[level] + skip, NUM_CH_DEC[level])]
        heads = [Conv3x3(NUM_CH_DEC[s], num_output_channels) for s in self.scales]
        self.decoder = nn.ModuleList(blocks + heads)

    def forward(self, input_features: Sequence[Tensor],
                scales: Iterable[int] | None = None) -> dict[tuple[str, int], Tensor]:
        """Return {("disp", s): (B, num_output_channels, H / 2^s, W / 2^s) in (0, 1)}.

        Args:
            input_features: the encoder's five feature maps of an H x W image.
            scales: scales to return; None returns all scales of the decoder.
        """
        modules = list(self.decoder)  # a slice of a ModuleList would be a new module
        blocks, heads = modules[:10], dict(zip(self.scales, modules[10:], strict=True))
        wanted = heads if scales is None else scales
        outputs = {}
        x = input_features[-1]                                             # 1/32 of the input size
        for level, conv, upconv in zip(reversed(range(5)), blocks[::2], blocks[1::2], strict=True):
            skip = input_features[level - 1] if self.use_skips and level > 0 else None
            x = upconv(conv(x), skip)                                      # 1/2^level of it
            if level in wanted:
                outputs["disp", level] = torch.sigmoid(apply_in_float32(heads[level], x))
        return outputs
