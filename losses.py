"""Compute the training loss: minimum reprojection error, auto-masking, edge-aware smoothness."""
from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import (
    TargetStatistics,
    WindowMeans,
    backproject,
    disp_to_depth,
    get_smooth_loss,
    normalise_by_mean,
    project,
    reflect,
    resize_disp,
    sample,
    ssim_error,
    target_statistics,
    window_means,
)

SSIM_WEIGHT = 0.85      # Faithful: 0.85 SSIM + 0.15 L1
TIE_NOISE = 1e-5        # decides between equal identity and warped errors
MASK_WEIGHT = 0.2       # weight of the loss that keeps a predictive mask open


class ReprojectionObjective(nn.Module):
    """Compute the minimum reprojection loss with auto-masking, and the smoothness loss.

    The objective has no parameters, and computes in float32 whatever the networks' precision. One
    warp and one SSIM serve F source frames and S scales of one size, stacked as (F, B, S, ...).

    Args:
        frame_ids: 0, then the source frames (offsets in time, "s" for the other stereo view).
        scales: scales of the disparities.
        min_depth: depth at disparity 1.
        max_depth: depth at disparity 0.
        disparity_smoothness: weight of the smoothness at scale 0.
        v1_multiscale: compare images at the size of each disparity instead of full size.
        avg_reprojection: take the mean over source frames instead of the minimum.
        automasking: ignore pixels that an unwarped source frame explains better.
        predictive_mask: multiply the error by the outputs ("predictive_mask", s).
        ssim: compare images by SSIM and L1 instead of L1 alone.
        scale_translation: multiply translations by the mean inverse depth (for PoseCNN).
        velocity_weight: weight of the loss that makes predicted translations metric.
        tie_noise: standard deviation of the noise on the identity errors.

    Source: Godard et al. 2019 (arXiv:1806.01260), Sec. 3.
    """

    def __init__(self, frame_ids: Sequence[int | str], scales: Sequence[int],
                 min_depth: float = 0.1, max_depth: float = 100.0,
                 disparity_smoothness: float = 1e-3, v1_multiscale: bool = False,
                 avg_reprojection: bool = False, automasking: bool = True,
                 predictive_mask: bool = False, ssim: bool = True,
                 scale_translation: bool = False, velocity_weight: float = 0,
                 tie_noise: float = TIE_NOISE):
        super().__init__()
        self.sources, self.scales = list(frame_ids[1:]), list(scales)
        self.min_depth, self.max_depth = min_depth, max_depth
        self.disparity_smoothness = disparity_smoothness
        self.avg_reprojection, self.automasking = avg_reprojection, automasking
        self.predictive_mask, self.scale_translation = predictive_mask, scale_translation
        self.ssim, self.velocity_weight = ssim, velocity_weight
        self.tie_noise = tie_noise
        # Faithful: every disparity is compared at full size, unless --v1_multiscale
        self.sizes = [(s, [s]) for s in self.scales] if v1_multiscale else [(0, self.scales)]

    def forward(self, inputs: dict, outputs: dict) -> tuple[dict[str, Tensor], dict[tuple, Tensor]]:
        """Compute the losses of a batch, and the images that show them.

        Args:
            inputs: ("color", f, s) (B, 3, h, w) in [0, 1], all scales of frame 0 and scale 0 of the
                source frames (all scales with v1_multiscale); ("K", s), ("inv_K", s) (B, 4, 4), in
                pixels of scale s. Optional "mask" (B, 1, H, W) bool: pixels where it is False are
                left out of the photometric loss. With a velocity weight, "distances" (B, F),
                metres from frame 0 to the source frames in time.
            outputs: as `Monodepth2` returns them; ("K", s) and ("inv_K", s) count if there.

        Returns:
            losses: scalars "loss", and for each scale "loss/s" and its terms "photometric/s",
                "smoothness/s", "mask/s" before weighting; "velocity" likewise.
            views: ("depth", 0, s) (B, 1, H, W), warped ("color", f, s) (B, 3, H, W) and
                ("automask", s) (B, H, W), 1 where a warped source frame has the lower error.
        """
        losses, views = {}, {}
        for size, scales in self.sizes:
            photometric, mask_terms, seen = self._photometric(size, scales, inputs, outputs)
            views.update(seen)
            for i, s in enumerate(scales):
                losses[f"photometric/{s}"] = photometric[i]
                losses[f"smoothness/{s}"] = self._smoothness(inputs["color", 0, s], outputs, s)
                # Faithful: the weight of smoothness halves from scale to scale
                weight = self.disparity_smoothness / 2**s
                losses[f"loss/{s}"] = photometric[i] + weight * losses[f"smoothness/{s}"]
                if self.predictive_mask:
                    losses[f"mask/{s}"] = mask_terms[i]
                    losses[f"loss/{s}"] = losses[f"loss/{s}"] + MASK_WEIGHT * mask_terms[i]
        # Faithful: the mean over scales
        losses["loss"] = sum(losses[f"loss/{s}"] for s in self.scales) / len(self.scales)
        if self.velocity_weight:
            losses["velocity"] = self._velocity(inputs["distances"], outputs)
            losses["loss"] = losses["loss"] + self.velocity_weight * losses["velocity"]
        return losses, views

    def _photometric(self, size: int, scales: list[int], inputs: dict,
                     outputs: dict) -> tuple[Tensor, Tensor | None, dict[tuple, Tensor]]:
        """Compute the photometric losses (S,), mask losses (S,) and views of scales of one size."""
        image = inputs["color", 0, size]                                    # (B, 3, H, W)
        mask = self._mask_at(size, inputs)                                  # (B, 1, H, W) or None
        # depth of the target frame, from the disparities resized to the size of the image
        disp = self._resize([outputs["disp", s] for s in scales], image).squeeze(1)
        depth = disp_to_depth(disp, self.min_depth, self.max_depth)[1]      # (B, S, H, W)
        # source frames warped into the target view
        sources = torch.stack([inputs["color", f, size] for f in self.sources])  # (F, B, 3, H, W)
        T = self._poses(outputs, depth)                                     # (F, B, S, 4, 4)
        # learned intrinsics replace those of the inputs
        K, inv_K = (outputs.get((name, size), inputs[name, size]) for name in ("K", "inv_K"))
        warped = self._warp(sources, depth, T, K, inv_K)                    # (F, B, S, 3, H+2, W+2)
        if mask is not None:  # hidden also from the windows of SSIM that reach under the mask
            sources = torch.where(mask, sources, image)
            warped = torch.where(self._reflect(mask.float())[:, None] > 0, warped,
                                 self._reflect(image)[:, None])
        # error of the source frames as they are, and of the warped frames at every scale
        target = self._target_statistics(image)
        identity = self._identity_error(sources, target) if self.automasking else None
        target = TargetStatistics(*(part[:, None] for part in target))      # (B, 1, 3, H, W)
        means = self._window_means(warped, target)
        errors = self._error(warped, means, target)                         # (F, B, S, H, W)
        mask_losses = None
        if self.predictive_mask:
            errors, mask_losses = self._mask(errors, outputs, scales, image)
        # minimum over source frames, then the mean over batch and pixels
        minimum, automask = self._minimum(errors, identity)                 # (B, S, H, W)
        if mask is not None:
            minimum = torch.where(mask, minimum, 0)
            automask = None if automask is None else automask * mask
        views = self._views(scales, depth, warped, automask)
        # a GPU samples the border where a coordinate is NaN, so a NaN in a pose must reach the loss
        # from here; a NaN in a disparity reaches it through the smoothness
        photometric = self._mean(minimum, mask) + 0 * T.detach().sum()
        return photometric, mask_losses, views

    def _mask_at(self, size: int, inputs: dict) -> Tensor | None:
        """Return the inputs' mask at a scale: where all pixels of a cell count. None: no mask."""
        mask = inputs.get("mask")
        if mask is None or size == 0:
            return mask
        return -F.max_pool2d(-mask.float(), 2**size) > 0

    def _mean(self, errors: Tensor, mask: Tensor | None) -> Tensor:
        """Average errors (B, S, H, W) over the batch and the pixels that count: (S,)."""
        if mask is None:
            return errors.mean((0, 2, 3))
        return errors.sum((0, 2, 3)) / mask.sum().clamp(min=1)

    def _resize(self, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        """Resize S maps (B, C, h, w) to the size of an image (B, 3, H, W): (B, C, S, H, W)."""
        return torch.stack([resize_disp(x.float(), *image.shape[2:]) for x in maps], 2)

    def _poses(self, outputs: dict, depth: Tensor) -> Tensor:
        """Return the (F, B, S, 4, 4) poses from the target camera to each source camera."""
        (B, S), poses = depth.shape[:2], []
        for f in self.sources:
            T = outputs["cam_T_cam", 0, f].float()[:, None].expand(B, S, 4, 4)
            if self.scale_translation and f != "s":
                # Faithful: PoseCNN's translation is multiplied by the mean inverse depth
                factor = torch.ones_like(T)
                factor[..., :3, 3] = (1 / depth).mean((2, 3))[..., None]
                T = T * factor
            poses.append(T)
        return torch.stack(poses)

    def _warp(self, sources: Tensor, depth: Tensor, T: Tensor, K: Tensor, inv_K: Tensor) -> Tensor:
        """Warp the source frames into the target view, padded by reflection.

        Args:
            sources: (F, B, 3, H, W).
            depth: (B, S, H, W) of the target frame.
            T: (F, B, S, 4, 4), from the target camera to each source camera.
            K: (B, 4, 4) intrinsics in pixels of the images.
            inv_K: (B, 4, 4) its inverse.

        Returns:
            (F, B, S, 3, H + 2, W + 2).
        """
        (n_sources, B), (S, H, W) = sources.shape[:2], depth.shape[1:]
        K, inv_K = (matrix.repeat_interleave(S, 0) for matrix in (K, inv_K))
        # lift the pixels of the target frame to 3-D points
        points = backproject(depth.view(B * S, 1, H, W), inv_K)             # (B*S, 4, H*W)
        # project the points into every source camera
        grid = project(points.repeat(n_sources, 1, 1), K.repeat(n_sources, 1, 1),
                       T.reshape(-1, 4, 4), H, W)                           # (F*B*S, H, W, 2)
        # reflected coordinates sample a reflected border
        grid = F.pad(grid, (0, 0, 1, 1, 1, 1), mode="reflect")              # (F*B*S, H+2, W+2, 2)
        # the scales of a source frame stack up along the height: one image serves them all
        grid = grid.reshape(n_sources * B, S * (H + 2), W + 2, 2)
        warped = self._sample(sources.flatten(0, 1), grid)                  # (F*B, 3, S*(H+2), W+2)
        return warped.view(n_sources, B, 3, S, H + 2, W + 2).transpose(2, 3)

    def _sample(self, image: Tensor, grid: Tensor) -> Tensor:
        """Sample images (B, 3, H, W) at coordinates (B, H', W', 2): (B, 3, H', W')."""
        return sample(image, grid)

    def _reflect(self, images: Tensor) -> Tensor:
        """Pad images by reflection: (..., 3, H, W) -> (..., 3, H + 2, W + 2)."""
        return reflect(images)

    def _target_statistics(self, image: Tensor) -> TargetStatistics:
        """Precompute the window statistics of the target image (B, 3, H, W) for SSIM."""
        return target_statistics(self._reflect(image))

    def _window_means(self, images: Tensor, target: TargetStatistics) -> WindowMeans | None:
        """Compute the window means that SSIM compares, (..., 3, H, W); None without SSIM."""
        return window_means(images, target) if self.ssim else None

    def _error(self, images: Tensor, means: WindowMeans | None, target: TargetStatistics) -> Tensor:
        """Compute the photometric error pe, (..., H, W).

        Args:
            images: (..., 3, H + 2, W + 2) in [0, 1], padded by reflection.
            means: window means of the images; None compares by L1 alone.
            target: statistics of the target image, in shapes that broadcast to those of the images.
        """
        l1 = (target.image - images)[..., 1:-1, 1:-1].abs().mean(-3)
        if means is None:
            return l1
        return SSIM_WEIGHT * ssim_error(means, target).mean(-3) + (1 - SSIM_WEIGHT) * l1

    def _identity_error(self, sources: Tensor, target: TargetStatistics) -> Tensor:
        """Compute the lowest error of the unwarped source frames, (B, 1, H, W)."""
        # Faithful: an unmoved frame competes, with noise against ties. All scales share its errors,
        # and the noise too: it decides between equal errors within a scale, nothing between scales
        sources = self._reflect(sources)                                    # (F, B, 3, H+2, W+2)
        means = self._window_means(sources, target)
        errors = self._error(sources, means, target)                        # (F, B, H, W)
        if self.avg_reprojection:
            errors = errors.mean(0, keepdim=True)                           # (1, B, H, W)
        return (errors + self.tie_noise * torch.randn_like(errors)).amin(0)[:, None]

    def _mask(self, errors: Tensor, outputs: dict, scales: list[int],
              image: Tensor) -> tuple[Tensor, Tensor]:
        """Weight errors (F, B, S, H, W) by the predictive masks; return the mask losses (S,), too.

        Source: Zhou et al. 2017 (arXiv:1704.07813), Sec. 3.3.
        """
        masks = self._resize([outputs["predictive_mask", s] for s in scales], image)
        masks = masks.transpose(0, 1)                                       # (F, B, S, H, W)
        errors = errors * masks
        # cross-entropy with a mask of ones keeps the masks from closing
        losses = F.binary_cross_entropy(masks, torch.ones_like(masks), reduction="none")
        return errors, losses.mean((0, 1, 3, 4))

    def _minimum(self, errors: Tensor,
                 identity: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Reduce errors (F, B, S, H, W) to the per-pixel minimum reprojection error (B, S, H, W).

        Args:
            errors: of the warped source frames.
            identity: (B, 1, H, W) error of the unwarped source frames; None without auto-masking.

        Returns:
            The error per pixel, and the auto-mask mu: 1 where a warped frame has the lower error.
        """
        # Faithful: the minimum over source frames, or their mean with --avg_reprojection
        warped = errors.mean(0) if self.avg_reprojection else reduce(torch.minimum, errors)
        if identity is None:
            return warped, None
        # False where the warped error is NaN, so that the NaN reaches the loss
        is_still = identity <= warped                                       # (B, S, H, W)
        return torch.where(is_still, identity, warped), 1 - is_still.float()

    def _views(self, scales: list[int], depth: Tensor, warped: Tensor,
               automask: Tensor | None) -> dict[tuple, Tensor]:
        """Return depth, warped source frames and auto-masks by scale, for logs."""
        views = {}
        for i, s in enumerate(scales):
            views["depth", 0, s] = depth[:, i:i + 1].detach()
            for f, frame in zip(self.sources, warped, strict=True):
                views["color", f, s] = frame[:, i, :, 1:-1, 1:-1].detach()  # without the padding
            if automask is not None:
                views["automask", s] = automask[:, i]
        return views

    def _velocity(self, distances: Tensor, outputs: dict) -> Tensor:
        """Compute the mean difference of predicted and travelled distances (B, F), metres.

        Source: Guizilini et al. 2020 (arXiv:1905.02693), Sec. 3.3.
        """
        times = [f for f in self.sources if f != "s"]
        t = torch.stack([outputs["cam_T_cam", 0, f][:, :3, 3].float() for f in times], 1)
        if self.scale_translation:  # as in `_poses`; scaled disparity is inverse depth
            disp = outputs["disp", 0].float()
            inverse_depth = disp_to_depth(disp, self.min_depth, self.max_depth)[0]
            t = t * inverse_depth.mean((1, 2, 3))[:, None, None]            # (B, F, 3)
        return (t.norm(dim=2) - distances).abs().mean()

    def _smoothness(self, image: Tensor, outputs: dict, scale: int) -> Tensor:
        """Compute the edge-aware smoothness loss of a scale."""
        # Faithful: mean-normalised disparity against the image of its own scale
        return get_smooth_loss(normalise_by_mean(outputs["disp", scale].float()), image)
