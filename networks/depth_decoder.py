"""From a feature pyramid to disparities at several scales."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import Conv3x3, ConvBlock, is_eager_on_cpu, reflect, upsample

NUM_CH_DEC = (16, 32, 64, 128, 256)  # channels at 1/1, 1/2, ... 1/16 of the input size


def convolve_upsampled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve `upsample(x)` over a reflected border, by 4 products a pixel instead of 9.

    Args:
        x: (B, in, H, W).
        weight: (out, in, 3, 3).
        bias: (out,).

    Returns:
        (B, out, 2H, 2W).
    """
    # four pixels are one of x: the weights that meet it add up, and the two steps are a
    # transposed convolution. The reflected border of a doubled map is its outermost pixels again
    kernel = F.avg_pool2d(weight.flip(2, 3), 2, stride=1, padding=1, divisor_override=1)  # 4x4
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv_transpose2d(x, kernel.transpose(0, 1), bias, stride=2, padding=3)


class UpConvBlock(ConvBlock):
    """`ConvBlock` of a map twice the size, joined with a feature map of that size."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (B, c, H, W), and a skip of (B, in - c, 2H, 2W) if c < in, to (B, out, 2H, 2W)."""
        if not is_eager_on_cpu(x):
            x = upsample(x)
            return super().forward(x if skip is None else torch.cat([x, skip], 1))
        # a CPU predicts in four fifths of the time so, and trains the decoder in nine tenths
        conv, channels = self.conv.conv, x.shape[1]
        out = convolve_upsampled(x, conv.weight[:, :channels], conv.bias)
        if skip is not None:
            out += F.conv2d(reflect(skip), conv.weight[:, channels:])
        return self.nonlin(out)


class DepthDecoder(nn.Module):
    """A U-Net decoder with a sigmoid head at each of `scales`.

    Args:
        num_ch_enc: channels of the encoder's five features.
        scales: which heads to make; scale s has 1 / 2^s of the input size.
        num_output_channels: channels of each head (1 for disparity).
        use_skips: join the encoder's features on the way up.

    Source: Monodepth2, supplementary Table 5; `decoder.<n>` counts five pairs of blocks from the
    coarsest on, then the heads, as published checkpoints do.
    """

    def __init__(self, num_ch_enc: Sequence[int], scales: Iterable[int] = range(4),
                 num_output_channels: int = 1, use_skips: bool = True):
        super().__init__()
        self.scales, self.use_skips = list(scales), use_skips
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
            input_features: the encoder's five maps for an H x W image.
            scales: those wanted, all of the decoder's if None.
        """
        blocks, heads = self.decoder[:10], dict(zip(self.scales, self.decoder[10:], strict=True))
        wanted = heads if scales is None else scales
        outputs = {}
        x = input_features[-1]
        for level, before, after in zip(reversed(range(5)), blocks[::2], blocks[1::2], strict=True):
            skip = input_features[level - 1] if self.use_skips and level > 0 else None
            x = after(before(x), skip)
            if level in wanted:
                # in float32: eight bits of disparity would put steps into depth
                outputs["disp", level] = torch.sigmoid(heads[level](x).float())
        return outputs
