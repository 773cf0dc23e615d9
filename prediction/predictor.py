"""A weights folder as one module: images in, scaled inverse depth and depth out."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints.architecture import load_model
from checkpoints.training_camera import read_training_camera
from datasets import as_float
from datasets.images import resize, resize_float
from layers import disp_to_depth, resize_disp

METRES, RELATIVE = "metres", "relative"
EXPECTED = ("expected RGB: a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], or a uint8 array "
            "(B, H, W, 3) or (H, W, 3)")


class Prediction(NamedTuple):
    """What a network says of B images, at their size and on its device.

    Attributes:
        disp: (B, 1, H, W) scaled inverse depth, in 1 / the network's unit of length.
        depth: (B, 1, H, W) distance along the optical axis, in `unit`.
        unit: "metres", or "relative": but for a factor that is not known, and may differ from
            image to image.
    """

    disp: Tensor
    depth: Tensor
    unit: str


class Predictor(nn.Module):
    """Join the networks of a weights folder with their input size, depth range and unit of depth.

    Args:
        folder: a weights folder of train.py, or a published one: encoder.pth and depth.pth.
        device: the device of the networks.
        min_depth: depth at disparity 1; by default that of training.
        max_depth: depth at disparity 0; by default that of training.
        with_pose: load the pose network too.

    Attributes:
        model: `Monodepth2`, in evaluation mode.
        height, width: size of the network's input, pixels.
        use_stereo: whether stereo pairs were used in training.
        training_camera: depth range, baseline, intrinsics and unit of depth.

    Raises:
        DataError: a file is missing or broken, or `min_depth` is not below `max_depth`.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu",
                 min_depth: float | None = None, max_depth: float | None = None,
                 with_pose: bool = False):
        super().__init__()
        self.model, input_format = load_model(folder, with_pose=with_pose, device=device)
        self.height, self.width, self.use_stereo = input_format
        self.training_camera = read_training_camera(folder, self.use_stereo).with_range(
            min_depth, max_depth)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled inverse depth and depth = 1 / it, in the network's unit of length.

        Args:
            image: (B, 3, height, width) in [0, 1].

        Returns:
            Two of (B, 1, height, width).
        """
        return disp_to_depth(self.model.disparity(image), self.training_camera.min_depth,
                             self.training_camera.max_depth)

    @torch.no_grad()
    def predict(self, images: Tensor | np.ndarray) -> Prediction:
        """Predict images of any size, resized with LANCZOS as those of the training were.

        Args:
            images: RGB, a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], on any device, or a
                uint8 array (B, H, W, 3) or (H, W, 3).

        Returns:
            Maps at the size of the images; B is 1 for a single one.

        Raises:
            ValueError: the images are of another type, shape or range.
        """
        images = _batch(images)
        device = next(self.parameters()).device
        disp = resize_disp(self(self._resized(images).to(device))[0], *images.shape[2:])
        metres = self.training_camera.metres
        return Prediction(disp, (metres or 1) / disp, RELATIVE if metres is None else METRES)

    def _resized(self, images: Tensor) -> Tensor:
        """Bring (B, 3, H, W), uint8 or float32, to the network's size, in [0, 1]."""
        if images.dtype == torch.uint8:  # to the bit what test_simple.py makes of a file
            return as_float(torch.stack([resize(image, self.height, self.width, exact=True)
                                         for image in images]))
        return resize_float(images, self.height, self.width)


def _batch(images: Tensor | np.ndarray) -> Tensor:
    """Return (B, 3, H, W), uint8 of an array, float32 of a tensor.

    Raises:
        ValueError: they are of another type, shape or range.
    """
    if _has(images, np.ndarray, channels=-1) and images.dtype == np.uint8:
        # a copy: PyTorch takes no mirrored axes (BGR read backwards), and warns of read-only memory
        batch = torch.from_numpy(np.array(images, order="C")).movedim(-1, -3)
    elif _has(images, Tensor, channels=-3) and images.is_floating_point():
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"images reach from {low:g} to {high:g}; expected 0 to 1: divide by "
                             "255, or clamp them, and do not subtract a mean")
        batch = images.float()
    else:
        raise ValueError(f"images are {type(images).__name__} {getattr(images, 'dtype', '')} "
                         f"{tuple(getattr(images, 'shape', ()))}; {EXPECTED}")
    return batch if batch.ndim == 4 else batch[None]


def _has(images: object, kind: type, channels: int) -> bool:
    """Whether `images` is one or several, of a type, with three `channels` along that axis."""
    return (isinstance(images, kind) and images.ndim in (3, 4) and images.shape[channels] == 3
            and 0 not in images.shape)
