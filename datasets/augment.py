"""Convert, flip and jitter a loaded batch on the device of the networks."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from datasets.images import as_float, halving_matrices, pyramid

GRAY = (0.2989, 0.587, 0.114)  # luma weights of ITU-R BT.601, rounded as in torchvision
JITTER = 0.2                   # brightness, contrast, saturation: 0.8 to 1.2
HUE_JITTER = 0.1               # largest shift of hue, as a fraction of the colour circle
PROBABILITY = 0.5              # of a flip, and of a jitter
MATRICES = ("K", "inv_K", "stereo_T")


class Augment(nn.Module):
    """Convert a batch of uint8 images to the inputs of the networks and of the objective.

    In training mode, each sample is flipped with probability 0.5 and jittered with probability 0.5.
    There is no data-dependent control flow, so no GPU sync.

    Args:
        device: device of the returned inputs.
        frames: frames that the networks read; only these frames get a "color_aug".
        num_scales: images in the pyramid of frame 0, each half the size of the image before.
        pyramids: build the pyramid of every frame (--v1_multiscale).
    """

    def __init__(self, device: torch.device | str, frames: Iterable[int | str],
                 num_scales: int = 1, pyramids: bool = False):
        super().__init__()
        self.device, self.frames = torch.device(device), list(frames)
        self.num_scales, self.pyramids = num_scales, pyramids
        self._make_training_inputs = make_inputs  # `compile` replaces it
        self._matrices: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}  # by image size

    def forward(self, batch: dict) -> dict:
        """Convert a batch to new inputs on the device.

        Args:
            batch: ("color", f, 0) (B, 3, H, W) uint8; ("K", s), ("inv_K", s) (B, 4, 4); optional
                "stereo_T" (B, 4, 4), "mask" (B, 1, H, W), "depth_gt" (B, 1, H', W') and "camera"
                (B,), which adds "flipped" (B,) bool in training.
                `pack_matrices` may have packed the matrices. Or a batch of items, which is only
                moved to the device.

        Returns:
            The same keys, with ("color", f, s) (B, 3, H / 2^s, W / 2^s) float32 in [0, 1], and
            ("color_aug", f, 0) for `frames`.
        """
        moved = unpack_matrices({key: torch.as_tensor(value).to(self.device, non_blocking=True)
                                 for key, value in batch.items()})
        if ("color_aug", 0, 0) in moved:  # the items of a dataset are inputs already
            return moved
        B, _, *size = moved["color", 0, 0].shape
        matrices = self._halving_matrices(*size)
        if not self.training:  # validation is too rare to be worth another compilation
            return make_inputs(moved, self.frames, self.num_scales, self.pyramids, matrices)
        # Faithful: one draw a sample for all its frames; the loss compares the plain images
        flips = torch.rand(B, device=self.device) < PROBABILITY
        return self._make_training_inputs(moved, self.frames, self.num_scales, self.pyramids,
                                          matrices, flips, *draw_jitter(B, self.device))

    def _halving_matrices(self, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
        """Return the matrices of the pyramid, made at the first batch of each size."""
        if (height, width) not in self._matrices:
            self._matrices[height, width] = halving_matrices(height, width, self.num_scales,
                                                             self.device)
        return self._matrices[height, width]

    def compile(self, *args, **kwargs):
        """Compile the conversion, but neither the copy to the device nor the random draws.

        Args:
            args: arguments of `torch.compile`.
            kwargs: keyword arguments of `torch.compile`.
        """
        self._make_training_inputs = torch.compile(make_inputs, *args, **kwargs)


def pack_matrices(batch: dict) -> dict:
    """Pack the matrices of a batch into one tensor, which can be pinned and is copied at once.

    Args:
        batch: as `collate` returns it.

    Returns:
        ("matrices", names) (B, n, 4, 4), the n matrices that had the keys `names`; all other keys.
    """
    names = tuple(key for key in batch if name_in(key) in MATRICES)
    packed = {key: value for key, value in batch.items() if key not in names}
    packed["matrices", names] = torch.from_numpy(np.stack([batch[name] for name in names], 1))
    return packed


def unpack_matrices(batch: dict) -> dict:
    """Undo `pack_matrices`; a batch that is not packed stays as it is."""
    unpacked = {}
    for key, value in batch.items():
        if name_in(key) == "matrices":
            unpacked.update(zip(key[1], value.unbind(1), strict=True))     # (B, 4, 4) each
        else:
            unpacked[key] = value
    return unpacked


def make_inputs(moved: dict, frames: Sequence[int | str], num_scales: int, pyramids: bool,
                matrices: list[tuple[Tensor, Tensor]], flips: Tensor | None = None,
                amounts: Tensor | None = None, order: Tensor | None = None) -> dict:
    """Build the inputs of the networks and of the objective, flipped and jittered as drawn.

    Args:
        moved: a loaded batch, on the device.
        frames: frames that get a "color_aug".
        num_scales: images in the pyramid of frame 0.
        pyramids: build the pyramid of every frame.
        matrices: of `halving_matrices`, for `num_scales`.
        flips: (B,) bool, samples to flip; None flips none of them.
        amounts: (B, 4) from `draw_jitter`; None leaves the colours as they are.
        order: (B, 4) from `draw_jitter`.
    """
    inputs = {key: value for key, value in moved.items() if name_in(key) != "color"}
    # the pyramid of each frame, in [0, 1]
    for _, f, _ in [key for key in moved if name_in(key) == "color"]:
        levels = num_scales if f == 0 or pyramids else 1
        for s, level in enumerate(pyramid(moved["color", f, 0], levels, matrices)):
            inputs["color", f, s] = as_float(level)                        # (B, 3, H/2^s, W/2^s)
    if flips is not None:
        inputs = flip(inputs, flips)
    # the frames of a sample change colour alike
    seen = torch.stack([inputs["color", f, 0] for f in frames], 1)         # (B, F, 3, H, W)
    if amounts is not None:
        seen = jitter(seen, amounts, order)
    for f, frame in zip(frames, seen.unbind(1), strict=True):
        inputs["color_aug", f, 0] = frame                                  # (B, 3, H, W)
    return inputs


def name_in(key: str | tuple) -> str:
    """Return the name in a key: "color" for ("color", f, s), "stereo_T" for "stereo_T"."""
    return key if isinstance(key, str) else key[0]


def flip(inputs: dict, chosen: Tensor) -> dict:
    """Flip the chosen samples: images, masks, depths, principal points and the baseline.

    Args:
        inputs: as `Augment` returns them.
        chosen: (B,) bool.
    """
    flipped = dict(inputs)
    here = chosen[:, None, None, None]
    for key, value in inputs.items():
        name = name_in(key)
        if name in ("color", "depth_gt", "mask"):
            flipped[key] = torch.where(here, value.flip(3), value)
        elif name == "K":
            width = inputs["color", 0, 0].shape[3] // 2 ** key[1]
            K, inv_K = value.clone(), inputs["inv_K", key[1]].clone()
            # Faithful: mirrored about width / 2, which leaves the published principal point alone
            K[:, 0, 2] = torch.where(chosen, width - K[:, 0, 2], K[:, 0, 2])
            inv_K[:, 0, 2] = torch.where(chosen, -K[:, 0, 2] * inv_K[:, 0, 0], inv_K[:, 0, 2])
            flipped[key], flipped["inv_K", key[1]] = K, inv_K
        elif name == "camera":  # who learns its centre must know which samples mirror it
            flipped["flipped"] = chosen
        elif name == "stereo_T":
            # Faithful: the sign of the baseline changes with a flip
            T = value.clone()
            T[:, 0, 3] = torch.where(chosen, -T[:, 0, 3], T[:, 0, 3])
            flipped[key] = T
    return flipped


def draw_jitter(batch_size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw the colour jitter of each sample.

    Returns:
        amounts: (B, 4) factors of brightness, contrast and saturation, and the shift of hue;
            1, 1, 1, 0 for a sample that stays as it is.
        order: (B, 4) permutations of these four operations.
    """
    # Faithful: 0.8 to 1.2, hue +-0.1, in random order, with probability 0.5
    applied = torch.rand(batch_size, 1, device=device) < PROBABILITY
    change = applied * (2 * torch.rand(batch_size, 4, device=device) - 1)
    amounts = torch.cat([1 + JITTER * change[:, :3], HUE_JITTER * change[:, 3:]], 1)
    return amounts, torch.rand(batch_size, 4, device=device).argsort(1)


def jitter(images: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each sample, in the order drawn for it.

    Args:
        images: (B, F, 3, H, W) in [0, 1]; the F frames of a sample change alike.
        amounts: (B, 4) from `draw_jitter`.
        order: (B, 4) from `draw_jitter`.

    Returns:
        (B, F, 3, H, W) in [0, 1]. A sample with neutral amounts is returned unchanged.
    """
    # All samples go through the same steps: three blends, the shift of hue, three more blends. Of
    # the six blends of a sample, three are neutral: the order of the sample decides which three.
    positions = order.argsort(1)                                           # (B, 4) by operation
    is_before_hue = positions[:, :3] < positions[:, 3:]
    # blends before hue are steps 0 1 2, blends after hue are steps 3 4 5
    steps = torch.where(is_before_hue, positions[:, :3], positions[:, :3] + 2)
    weights = _blend_weights(amounts)                                      # (B, 3, 3)
    neutral = _blend_weights(torch.ones_like(amounts)).repeat(1, 2, 1)     # (B, 6, 3)
    blends = neutral.scatter(1, steps[:, :, None].expand_as(weights), weights)
    hue = amounts[:, 3, None, None, None, None]
    for step in range(3):
        images = blend(images, blends[:, step])
    images = torch.where(hue == 0, images, adjust_hue(images, hue))
    for step in range(3, 6):
        images = blend(images, blends[:, step])
    return images


def draw_image_jitter(brightness: tuple[float, float], contrast: tuple[float, float],
                      saturation: tuple[float, float], hue: tuple[float, float],
                      probability: float) -> Callable[[Image.Image], Image.Image]:
    """Draw the colour jitter of one item; return the function that jitters each of its images.

    Args:
        brightness: lowest and highest factor, as `contrast` and `saturation`.
        contrast: see `brightness`.
        saturation: see `brightness`.
        hue: lowest and highest shift, a fraction of the colour circle.
        probability: how often images are jittered instead of left as they are.
    """
    if torch.rand(()) >= probability:
        return lambda image: image
    # slow to import, and the trainer does without
    from torchvision.transforms import ColorJitter, functional
    order, *amounts = ColorJitter.get_params(brightness, contrast, saturation, hue)
    changes = (functional.adjust_brightness, functional.adjust_contrast,
               functional.adjust_saturation, functional.adjust_hue)

    def jitter_image(image: Image.Image) -> Image.Image:
        for i in order:
            image = changes[i](image, amounts[i])
        return image
    return jitter_image


def _blend_weights(amounts: Tensor) -> Tensor:
    """Compute the weights of `blend` for brightness, contrast and saturation, (B, 3, 3)."""
    brightness, contrast, saturation, _ = amounts.unbind(1)
    zero = torch.zeros_like(brightness)
    return torch.stack([torch.stack([brightness, zero, zero], 1),
                        torch.stack([contrast, zero, 1 - contrast], 1),
                        torch.stack([saturation, 1 - saturation, zero], 1)], 1)


def blend(images: Tensor, weights: Tensor) -> Tensor:
    """Blend images with grey: one formula for brightness, contrast and saturation.

    Args:
        images: (B, F, 3, H, W) in [0, 1].
        weights: (B, 3) weights of the image, of its grey image, and of the mean of its grey image.

    Returns:
        (B, F, 3, H, W) in [0, 1].
    """
    own, grey, mean = (w[:, None, None, None, None] for w in weights.unbind(1))
    greys = sum(w * channel for w, channel in zip(GRAY, images.split(1, -3), strict=True))
    means = greys.mean((-2, -1), keepdim=True)
    return (own * images + (grey * greys + mean * means)).clamp(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of images (B, F, 3, H, W) by `shift`, a fraction of the colour circle."""
    r, g, b = images.unbind(-3)
    value, low = images.amax(-3), images.amin(-3)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    # hue of each pixel in sixths of the circle, shifted
    hue = torch.where(value == r, (g - b) / safe,
                      torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = (hue + 6 * shift.squeeze(-3)) % 6
    # a channel is lower than `value` by up to `chroma`, the farther the hue is from that channel
    distances = [(hue + start) % 6 for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in distances],
                       -3).clamp(0, 1)
