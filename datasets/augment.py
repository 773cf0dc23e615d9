"""From a loaded batch to what the networks see: conversion, flips, colour jitter on the device."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

GRAY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as torchvision has it
JITTER = 0.2                   # brightness, contrast, saturation: 0.8 to 1.2
HUE_JITTER = 0.1               # of the full circle, either way
PROBABILITY = 0.5              # of a flip, and of a jitter


class Augment(nn.Module):
    """Turn a batch of uint8 images into the networks' and the objective's inputs.

    In training mode each sample is flipped with probability 0.5 and jittered with probability 0.5.

    Args:
        device: where the inputs are wanted.
        frames: the frames that the networks read: only these get a "color_aug".
    """

    def __init__(self, device: torch.device | str, frames: Iterable[int | str]):
        super().__init__()
        self.device, self.frames = torch.device(device), list(frames)

    def forward(self, batch: dict) -> dict:
        """Return new inputs on the device.

        Args:
            batch: ("color", f, s) (B, 3, h, w) uint8; ("K", s), ("inv_K", s) (B, 4, 4);
                "stereo_T" (B, 4, 4); "depth_gt" (B, 1, H, W); what is there is converted.

        Returns:
            The same keys, colours float32 in [0, 1], and ("color_aug", f, 0) for `frames`.
        """
        inputs = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        for key, value in inputs.items():
            if value.dtype == torch.uint8:
                inputs[key] = as_float(value)
        # Faithful: one draw a sample for all its frames; the loss compares the plain images
        B = len(inputs["color", 0, 0])
        if self.training:
            inputs = flip(inputs, (torch.rand(B) < PROBABILITY).to(self.device))
        seen = torch.stack([inputs["color", f, 0] for f in self.frames], 1)  # (B, F, 3, H, W)
        if self.training:
            seen = jitter(seen, *draw_jitter(B))
        for f, images in zip(self.frames, seen.unbind(1), strict=True):
            inputs["color_aug", f, 0] = images
        return inputs


def as_float(images: Tensor) -> Tensor:
    """Bring uint8 images of any shape to float32 in [0, 1]."""
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


def draw_jitter(batch_size: int) -> tuple[Tensor, Tensor]:
    """Draw each sample's colour jitter.

    Returns:
        amounts: (B, 4) factors of brightness, contrast and saturation, and the shift of hue;
            1, 1, 1, 0 where a sample stays as it is.
        order: (B, 4) permutations of those four.
    """
    # Faithful: 0.8 to 1.2, hue +-0.1, in random order, with probability 0.5
    strength = torch.tensor([JITTER] * 3 + [HUE_JITTER])
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    applied = (torch.rand(batch_size, 1) < PROBABILITY).float()
    amounts = neutral + applied * strength * (2 * torch.rand(batch_size, 4) - 1)
    return amounts, torch.rand(batch_size, 4).argsort(1)


def jitter(images: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each sample, in its own order.

    Args:
        images: (B, F, 3, H, W) in [0, 1]; the F frames of a sample change alike.
        amounts: (B, 4), as `draw_jitter` makes them.
        order: (B, 4), the same.

    Returns:
        (B, F, 3, H, W) in [0, 1]. A sample of neutral amounts is returned unchanged.
    """
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    jittered = images.clone()
    changes = amounts != torch.tensor([1.0, 1.0, 1.0, 0.0])
    for turn in range(4):
        for i, operation in enumerate(operations):
            rows = ((order[:, turn] == i) & changes[:, i]).nonzero().squeeze(1)
            if len(rows):
                amount = amounts[rows, i].to(images.device)[:, None, None, None, None]
                rows = rows.to(images.device)
                jittered[rows] = operation(jittered[rows], amount)
    return jittered


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply (B, F, 3, H, W) by `factor`, which broadcasts to it."""
    return (images * factor).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Spread each image of (B, F, 3, H, W) around its mean grey."""
    mean = _gray(images).mean((-3, -2, -1), keepdim=True)
    return (factor * images + (1 - factor) * mean).clamp(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Spread each pixel of (B, F, 3, H, W) around its grey."""
    return (factor * images + (1 - factor) * _gray(images)).clamp(0, 1)


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


def _gray(images: Tensor) -> Tensor:
    weights = torch.tensor(GRAY, device=images.device).view(3, 1, 1)
    return (images * weights).sum(-3, keepdim=True)
