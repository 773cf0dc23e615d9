"""Predict depth with a weights folder: images in, scaled inverse depth and depth out."""
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
from layers import resize_disp
from metrics.depth import batch_post_process_disparity
from runtime.hub import find_weights
from runtime.machine import keep_freed_memory

METRES, RELATIVE = "metres", "relative"
EXPECTED = ("expected RGB: a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], or a uint8 array "
            "(B, H, W, 3) or (H, W, 3)")


class Prediction(NamedTuple):
    """Hold the predictions for B images, at their size and on the device of the network.

    Attributes:
        disp: (B, 1, H, W) scaled inverse depth, in 1 / the network's unit of length.
        depth: (B, 1, H, W) distance along the optical axis, in `unit`.
        unit: "metres", or "relative": depth up to an unknown scale factor, which may differ from
            image to image.
    """

    disp: Tensor
    depth: Tensor
    unit: str


class Predictor(nn.Module):
    """Predict depth with the networks, input size, depth range and unit of a weights folder.

    Args:
        folder: a weights folder of train.py, a published one, or a shared one, with the networks
            encoder and depth; or hf:user/name, which is downloaded from the Hugging Face Hub.
        device: where the networks run.
        min_depth: depth at disparity 1 (default: the value used in training).
        max_depth: depth at disparity 0 (default: the value used in training).
        with_pose: also load the pose network.

    Attributes:
        folder: the weights folder, also of a name that was downloaded.
        model: `Monodepth2`, in evaluation mode.
        height, width: size of the network's input, pixels.
        use_stereo: whether the weights were trained with stereo pairs.
        training_camera: depth range, baseline, intrinsics and unit of depth.

    Raises:
        DataError: a file is missing or broken, or `min_depth` is not below `max_depth`.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu",
                 min_depth: float | None = None, max_depth: float | None = None,
                 with_pose: bool = False):
        super().__init__()
        self.folder = Path(find_weights(folder))
        self.model, input_format = load_model(self.folder, with_pose=with_pose, device=device)
        self.height, self.width, self.use_stereo = input_format
        self.training_camera = read_training_camera(self.folder, self.use_stereo).with_range(
            min_depth, max_depth)
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device on which the networks run."""
        return next(self.parameters()).device

    def keep_freed_memory(self) -> None:
        """Reuse the memory of earlier batches on a CPU, in the whole process.

        Many batches of one size then take a sixth less time.
        """
        if self.device.type == "cpu":
            keep_freed_memory()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute scaled inverse depth and depth, in the network's unit of length.

        Args:
            image: (B, 3, height, width) in [0, 1].

        Returns:
            Scaled inverse depth and its inverse, depth: both (B, 1, height, width).
        """
        return self.training_camera.disp_to_depth(self.model.disparity(image))

    @torch.no_grad()
    def disparity(self, images: Tensor) -> Tensor:
        """Compute the network's own output, before the depth range is applied.

        Args:
            images: (B, 3, height, width), uint8 or float in [0, 1], on any device.

        Returns:
            (B, 1, height, width) in (0, 1), on the device of the network.
        """
        return self.model.disparity(self._as_input(images))

    def disparity_array(self, images: np.ndarray) -> np.ndarray:
        """Compute the network's own output for arrays, as `OnnxPredictor` does.

        Args:
            images: (B, 3, height, width) uint8.

        Returns:
            (B, 1, height, width) in (0, 1).
        """
        self.keep_freed_memory()
        return self.disparity(torch.from_numpy(images)).cpu().numpy()

    @staticmethod
    def resize_disp(disp: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize (B, 1, h, w) disparities to (B, 1, height, width), bilinearly."""
        return resize_disp(torch.from_numpy(disp), height, width).numpy()

    @torch.no_grad()
    def scaled_disparity(self, images: Tensor, post_process: bool = False) -> np.ndarray:
        """Compute scaled inverse depth, in 1 / the network's unit of length.

        Args:
            images: (B, 3, height, width), uint8 or float in [0, 1], on any device.
            post_process: average with the prediction of the mirrored images, mirrored back.

        Returns:
            (B, height, width) float32; float64 with `post_process`, whose weights are float64.
        """
        images = self._as_input(images)
        if not post_process:
            return self(images)[0][:, 0].cpu().numpy()
        disps = self(torch.cat([images, images.flip(3)]))[0][:, 0].cpu().numpy()  # (2B, h, w)
        plain, mirrored = np.split(disps, 2)
        return batch_post_process_disparity(plain, mirrored[:, :, ::-1])

    @torch.no_grad()
    def predict(self, images: Tensor | np.ndarray) -> Prediction:
        """Predict depth of images of any size; LANCZOS resizes them, as it does in training.

        Args:
            images: RGB, a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], on any device, or a
                uint8 array (B, H, W, 3) or (H, W, 3).

        Returns:
            Maps of the size of the images; B is 1 for a single image.

        Raises:
            ValueError: the type, shape or value range of the images is wrong.
        """
        images = _batch(images)
        scaled, _ = self(self._as_input(self._resized(images)))
        disp = resize_disp(scaled, *images.shape[2:])
        is_relative = self.training_camera.metres is None
        return Prediction(disp, self.training_camera.unit().factor / disp,
                          RELATIVE if is_relative else METRES)

    def _as_input(self, images: Tensor) -> Tensor:
        """Move uint8 or float images to the network's device, as float32 in [0, 1]."""
        images = images.to(self.device)
        return as_float(images) if images.dtype == torch.uint8 else images.float()

    def _resized(self, images: Tensor) -> Tensor:
        """Resize (B, 3, H, W) to the network's size; uint8 images get exactly Pillow's result."""
        if images.dtype == torch.uint8:
            return torch.stack([resize(image, self.height, self.width, exact=True)
                                for image in images])
        return resize_float(images, self.height, self.width)


def _batch(images: Tensor | np.ndarray) -> Tensor:
    """Validate images and return (B, 3, H, W): uint8 from an array, float32 from a tensor.

    Raises:
        ValueError: the type, shape or value range of the images is wrong.
    """
    if _is_rgb(images, np.ndarray, channel_axis=-1) and images.dtype == np.uint8:
        # a copy: PyTorch rejects mirrored axes (BGR read backwards) and warns of read-only memory
        batch = torch.from_numpy(np.array(images, order="C")).movedim(-1, -3)
    elif _is_rgb(images, Tensor, channel_axis=-3) and images.is_floating_point():
        low, high = torch.stack(images.aminmax()).cpu()  # one wait for the device
        if not (low >= 0 and high <= 1):
            raise ValueError(f"images reach from {low:g} to {high:g}; expected 0 to 1: divide by "
                             "255, or clamp them, and do not subtract a mean")
        batch = images.float()
    else:
        raise ValueError(f"images are {type(images).__name__} {getattr(images, 'dtype', '')} "
                         f"{tuple(getattr(images, 'shape', ()))}; {EXPECTED}")
    return batch if batch.ndim == 4 else batch[None]


def _is_rgb(images: object, kind: type, channel_axis: int) -> bool:
    """Whether `images` is one image or a batch, of type `kind`, with three channels."""
    return (isinstance(images, kind) and images.ndim in (3, 4)
            and images.shape[channel_axis] == 3 and 0 not in images.shape)
