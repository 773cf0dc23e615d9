"""From a loaded batch to what the networks see: conversion, flips, colour jitter on the device."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from datasets.images import pyramid

GRAY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as torchvision has it
JITTER = 0.2                   # brightness, contrast, saturation: 0.8 to 1.2
HUE_JITTER = 0.1               # of the full circle, either way
PROBABILITY = 0.5              # of a flip, and of a jitter


class Augment(nn.Module):
    """Turn a batch of uint8 images into the networks' and the objective's inputs.

    In training mode each sample is flipped with probability 0.5 and jittered with probability 0.5.
    All of it happens on the device, without a look at the values: the device is never waited for.

    Args:
        device: where the inputs are wanted.
        frames: the frames that the networks read: only these get a "color_aug".
        num_scales: images in the pyramid of frame 0, each half the size of the one before.
        pyramids: make the pyramid of every frame (--v1_multiscale).
    """

    def __init__(self, device: torch.device | str, frames: Iterable[int | str],
                 num_scales: int = 1, pyramids: bool = False):
        super().__init__()
        self.device, self.frames = torch.device(device), list(frames)
        self.num_scales, self.pyramids = num_scales, pyramids

    def forward(self, batch: dict) -> dict:
        """Return new inputs on the device.

        Args:
            batch: ("color", f, 0) (B, 3, H, W) uint8; ("K", s), ("inv_K", s) (B, 4, 4);
                "stereo_T" (B, 4, 4); "depth_gt" (B, 1, H', W'); what is there is converted.

        Returns:
            The same keys, ("color", f, s) (B, 3, H / 2^s, W / 2^s) float32 in [0, 1], and
            ("color_aug", f, 0) for `frames`.
        """
        moved = {key: torch.as_tensor(value).to(self.device, non_blocking=True)
                 for key, value in batch.items()}
        if not self.training:
            return Augment._change(self, moved)  # as it is: not worth compiling once more
        B = len(moved["color", 0, 0])
        # Faithful: one draw a sample for all its frames; the loss compares the plain images
        flips = torch.rand(B, device=self.device) < PROBABILITY
        return self._change(moved, flips, *draw_jitter(B, self.device))

    def compile(self, *args, **kwargs):
        """Compile, as `nn.Module.compile` does, all but the copy to the device and the draws."""
        self._change = torch.compile(self._change, *args, **kwargs)

    def _change(self, moved: dict, flips: Tensor | None = None, amounts: Tensor | None = None,
                order: Tensor | None = None) -> dict:
        """Return `moved` as inputs, changed by what was drawn."""
        inputs = {key: value for key, value in moved.items() if key[0] != "color"}
        for kind, f, _ in [key for key in moved if key[0] == "color"]:
            levels = self.num_scales if f == 0 or self.pyramids else 1
            for s, level in enumerate(pyramid(moved[kind, f, 0], levels)):
                inputs[kind, f, s] = as_float(level)
        if flips is not None:
            inputs = flip(inputs, flips)
        seen = torch.stack([inputs["color", f, 0] for f in self.frames], 1)  # (B, F, 3, H, W)
        if amounts is not None:
            seen = jitter(seen, amounts, order)
        for f, images in zip(self.frames, seen.unbind(1), strict=True):
            inputs["color_aug", f, 0] = images
        return inputs


def as_float(images: Tensor) -> Tensor:
    """Bring images of any shape and type from 0-255 to float32 in [0, 1]."""
    return images.float() / 255


def flip(inputs: dict, chosen: Tensor) -> dict:
    """Mirror the chosen samples: images, ground truth, principal points and the stereo baseline.

    Args:
        inputs: as `Augment` returns them.
        chosen: (B,) bool.
    """
    flipped = dict(inputs)
    here = chosen[:, None, None, None]
    for key, value in inputs.items():
        if key == "depth_gt" or key[0] == "color":
            flipped[key] = torch.where(here, value.flip(3), value)
        elif key[0] == "K":
            width = inputs["color", 0, 0].shape[3] // 2 ** key[1]
            K, inv_K = value.clone(), inputs["inv_K", key[1]].clone()
            # Faithful: mirrored about width / 2, which leaves the published principal point alone
            K[:, 0, 2] = torch.where(chosen, width - K[:, 0, 2], K[:, 0, 2])
            inv_K[:, 0, 2] = torch.where(chosen, -K[:, 0, 2] * inv_K[:, 0, 0], inv_K[:, 0, 2])
            flipped[key], flipped["inv_K", key[1]] = K, inv_K
        elif key == "stereo_T":
            # Faithful: the sign of the baseline changes with a flip
            T = value.clone()
            T[:, 0, 3] = torch.where(chosen, -T[:, 0, 3], T[:, 0, 3])
            flipped[key] = T
    return flipped


def draw_jitter(batch_size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw each sample's colour jitter.

    Returns:
        amounts: (B, 4) factors of brightness, contrast and saturation, and the shift of hue;
            1, 1, 1, 0 where a sample stays as it is.
        order: (B, 4) permutations of those four.
    """
    # Faithful: 0.8 to 1.2, hue +-0.1, in random order, with probability 0.5
    applied = torch.rand(batch_size, 1, device=device) < PROBABILITY
    change = applied * (2 * torch.rand(batch_size, 4, device=device) - 1)
    amounts = torch.cat([1 + JITTER * change[:, :3], HUE_JITTER * change[:, 3:]], 1)
    return amounts, torch.rand(batch_size, 4, device=device).argsort(1)


def jitter(images: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each sample, in its own order.

    Args:
        images: (B, F, 3, H, W) in [0, 1]; the F frames of a sample change alike.
        amounts: (B, 4), as `draw_jitter` makes them.
        order: (B, 4), the same.

    Returns:
        (B, F, 3, H, W) in [0, 1]. A sample of neutral amounts is returned unchanged.
    """
    # Each sample is blended three times, its hue is turned, and it is blended three times more: of
    # the six blends three are neutral, those that its own order has on the other side of hue.
    turns = order.argsort(1)                                               # of each operation
    is_before = turns[:, :3] < turns[:, 3:]
    steps = torch.where(is_before, turns[:, :3], turns[:, :3] + 2)         # 0 1 2, or 3 4 5
    weights = _blend_weights(amounts)
    neutral = _blend_weights(torch.ones_like(amounts)).repeat(1, 2, 1)     # (B, 6, 3)
    blends = neutral.scatter(1, steps[:, :, None].expand_as(weights), weights)
    hue = amounts[:, 3, None, None, None, None]
    for step in range(3):
        images = blend(images, blends[:, step])
    images = torch.where(hue == 0, images, adjust_hue(images, hue))
    for step in range(3, 6):
        images = blend(images, blends[:, step])
    return images


def _blend_weights(amounts: Tensor) -> Tensor:
    """Return (B, 3, 3): what `blend` needs for brightness, contrast and saturation."""
    brightness, contrast, saturation, _ = amounts.unbind(1)
    none = torch.zeros_like(brightness)
    return torch.stack([torch.stack([brightness, none, none], 1),
                        torch.stack([contrast, none, 1 - contrast], 1),
                        torch.stack([saturation, 1 - saturation, none], 1)], 1)


def blend(images: Tensor, weights: Tensor) -> Tensor:
    """Mix images with their grey: brightness, contrast and saturation in one formula.

    Args:
        images: (B, F, 3, H, W) in [0, 1].
        weights: (B, 3) of the image, of each pixel's grey, and of the whole image's mean grey.

    Returns:
        (B, F, 3, H, W) in [0, 1].
    """
    own, grey, mean = (w[:, None, None, None, None] for w in weights.unbind(1))
    greys = sum(w * channel for w, channel in zip(GRAY, images.split(1, -3), strict=True))
    means = greys.mean((-2, -1), keepdim=True)
    return (own * images + (grey * greys + mean * means)).clamp(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hues of (B, F, 3, H, W) by `shift`, in full circles."""
    r, g, b = images.unbind(-3)
    value, low = images.amax(-3), images.amin(-3)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(value == r, (g - b) / safe,
                      torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))  # sixths
    hue = (hue + 6 * shift.squeeze(-3)) % 6
    # each channel falls from `value` by up to `chroma` with the hue's distance from it
    distances = [(hue + start) % 6 for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in distances],
                       -3).clamp(0, 1)
