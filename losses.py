"""The objective: source frames warped into the target, their photometric error, and smoothness."""
from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import (
    Moments,
    Reference,
    backproject,
    disp_to_depth,
    get_smooth_loss,
    moments,
    normalise_by_mean,
    project,
    reference,
    reflect,
    resize_disp,
    sample,
    ssim_error,
)

SSIM_WEIGHT = 0.85      # Faithful: 0.85 SSIM + 0.15 L1
TIE_NOISE = 1e-5        # decides between equal identity and warped errors
MASK_WEIGHT = 0.2       # of the term that keeps a predictive mask from closing


def _as_they_are(maps: tuple) -> tuple:
    return maps


class _OnGPU:
    """Steps of the objective that a compiler may take apart and join with others."""

    sample, resize_disp, reflect, computed = map(
        staticmethod, (sample, resize_disp, reflect, _as_they_are))


class _OnCPU:
    """The same steps, where it may not.

    It would make scalar loops of the first three, which take ten times as long, and compute maps
    anew in all that uses them; with them computed once, the objective takes two thirds of the time.
    """

    sample, resize_disp, reflect, computed = map(
        staticmethod, map(torch.compiler.disable, (sample, resize_disp, reflect, _as_they_are)))


def _steps(x: Tensor) -> type[_OnGPU] | type[_OnCPU]:
    return _OnGPU if x.is_cuda else _OnCPU


class ReprojectionObjective(nn.Module):
    """Minimum reprojection error with auto-masking, and edge-aware smoothness, over scales.

    Args:
        frame_ids: 0, then the source frames (offsets in time, "s" for the other stereo view).
        scales: scales of the disparities.
        min_depth: depth at disparity 1.
        max_depth: depth at disparity 0.
        disparity_smoothness: weight of the smoothness at scale 0.
        v1_multiscale: compare images at the size of each disparity, not at full size.
        avg_reprojection: mean over source frames, not the minimum.
        automasking: ignore pixels that an unmoved source frame explains better.
        predictive_mask: weight the error by ("predictive_mask", s) of the outputs.
        ssim: compare structure too, not only intensities.
        scale_translation: multiply translations by the mean inverse depth (for PoseCNN).
        tie_noise: standard deviation of the noise on identity errors.

    It has no parameters and computes in float32, whatever the networks' precision. F source frames
    and S scales of one size are folded into (F, B, S, ...) so that one warp and one SSIM serve all.

    Source: Godard et al. 2019 (arXiv:1806.01260), Sec. 3.
    """

    def __init__(self, frame_ids: Sequence[int | str], scales: Sequence[int],
                 min_depth: float = 0.1, max_depth: float = 100.0,
                 disparity_smoothness: float = 1e-3, v1_multiscale: bool = False,
                 avg_reprojection: bool = False, automasking: bool = True,
                 predictive_mask: bool = False, ssim: bool = True,
                 scale_translation: bool = False, tie_noise: float = TIE_NOISE):
        super().__init__()
        self.sources, self.scales = list(frame_ids[1:]), list(scales)
        self.min_depth, self.max_depth = min_depth, max_depth
        self.disparity_smoothness = disparity_smoothness
        self.avg_reprojection, self.automasking = avg_reprojection, automasking
        self.predictive_mask, self.scale_translation = predictive_mask, scale_translation
        self.ssim = ssim
        self.tie_noise = tie_noise
        # Faithful: every disparity is compared at full size, unless --v1_multiscale
        self.sizes = [(s, [s]) for s in self.scales] if v1_multiscale else [(0, self.scales)]

    def forward(self, inputs: dict, outputs: dict) -> tuple[dict[str, Tensor], dict[tuple, Tensor]]:
        """Compare the source frames, seen through `outputs`, with the target.

        Args:
            inputs: ("color", f, s) (B, 3, h, w) in [0, 1], all scales of frame 0 and scale 0 of the
                sources (all, with v1_multiscale); ("K", s), ("inv_K", s) (B, 4, 4), in pixels.
            outputs: what `Monodepth2` returns.

        Returns:
            losses: scalars "loss", and for each scale "loss/s" and its terms "photometric/s",
                "smoothness/s", "mask/s" before weighting.
            views: ("depth", 0, s) (B, 1, H, W), warped ("color", f, s) (B, 3, H, W) and
                ("automask", s) (B, H, W), 1 where the pixel counts.
        """
        losses, views = {}, {}
        for size, scales in self.sizes:
            photometric, mask_terms, seen = self._photometric(size, scales, inputs, outputs)
            views |= seen
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
        return losses, views

    def _photometric(self, size: int, scales: list[int], inputs: dict,
                     outputs: dict) -> tuple[Tensor, Tensor | None, dict[tuple, Tensor]]:
        """Return (S,) errors, (S,) mask terms and views of the `scales` compared at one `size`."""
        image = inputs["color", 0, size]
        (height, width), steps = image.shape[2:], _steps(image)
        disp = torch.cat([steps.resize_disp(outputs["disp", s].float(), height, width)
                          for s in scales], 1)
        depth = disp_to_depth(disp, self.min_depth, self.max_depth)[1]      # (B, S, H, W)
        sources = torch.stack([inputs["color", f, size] for f in self.sources])
        warped = self._warp(sources, depth, self._poses(outputs, depth), size, inputs)
        target = steps.computed(reference(steps.reflect(image)))
        identity = self._identity_error(sources, target) if self.automasking else None
        for_scales = Reference(*(part[:, None] for part in target))
        windows = self._moments(warped, for_scales)
        errors = self._error(warped, windows, for_scales)                   # (F, B, S, H, W)

        mask_terms = None
        if self.predictive_mask:
            masks = torch.stack([
                steps.resize_disp(outputs["predictive_mask", s].float(), height, width)
                for s in scales], 2).transpose(0, 1)                        # (F, B, S, H, W)
            errors = errors * masks
            to_open = F.binary_cross_entropy(masks, torch.ones_like(masks), reduction="none")
            mask_terms = to_open.mean((0, 1, 3, 4))                         # (S,)
        minimum, automask = self._minimum(errors, identity)

        views = {}
        for i, s in enumerate(scales):
            views["depth", 0, s] = depth[:, i:i + 1].detach()
            for f, seen in zip(self.sources, warped, strict=True):
                views["color", f, s] = seen[:, i, :, 1:-1, 1:-1].detach()
            if automask is not None:
                views["automask", s] = automask[:, i]
        return minimum.mean((0, 2, 3)), mask_terms, views

    def _poses(self, outputs: dict, depth: Tensor) -> Tensor:
        """Return the (F, B, S, 4, 4) motions from the target to each source."""
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

    def _warp(self, sources: Tensor, depth: Tensor, T: Tensor, size: int, inputs: dict) -> Tensor:
        """Return (F, B, S, 3, H + 2, W + 2): each source as the target camera sees it at `depth`.

        Its border is reflected, by reflecting the places that are looked up.
        """
        (n_sources, B), (S, H, W) = sources.shape[:2], depth.shape[1:]
        K, inv_K = (inputs[name, size].repeat_interleave(S, 0) for name in ("K", "inv_K"))
        points = backproject(depth.view(B * S, 1, H, W), inv_K)
        grid = project(points.repeat(n_sources, 1, 1), K.repeat(n_sources, 1, 1),
                       T.reshape(-1, 4, 4), H, W)
        grid = F.pad(grid, (0, 0, 1, 1, 1, 1), mode="reflect")              # (F*B*S, H+2, W+2, 2)
        # the scales of a source frame stack up along the height: its image is not repeated
        grid = grid.reshape(n_sources * B, S * (H + 2), W + 2, 2)
        warped = _steps(grid).sample(sources.flatten(0, 1), grid)
        return warped.view(n_sources, B, 3, S, H + 2, W + 2).transpose(2, 3)

    def _moments(self, image: Tensor, target: Reference) -> Moments | None:
        return _steps(image).computed(moments(image, target)) if self.ssim else None

    def _error(self, image: Tensor, windows: Moments | None, target: Reference) -> Tensor:
        """Return the photometric error (..., H, W) of images (..., 3, H + 2, W + 2) in [0, 1].

        Args:
            image: with a reflected border.
            windows: its `_moments`.
            target: of shapes that broadcast to it.
        """
        l1 = (target.image - image)[..., 1:-1, 1:-1].abs().mean(-3)
        if windows is None:
            return l1
        return SSIM_WEIGHT * ssim_error(windows, target).mean(-3) + (1 - SSIM_WEIGHT) * l1

    def _identity_error(self, sources: Tensor, target: Reference) -> Tensor:
        """Return the (B, 1, H, W) error of the best source frame as it is; it has no gradient."""
        # Faithful: an unmoved frame competes, with noise against ties. All scales share its errors,
        # and the noise too: it decides between equal errors within a scale, nothing between scales
        sources = _steps(sources).reflect(sources)
        windows = self._moments(sources, target)
        errors = self._error(sources, windows, target)                      # (F, B, H, W)
        if self.avg_reprojection:
            errors = errors.mean(0, keepdim=True)
        return (errors + self.tie_noise * torch.randn_like(errors)).amin(0)[:, None]

    def _minimum(self, errors: Tensor,
                 identity: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the (B, S, H, W) error that counts, and where it is a warped frame's."""
        # Faithful: the minimum over source frames, or their mean with --avg_reprojection
        warped = errors.mean(0) if self.avg_reprojection else reduce(torch.minimum, errors)
        if identity is None:
            return warped, None
        is_still = identity <= warped  # and not so where the warped one is NaN, which shall show
        return torch.where(is_still, identity, warped), 1 - is_still.float()

    def _smoothness(self, image: Tensor, outputs: dict, scale: int) -> Tensor:
        # Faithful: mean-normalised disparity against the image of its own scale
        return get_smooth_loss(normalise_by_mean(outputs["disp", scale].float()), image)

