"""Compute the formulas of self-supervised depth: disparity, pose, projection, SSIM; conv blocks.

Every function maps tensors to tensors. Camera axes are KITTI's: x right, y down, z forward. A pose
`T` (4x4) maps points from the target camera to the source camera. Pixel (0, 0) is the centre of the
top left pixel.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metrics import compute_errors as compute_depth_errors
from metrics.depth import disp_to_depth

# the names that `from layers import *` gives to code written against Monodepth2
__all__ = ["SSIM", "BackprojectDepth", "Conv3x3", "ConvBlock", "F", "Project3D",
           "compute_depth_errors", "disp_to_depth", "get_smooth_loss", "get_translation_matrix",
           "nn", "np", "rot_from_axisangle", "torch", "transformation_from_parameters",
           "upsample"]

SSIM_C1 = 0.01**2  # for images in [0, 1] (Wang et al. 2004)
SSIM_C2 = 0.03**2
EPSILON = 1e-7  # keeps a division by an angle, a depth or a mean disparity finite


def rot_from_axisangle(vec: Tensor) -> Tensor:
    """Convert an axis-angle vector to a rotation matrix (Rodrigues' formula).

    Args:
        vec: (B, 1, 3) unit axis times angle in radians.

    Returns:
        (B, 4, 4) homogeneous rotation.
    """
    B = len(vec)
    angle = torch.linalg.vector_norm(vec, dim=2, keepdim=True)             # (B, 1, 1)
    x, y, z = (vec / (angle + EPSILON)).reshape(B, 3).unbind(1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).view(B, 3, 3)
    axis = torch.stack([x, y, z], 1)
    outer = axis[:, :, None] * axis[:, None, :]
    identity = torch.eye(3, device=vec.device, dtype=vec.dtype)
    R = torch.cos(angle) * identity + torch.sin(angle) * cross + (1 - torch.cos(angle)) * outer
    return _homogeneous(R, torch.zeros_like(vec).reshape(B, 3, 1))


def get_translation_matrix(translation_vector: Tensor) -> Tensor:
    """Convert (B, 1, 3) translation vectors to (B, 4, 4) homogeneous translations."""
    t = translation_vector.reshape(-1, 3, 1)
    R = torch.eye(3, device=t.device, dtype=t.dtype).expand(len(t), 3, 3)
    return _homogeneous(R, t)


def _homogeneous(R: Tensor, t: Tensor) -> Tensor:
    """Assemble (B, 4, 4) transformations from rotations (B, 3, 3) and translations (B, 3, 1)."""
    last_row = torch.cat([torch.zeros_like(R[:, :1]), torch.ones_like(t[:, :1])], 2)
    return torch.cat([torch.cat([R, t], 2), last_row], 1)


def transformation_from_parameters(axisangle: Tensor, translation: Tensor,
                                   invert: bool = False) -> Tensor:
    """Build the rigid transformation x -> R x + t, or the inverse of that transformation.

    Args:
        axisangle: (B, 1, 3) radians.
        translation: (B, 1, 3), in the unit of depth.
        invert: return the inverse.

    Returns:
        (B, 4, 4).
    """
    R = rot_from_axisangle(axisangle)
    if invert:
        return R.transpose(1, 2) @ get_translation_matrix(-translation)
    return get_translation_matrix(translation) @ R


def backproject(depth: Tensor, inv_K: Tensor) -> Tensor:
    """Lift every pixel to the 3-D point it sees, in the frame of its own camera.

    Args:
        depth: (B, 1, H, W) distance along the optical axis, in any unit, > 0.
        inv_K: (B, 4, 4) inverse intrinsics, in pixels of an H x W image.

    Returns:
        (B, 4, H*W) homogeneous points, in the unit of `depth`, row-major over pixels; as precise
        as `inv_K`, also for a depth in half precision.

    Raises:
        ValueError: `depth` and `inv_K` differ in batch size.

    Source: Zhou et al. 2017 (arXiv:1704.07813), Sec. 3.2.
    """
    B, _, H, W = depth.shape
    if len(inv_K) != B:
        raise ValueError(f"depth has batch size {B}, inv_K has {len(inv_K)}; they must agree")
    # homogeneous pixel coordinates (u, v, 1)
    v, u = torch.meshgrid(torch.arange(H, device=depth.device, dtype=inv_K.dtype),
                          torch.arange(W, device=depth.device, dtype=inv_K.dtype), indexing="ij")
    pixels = torch.stack([u.flatten(), v.flatten(), torch.ones_like(u).flatten()])  # (3, H*W)
    # the ray of each pixel, as long as its depth
    points = depth.flatten(2) * (inv_K[:, :3, :3] @ pixels)                # (B, 3, H*W)
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def project(points: Tensor, K: Tensor, T: Tensor, height: int, width: int,
            eps: float = EPSILON) -> Tensor:
    """Project 3-D points into a source camera, in the coordinates of `grid_sample`.

    Args:
        points: (B, 4, H*W) homogeneous points in the frame of the target camera.
        K: (B, 4, 4) intrinsics of the source camera, in pixels of an H x W image.
        T: (B, 4, 4) pose, from the target camera to the source camera.
        height: H.
        width: W.
        eps: added to the distance along the optical axis, by which coordinates are divided.

    Returns:
        (B, H, W, 2) coordinates (x, y), -1 and 1 at the centres of the outermost pixels.
    """
    # pinhole projection: K T X, then division by the distance along the optical axis
    in_source = (K @ T)[:, :3] @ points                                    # (B, 3, H*W)
    x, y = (in_source[:, :2] / (in_source[:, 2:] + eps)).unbind(1)         # (B, H*W)
    # Faithful: division by size - 1, the convention of align_corners=True
    grid = torch.stack([x / (width - 1) * 2 - 1, y / (height - 1) * 2 - 1], 2)
    return grid.view(-1, height, width, 2)


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Sample an image bilinearly at the coordinates that `project` returns.

    Args:
        image: (B, C, H, W).
        grid: (B, H', W', 2).

    Returns:
        (B, C, H', W'). Where a coordinate is NaN: NaN on a CPU, the border elsewhere.
    """
    if not grid.is_cpu:
        return _sample_finite(image, grid)
    # at a NaN, grid_sample reads and writes outside the image on CPUs: sample elsewhere, mark it
    is_nan = grid.isnan().any(-1)[:, None]                                 # (B, 1, H', W')
    return _sample_finite(image, grid.nan_to_num(nan=0.0)).masked_fill(is_nan, torch.nan)


def _sample_finite(image: Tensor, grid: Tensor) -> Tensor:
    """Sample like `sample`; on a GPU, a coordinate that is NaN counts as -1."""
    # Faithful: align_corners=True, the default of PyTorch 0.4.1; outside, the border is repeated
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


class BackprojectDepth(nn.Module):
    """Lift pixels to 3-D points, like `backproject`, for images of one fixed size."""

    def __init__(self, batch_size: int, height: int, width: int):
        super().__init__()
        self.batch_size, self.height, self.width = batch_size, height, width

    def forward(self, depth: Tensor, inv_K: Tensor) -> Tensor:
        """Map a depth of B*H*W values, in any shape, and inv_K to (B, 4, H*W) points.

        Args:
            depth: see `backproject`.
            inv_K: (B, 4, 4), or (1, 4, 4) for one camera.
        """
        depth = depth.reshape(self.batch_size, 1, self.height, self.width)
        return backproject(depth, inv_K.expand(self.batch_size, -1, -1))


class Project3D(nn.Module):
    """Project 3-D points into a camera, like `project`, for images of one fixed size."""

    def __init__(self, batch_size: int, height: int, width: int, eps: float = EPSILON):
        super().__init__()
        self.batch_size, self.height, self.width, self.eps = batch_size, height, width, eps

    def forward(self, points: Tensor, K: Tensor, T: Tensor) -> Tensor:
        """Map (B, 4, H*W) points, K (B, 4, 4) and T (B, 4, 4) to a (B, H, W, 2) grid."""
        points = points.view(self.batch_size, 4, -1)
        return project(points, K, T, self.height, self.width, self.eps)


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def resize_disp(disp: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, h, w) to (B, C, height, width), bilinearly."""
    # Faithful: disparities are upsampled with align_corners=False, unlike the warp
    return F.interpolate(disp, (height, width), mode="bilinear", align_corners=False)


def normalise_by_mean(disp: Tensor) -> Tensor:
    """Divide each disparity map of a (B, 1, h, w) batch by the mean of that map."""
    return disp / (disp.mean((2, 3), keepdim=True) + EPSILON)


def get_smooth_loss(disp: Tensor, img: Tensor) -> Tensor:
    """Compute the edge-aware smoothness loss: |grad disp| * exp(-|grad img|).

    Args:
        disp: (B, 1, H, W).
        img: (B, 3, H, W) in [0, 1].

    Returns:
        A scalar: the mean over horizontal gradients plus the mean over vertical gradients.

    Source: Godard et al. 2017 (arXiv:1609.03677), Eq. 3.
    """
    def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.diff(dim=3).abs(), x.diff(dim=2).abs()

    terms = [(slope * torch.exp(-edge.mean(1, keepdim=True))).mean()
             for slope, edge in zip(gradients(disp), gradients(img), strict=True)]
    return terms[0] + terms[1]


def reflect(x: Tensor) -> Tensor:
    """Pad images by reflection: (..., C, H, W) -> (..., C, H + 2, W + 2)."""
    padded = _reflect_maps(x.flatten(0, -4))
    return padded.view(*x.shape[:-2], *padded.shape[-2:])


def _reflect_maps(x: Tensor) -> Tensor:
    """Pad maps by reflection, in their own memory format: (B, C, H, W) -> (B, C, H + 2, W + 2)."""
    # a GPU pads NCHW only: channels_last would be copied to NCHW, padded, and copied back. Compiled
    # code has its own way, and only the gradient of the NCHW kernel can be deterministic
    if (x.is_cpu or x.is_contiguous() or torch.compiler.is_compiling()
            or torch.are_deterministic_algorithms_enabled()):
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    return _reflect_as_volumes(x)


def _reflect_as_volumes(x: Tensor) -> Tensor:
    """Pad channels_last maps (B, C, H, W) as the volumes (H, W, C) that they are in memory."""
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1), mode="reflect").permute(0, 3, 1, 2)


class _ReflectionPad(nn.ReflectionPad2d):
    """Pad maps by reflection, in their own memory format."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H + 2, W + 2)."""
        return _reflect_maps(x)


class _LocalMean(torch.autograd.Function):
    """Average 3x3 windows, with a gradient that is an average of 3x3 windows, too.

    PyTorch's own gradient of an average takes twice the time.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """Map (..., C, H + 2, W + 2) to (..., C, H, W)."""
        means = F.avg_pool2d(x.flatten(0, -4), 3, stride=1)
        return means.view(*x.shape[:-2], *means.shape[-2:])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """Map the gradient of the output, (..., C, H, W), to that of x, (..., C, H + 2, W + 2)."""
        return local_mean(F.pad(gradient, (2, 2, 2, 2)))


def local_mean(x: Tensor) -> Tensor:
    """Average the 3x3 windows of images: (..., C, H + 2, W + 2) -> (..., C, H, W)."""
    return _LocalMean.apply(x)


class TargetStatistics(NamedTuple):
    """The target image y, padded, and the statistics of its 3x3 windows for SSIM.

    Attributes:
        image: (..., C, H + 2, W + 2) y, padded by reflection.
        mean: (..., C, H, W) mu_y.
        variance: (..., C, H, W) sigma_y^2.
    """

    image: Tensor
    mean: Tensor
    variance: Tensor


def target_statistics(image: Tensor) -> TargetStatistics:
    """Precompute the window statistics of a padded target image (..., C, H + 2, W + 2) for SSIM."""
    mean = local_mean(image)
    return TargetStatistics(image, mean, local_mean(image * image) - mean * mean)


class WindowMeans(NamedTuple):
    """The 3x3 window means of x, x*x and x*y, each (..., C, H, W), for SSIM of images x and y."""

    x: Tensor
    xx: Tensor
    xy: Tensor


def window_means(image: Tensor, target: TargetStatistics) -> WindowMeans:
    """Compute the window means of a padded image x, and of its product with the target y.

    Args:
        image: (..., C, H + 2, W + 2) x in [0, 1], padded by reflection.
        target: the statistics of y, in shapes that broadcast to the shape of x.
    """
    return WindowMeans(local_mean(image), local_mean(image * image),
                       local_mean(image * target.image))


def ssim_error(means: WindowMeans, target: TargetStatistics) -> Tensor:
    """Compute clamp((1 - SSIM) / 2, 0, 1) per pixel and channel: (..., C, H, W).

    Args:
        means: the window means of an image x, from `window_means`.
        target: the statistics of the target image y.

    Source: Wang et al. 2004, Eq. 13, with 3x3 mean windows.
    """
    # products of the means: mu_x^2, mu_y^2, mu_x mu_y
    mu_xx, mu_yy, mu_xy = means.x * means.x, target.mean * target.mean, means.x * target.mean
    # sigma_x^2 and the covariance sigma_xy
    var_x, cov_xy = means.xx - mu_xx, means.xy - mu_xy
    numerator = (2 * mu_xy + SSIM_C1) * (2 * cov_xy + SSIM_C2)
    denominator = (mu_xx + mu_yy + SSIM_C1) * (var_x + target.variance + SSIM_C2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


class SSIM(nn.Module):
    """Compute the structural dissimilarity of two images, per pixel and channel."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map two images (..., C, H, W) in [0, 1] to clamp((1 - SSIM) / 2, 0, 1)."""
        # Faithful: 3x3 means over a reflection pad of 1, C1 = 0.01^2, C2 = 0.03^2
        target = target_statistics(reflect(y))
        return ssim_error(window_means(reflect(x), target), target)


class Conv3x3(nn.Module):
    """Convolve with a 3x3 kernel over a border padded by reflection, or with zeros."""

    def __init__(self, in_channels: int, out_channels: int, use_refl: bool = True):
        super().__init__()
        self.pad = _ReflectionPad(1) if use_refl else nn.ZeroPad2d(1)
        self.conv = nn.Conv2d(int(in_channels), int(out_channels), 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return self.conv(self.pad(x))


class ConvBlock(nn.Module):
    """Convolve with a 3x3 kernel, then apply ELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)
        self.nonlin = nn.ELU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return self.nonlin(self.conv(x))
