"""The maths of self-supervised depth: disparity, poses, projection, image similarity, conv blocks.

Tensors in, tensors out. Camera axes are KITTI's: x right, y down, z forward. A pose `T` (4x4) takes
points of the target camera into the source camera; pixels count from 0 at the centre of the top
left pixel.
"""
from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SSIM_C1 = 0.01**2  # of images in [0, 1] (Wang et al. 2004)
SSIM_C2 = 0.03**2
EPSILON = 1e-7  # keeps divisions by an angle, a depth or a mean disparity finite


def disp_to_depth(disp: Tensor, min_depth: float, max_depth: float) -> tuple[Tensor, Tensor]:
    """Turn the network's sigmoid output into scaled disparity and depth.

    Args:
        disp: any shape, in (0, 1).
        min_depth: depth at disp = 1; its unit is that of the result.
        max_depth: depth at disp = 0.

    Returns:
        (scaled_disp, depth), both of disp's shape, with depth = 1 / scaled_disp.

    Source: Monodepth2 (arXiv:1806.01260), supplementary B.
    """
    # Faithful: linear in inverse depth, 0.1 to 100 by default
    min_disp, max_disp = 1 / max_depth, 1 / min_depth
    scaled_disp = min_disp + (max_disp - min_disp) * disp
    return scaled_disp, 1 / scaled_disp


def rot_from_axisangle(vec: Tensor) -> Tensor:
    """Return the rotation about `vec` by its length in radians (Rodrigues).

    Args:
        vec: (B, 1, 3) axis times angle.

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
    """Return the (B, 4, 4) motion by `translation_vector`, (B, 1, 3)."""
    t = translation_vector.reshape(-1, 3, 1)
    R = torch.eye(3, device=t.device, dtype=t.dtype).expand(len(t), 3, 3)
    return _homogeneous(R, t)


def _homogeneous(R: Tensor, t: Tensor) -> Tensor:
    last_row = torch.cat([torch.zeros_like(R[:, :1]), torch.ones_like(t[:, :1])], 2)
    return torch.cat([torch.cat([R, t], 2), last_row], 1)


def transformation_from_parameters(axisangle: Tensor, translation: Tensor,
                                   invert: bool = False) -> Tensor:
    """Build the rigid motion x -> R x + t, or its inverse.

    Args:
        axisangle: (B, 1, 3) radians.
        translation: (B, 1, 3), in the unit of depth.
        invert: return the motion that undoes it.

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
        (B, 4, H*W) homogeneous points, in the unit of `depth`, row-major over pixels.

    Raises:
        ValueError: `depth` and `inv_K` differ in batch size.

    Source: Zhou et al. 2017 (arXiv:1704.07813), Sec. 3.2.
    """
    B, _, H, W = depth.shape
    if len(inv_K) != B:
        raise ValueError(f"depth has batch size {B}, inv_K has {len(inv_K)}; they must agree")
    v, u = torch.meshgrid(torch.arange(H, device=depth.device, dtype=depth.dtype),
                          torch.arange(W, device=depth.device, dtype=depth.dtype), indexing="ij")
    pixels = torch.stack([u.flatten(), v.flatten(), torch.ones_like(u).flatten()])  # (3, H*W)
    points = depth.flatten(2) * (inv_K[:, :3, :3] @ pixels)                # (B, 3, H*W)
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def project(points: Tensor, K: Tensor, T: Tensor, height: int, width: int) -> Tensor:
    """Find where a source camera sees each point, as `grid_sample` wants it.

    Args:
        points: (B, 4, H*W) homogeneous points in the target camera.
        K: (B, 4, 4) intrinsics of the source camera, in pixels of an H x W image.
        T: (B, 4, 4) target camera to source camera.
        height: H.
        width: W.

    Returns:
        (B, H, W, 2) as (x, y), -1 and 1 at the centres of the outermost pixels.
    """
    in_source = (K @ T)[:, :3] @ points                                    # (B, 3, H*W)
    x, y = (in_source[:, :2] / (in_source[:, 2:] + EPSILON)).unbind(1)     # (B, H*W)
    # Faithful: division by size - 1, the convention of align_corners=True
    grid = torch.stack([x / (width - 1) * 2 - 1, y / (height - 1) * 2 - 1], 2)
    return grid.view(-1, height, width, 2)


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Look up `image` (B, C, H, W) bilinearly at `grid` (B, H', W', 2) of `project`.

    Returns:
        (B, C, H', W'), NaN where `grid` is.
    """
    # Faithful: align_corners=True, the default of PyTorch 0.4.1; outside, the border is repeated
    look_up = partial(F.grid_sample, mode="bilinear", padding_mode="border", align_corners=True)
    if is_eager_on_cpu(grid) and not grid.detach().sum().isnan():  # as nearly always
        return look_up(image, grid)
    # a NaN would become an index: on CPUs, PyTorch then reads and writes outside of the image
    lost = grid.isnan().any(-1)[:, None]
    return look_up(image, grid.nan_to_num(nan=0.0)).masked_fill(lost, torch.nan)


class BackprojectDepth(nn.Module):
    """`backproject` for code that fixes the size beforehand."""

    def __init__(self, batch_size: int, height: int, width: int):
        super().__init__()
        self.shape = (batch_size, 1, height, width)

    def forward(self, depth: Tensor, inv_K: Tensor) -> Tensor:
        """Return (B, 4, H*W) points for any `depth` of B*H*W values and (B, 4, 4) `inv_K`."""
        return backproject(depth.reshape(self.shape), inv_K)


class Project3D(nn.Module):
    """`project` for code that fixes the size beforehand."""

    def __init__(self, batch_size: int, height: int, width: int):
        super().__init__()
        self.batch_size, self.height, self.width = batch_size, height, width

    def forward(self, points: Tensor, K: Tensor, T: Tensor) -> Tensor:
        """Return the (B, H, W, 2) grid of (B, 4, H*W) `points` seen through `K` and `T`."""
        points = points.view(self.batch_size, 4, -1)
        return project(points, K, T, self.height, self.width)


def upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def resize_disp(disp: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, h, w) to (B, C, height, width), bilinearly."""
    # Faithful: disparities are upsampled with align_corners=False, unlike the warp
    return F.interpolate(disp, (height, width), mode="bilinear", align_corners=False)


def normalise_by_mean(disp: Tensor) -> Tensor:
    """Divide each (1, h, w) map of `disp` (B, 1, h, w) by its mean, so that its scale drops out."""
    return disp / (disp.mean((2, 3), keepdim=True) + EPSILON)


def get_smooth_loss(disp: Tensor, img: Tensor) -> Tensor:
    """Return the mean gradient of `disp`, discounted where `img` has edges.

    Args:
        disp: (B, 1, H, W).
        img: (B, 3, H, W) in [0, 1].

    Returns:
        A scalar: the sum of the means over both axes.

    Source: Godard et al. 2017 (arXiv:1609.03677), Eq. 3.
    """
    def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.diff(dim=3).abs(), x.diff(dim=2).abs()

    terms = [(slope * torch.exp(-edge.mean(1, keepdim=True))).mean()
             for slope, edge in zip(gradients(disp), gradients(img), strict=True)]
    return terms[0] + terms[1]


def reflect(x: Tensor) -> Tensor:
    """Mirror (..., C, H, W) about its outermost pixels: (..., C, H + 2, W + 2)."""
    padded = F.pad(x.flatten(0, -4), (1, 1, 1, 1), mode="reflect")
    return padded.view(*x.shape[:-2], *padded.shape[-2:])


class _LocalMean(torch.autograd.Function):
    """Means of 3x3 windows. Their gradient is such means again, which saves half of its time."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """Return what `local_mean` returns; its gradient needs nothing of it."""
        height, width = x.shape[-2] - 2, x.shape[-1] - 2
        if not torch.compiler.is_compiling():
            return F.avg_pool2d(x.flatten(0, -4), 3, stride=1).view(*x.shape[:-2], height, width)
        # the same sums in the same order, from slices: a compiler makes vector loads of them
        return sum(x[..., i:i + height, j:j + width] for i in range(3) for j in range(3)) / 9

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """Return the gradient of (..., C, H + 2, W + 2), from that of (..., C, H, W)."""
        return local_mean(F.pad(gradient, (2, 2, 2, 2)))


def local_mean(x: Tensor) -> Tensor:
    """Average the 3x3 windows of (..., C, H + 2, W + 2): (..., C, H, W)."""
    return _LocalMean.apply(x)


class Reference(NamedTuple):
    """What images are compared with, and the statistics of its 3x3 windows, (..., C, H, W)."""

    image: Tensor  # (..., C, H + 2, W + 2), with a reflected border
    mean: Tensor
    variance: Tensor


def reference(image: Tensor) -> Reference:
    """Return the `Reference` that an image (..., C, H + 2, W + 2) with a reflected border is."""
    mean = local_mean(image)
    return Reference(image, mean, local_mean(image * image) - mean * mean)


class Moments(NamedTuple):
    """Means of 3x3 windows, (..., C, H, W), of an image x that is compared with a reference y."""

    mean: Tensor
    square: Tensor   # of x * x
    product: Tensor  # of x * y


def moments(x: Tensor, y: Reference) -> Moments:
    """Return those of x (..., C, H + 2, W + 2) in [0, 1]; shapes of y broadcast to it."""
    return Moments(local_mean(x), local_mean(x * x), local_mean(x * y.image))


def ssim_error(x: Moments, y: Reference) -> Tensor:
    """Return clamp((1 - SSIM) / 2, 0, 1), (..., C, H, W).

    Source: Wang et al. 2004, with 3x3 mean windows.
    """
    mu_xx, mu_yy, mu_xy = x.mean * x.mean, y.mean * y.mean, x.mean * y.mean
    var_x, covariance = x.square - mu_xx, x.product - mu_xy
    likeness = (2 * mu_xy + SSIM_C1) * (2 * covariance + SSIM_C2)
    limit = (mu_xx + mu_yy + SSIM_C1) * (var_x + y.variance + SSIM_C2)
    return ((1 - likeness / limit) / 2).clamp(0, 1)


class SSIM(nn.Module):
    """Structural dissimilarity of two images, per pixel and channel."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the `ssim_error` (..., C, H, W) of images (..., C, H, W) in [0, 1]."""
        # Faithful: 3x3 means over a reflection pad of 1, C1 = 0.01^2, C2 = 0.03^2
        y = reference(reflect(y))
        return ssim_error(moments(reflect(x), y), y)


class Conv3x3(nn.Module):
    """A 3x3 convolution that keeps the size, over a reflected (default) or zero border."""

    def __init__(self, in_channels: int, out_channels: int, use_refl: bool = True):
        super().__init__()
        self.pad = nn.ReflectionPad2d(1) if use_refl else nn.ZeroPad2d(1)
        self.conv = nn.Conv2d(int(in_channels), int(out_channels), 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return self.conv(self.pad(x))


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether what happens to `x` happens on a CPU, now, and is not compiled or exported."""
    return x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing())


class _ELUOnCPU(torch.autograd.Function):
    """ELU by a vectorised exponential, to 6e-8; PyTorch's own, by expm1, takes it four times."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """Return x where it is positive, exp(x) - 1 elsewhere."""
        out = x.clamp(max=0).exp_().sub_(1)
        torch.maximum(x, out, out=out)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Return the gradient with respect to x, of which `out` tells all."""
        return torch.ops.aten.elu_backward(grad, 1, 1, 1, True, *ctx.saved_tensors)


class ELU(nn.ELU):
    """`nn.ELU`, in a quarter of its time on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape, which may be overwritten."""
        if is_eager_on_cpu(x) and x.dtype == torch.float32:
            return _ELUOnCPU.apply(x)
        return super().forward(x)


class ConvBlock(nn.Module):
    """`Conv3x3` followed by ELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)
        self.nonlin = ELU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return self.nonlin(self.conv(x))
