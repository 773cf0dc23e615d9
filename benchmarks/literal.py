"""Run the published pipeline as the paper writes it: eager, float32, one frame and scale at a time.

The project's speed and numbers are compared with this pipeline. It shares only the networks, the
flags, the reading of split lists and `run` with the project.

    python benchmarks/literal.py train --data_path kitti_data --split eigen_zhou
    python benchmarks/literal.py evaluate --data_path kitti_data --eval_mono --load_weights_folder W
    python benchmarks/literal.py export --data_path kitti_data --split eigen --out gt_depths.npz
"""
from __future__ import annotations

import argparse
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

if __name__ == "__main__":  # the project's modules are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.literal_data import (
    LiteralDataset,
    export_gt_depths,
    generate_depth_map,
    write_gt_depths,
)
from datasets.splits import read_split, split_path
from networks import Monodepth2
from options import DEPTH, TRAIN, MonodepthOptions
from runtime.errors import run

__all__ = ["LiteralDataset", "evaluate", "export_gt_depths", "generate_depth_map",
           "literal_losses", "train", "write_gt_depths"]

NUM_SCALES = 4                     # of the loader's pyramids and of the decoder
EVAL_BATCH_SIZE = 16
STEREO_SCALE_FACTOR = 5.4          # metres per unit of depth: 0.54 m / 0.1
MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0  # metres, the range of evaluated depth
DISP_RANGE = 0.1, 100.0            # depth at disparity 1 and 0
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")

# {flag: supported values, the default first}
LOSS_LIMITS = {"predictive_mask": (False,), "pose_model_type": ("separate_resnet", "shared")}
TRAIN_LIMITS = {**LOSS_LIMITS, "dataset": ("kitti",), "load_weights_folder": (None,)}
EVAL_LIMITS = {"dataset": ("kitti",), "disable_median_scaling": (False,),
               "pred_depth_scale_factor": (1.0,), "ext_disp_to_eval": (None,),
               "post_process": (False,), "save_pred_disps": (False,)}


def get_device(no_cuda: bool) -> torch.device:
    """Return the GPU if there is one and `no_cuda` is False, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not no_cuda else "cpu")


def check_supported(opts: Namespace, limits: dict[str, tuple]) -> None:
    """Raise a NotImplementedError if the value of a flag is not in `limits`."""
    for name, values in limits.items():
        value = getattr(opts, name, values[0])
        if value not in values:
            raise NotImplementedError(f"--{name} {value} is not in the literal pipeline, which has "
                                      f"{' and '.join(map(str, values))}")


reflect, mean_3x3 = nn.ReflectionPad2d(1), nn.AvgPool2d(3, 1)  # windows of SSIM


@lru_cache
def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Return the homogeneous pixel coordinates (x, y, 1) of an image, (3, H*W), row-major."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device),
                          indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()]).float()


def warp(source: Tensor, depth: Tensor, T: Tensor, K: Tensor, inv_K: Tensor) -> Tensor:
    """Warp the source image into the target camera.

    Args:
        source: (B, 3, H, W) image of the source camera.
        depth: (B, 1, H, W) depth of the target image.
        T: (B, 4, 4) transformation from the target camera to the source camera.
        K: (B, 4, 4) intrinsics in pixels.
        inv_K: (B, 4, 4) inverse of `K`.

    Returns:
        (B, 3, H, W) warped image.
    """
    B, _, H, W = depth.shape
    rays = inv_K[:, :3, :3] @ pixel_grid(H, W, depth.device)
    points = depth.view(B, 1, H * W) * rays
    points = torch.cat([points, torch.ones_like(points[:, :1])], 1)         # (B, 4, H*W)
    projected = (K @ T)[:, :3] @ points
    x = projected[:, 0] / (projected[:, 2] + 1e-7)
    y = projected[:, 1] / (projected[:, 2] + 1e-7)
    grid = torch.stack([2 * x / (W - 1) - 1, 2 * y / (H - 1) - 1], 2).view(B, H, W, 2)
    return F.grid_sample(source, grid, padding_mode="border", align_corners=True)


def ssim_error(x: Tensor, y: Tensor) -> Tensor:
    """Return clamp((1 - SSIM) / 2, 0, 1) of two images, (B, 3, H, W), per pixel and channel."""
    x, y = reflect(x), reflect(y)
    mu_x, mu_y = mean_3x3(x), mean_3x3(y)
    var_x = mean_3x3(x**2) - mu_x**2
    var_y = mean_3x3(y**2) - mu_y**2
    cov = mean_3x3(x * y) - mu_x * mu_y
    C1, C2 = 0.01**2, 0.03**2
    ssim = ((2 * mu_x * mu_y + C1) * (2 * cov + C2)
            / ((mu_x**2 + mu_y**2 + C1) * (var_x + var_y + C2)))
    return torch.clamp((1 - ssim) / 2, 0, 1)


def photometric_error(image: Tensor, target: Tensor, no_ssim: bool) -> Tensor:
    """Return the photometric error (B, 1, H, W) of two images (B, 3, H, W)."""
    l1 = torch.abs(target - image).mean(1, keepdim=True)
    if no_ssim:
        return l1
    return 0.85 * ssim_error(image, target).mean(1, keepdim=True) + 0.15 * l1


def smoothness(disp: Tensor, image: Tensor) -> Tensor:
    """Return the edge-aware smoothness loss of `disp` (B, 1, h, w) with `image` (B, 3, h, w)."""
    disp = disp / (disp.mean((2, 3), keepdim=True) + 1e-7)
    total = 0
    for axis in (2, 3):
        slope = disp.diff(dim=axis).abs()
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (slope * torch.exp(-edge)).mean()
    return total


def disp_to_depth(disp: Tensor, min_depth: float, max_depth: float) -> tuple[Tensor, Tensor]:
    """Convert the network's output in (0, 1) to scaled disparity and depth."""
    scaled = 1 / max_depth + (1 / min_depth - 1 / max_depth) * disp
    return scaled, 1 / scaled


def literal_losses(inputs: dict, outputs: dict, opts: Namespace,
                   tie_noise: float = 1e-5) -> dict[str, Tensor]:
    """Compute the training losses: the scalars "loss" and, for each of `opts.scales`, "loss/s".

    Args:
        inputs: a batch of `LiteralDataset`.
        outputs: the outputs of `Monodepth2` for these inputs.
        opts: the training flags.
        tie_noise: standard deviation of the noise on the identity errors.

    Raises:
        NotImplementedError: the flags ask for a predictive mask or PoseCNN.
    """
    check_supported(opts, LOSS_LIMITS)
    sources = list(opts.frame_ids[1:]) + ["s"] * opts.use_stereo
    losses = {}
    for s in opts.scales:
        size = s if opts.v1_multiscale else 0
        target, disp = inputs["color", 0, size], outputs["disp", s]
        if not opts.v1_multiscale:
            disp = F.interpolate(disp, target.shape[2:], mode="bilinear", align_corners=False)
        _, depth = disp_to_depth(disp, opts.min_depth, opts.max_depth)

        errors = []
        for f in sources:
            warped = warp(inputs["color", f, size], depth, outputs["cam_T_cam", 0, f],
                          inputs["K", size], inputs["inv_K", size])
            errors.append(photometric_error(warped, target, opts.no_ssim))
        errors = torch.cat(errors, 1)                                       # (B, F, H, W)
        if opts.avg_reprojection:
            errors = errors.mean(1, keepdim=True)

        if not opts.disable_automasking:
            identity = torch.cat([photometric_error(inputs["color", f, size], target, opts.no_ssim)
                                  for f in sources], 1)
            if opts.avg_reprojection:
                identity = identity.mean(1, keepdim=True)
            identity = identity + tie_noise * torch.randn(identity.shape, device=identity.device)
            errors = torch.cat([identity, errors], 1)

        minimum = errors.min(1).values
        smooth = smoothness(outputs["disp", s], inputs["color", 0, s])
        losses[f"loss/{s}"] = minimum.mean() + opts.disparity_smoothness / 2**s * smooth
    losses["loss"] = sum(losses.values()) / len(opts.scales)
    return losses


def read_gt_depths(opts: Namespace, lines: Sequence[str]) -> list[np.ndarray]:
    """Read the ground truth beside the evaluated split, or make it if the file is missing."""
    path = split_path(opts.eval_split, "test_files.txt").with_name("gt_depths.npz")
    if not path.is_file():
        print(f"{path} does not exist; making the ground truth from {opts.data_path}")
        return export_gt_depths(opts.data_path, lines)
    with np.load(path) as file:
        return [file[name] for name in file.files if name.startswith("depth_")]


def load_networks(opts: Namespace, device: torch.device) -> tuple[Monodepth2, int, int]:
    """Load the depth networks of a weights folder; return them with their input's height, width."""
    encoder, decoder = (torch.load(Path(opts.load_weights_folder, name), device, weights_only=True)
                        for name in ("encoder.pth", "depth.pth"))
    height, width = encoder.pop("height"), encoder.pop("width")
    encoder.pop("use_stereo", None)
    model = Monodepth2(opts.num_layers, False, [0], range(NUM_SCALES)).to(device).eval()
    model.encoder.load_state_dict(encoder)
    model.depth.load_state_dict(decoder)
    return model, height, width


def depth_errors(gt: np.ndarray, disp: np.ndarray, median_scaling: bool) -> tuple[float, ...]:
    """Compare a disparity map (h, w) with ground truth (H, W); return the seven `METRICS`."""
    height, width = gt.shape
    depth = 1 / cv2.resize(disp, (width, height))
    crop = np.zeros(gt.shape, bool)
    crop[int(0.40810811 * height):int(0.99189189 * height),
         int(0.03594771 * width):int(0.96405229 * width)] = True
    counted = crop & (gt > MIN_DEPTH) & (gt < MAX_DEPTH)
    gt, depth = gt[counted], depth[counted]
    depth = depth * (np.median(gt) / np.median(depth) if median_scaling else STEREO_SCALE_FACTOR)
    depth = np.clip(depth, MIN_DEPTH, MAX_DEPTH)
    ratio = np.maximum(gt / depth, depth / gt)
    return (np.mean(np.abs(gt - depth) / gt), np.mean((gt - depth) ** 2 / gt),
            np.sqrt(np.mean((gt - depth) ** 2)),
            np.sqrt(np.mean((np.log(gt) - np.log(depth)) ** 2)),
            *(np.mean(ratio < 1.25**k) for k in (1, 2, 3)))


@torch.no_grad()
def evaluate(opts: Namespace) -> np.ndarray:
    """Predict the test images of an eigen split; print and return the (7,) mean errors."""
    check_supported(opts, EVAL_LIMITS)
    device = get_device(opts.no_cuda)
    model, height, width = load_networks(opts, device)
    lines = read_split(split_path(opts.eval_split, "test_files.txt"))
    dataset = LiteralDataset(opts.data_path, lines, height, width, [0], NUM_SCALES, False,
                             ".png" if opts.png else ".jpg")
    loader = DataLoader(dataset, EVAL_BATCH_SIZE, num_workers=opts.num_workers,
                        pin_memory=device.type == "cuda")
    disps = []
    for batch in loader:
        disp = model.disparity(batch["color", 0, 0].to(device))
        disps.append(disp_to_depth(disp, *DISP_RANGE)[0][:, 0].cpu().numpy())
    disps = np.concatenate(disps)
    errors = [depth_errors(gt, disp, opts.eval_mono)
              for gt, disp in zip(read_gt_depths(opts, lines), disps, strict=True)]
    means = np.mean(errors, 0)
    print(" ".join(f"{name} {mean:.3f}" for name, mean in zip(METRICS, means, strict=True)))
    return means


def train(opts: Namespace) -> Monodepth2:
    """Train with the flags and print the loss every --log_frequency steps; return the model."""
    check_supported(opts, TRAIN_LIMITS)
    device = get_device(opts.no_cuda)
    frames = opts.frame_ids + ["s"] * opts.use_stereo
    lines = read_split(split_path(opts.split, "train_files.txt"))
    dataset = LiteralDataset(opts.data_path, lines, opts.height, opts.width, frames, NUM_SCALES,
                             True, ".png" if opts.png else ".jpg")
    loader = DataLoader(dataset, opts.batch_size, shuffle=True, num_workers=opts.num_workers,
                        pin_memory=device.type == "cuda", drop_last=True)
    model = Monodepth2(opts.num_layers, opts.weights_init == "pretrained", frames, opts.scales,
                       opts.pose_model_type, opts.pose_model_input).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), opts.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, opts.scheduler_step_size, 0.1)
    step, logged, looked = 0, -1, time.monotonic()
    for epoch in range(opts.num_epochs):
        for batch in loader:
            inputs = {key: value.to(device) for key, value in batch.items()}
            losses = literal_losses(inputs, model(inputs), opts)
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            if step % opts.log_frequency == 0:
                loss, now = losses["loss"].item(), time.monotonic()
                rate = (step - logged) * opts.batch_size / (now - looked)
                print(f"epoch {epoch} step {step} loss {loss:.4f} {rate:.1f} examples/s",
                      flush=True)
                logged, looked = step, now
            step += 1
        scheduler.step()
    return model


def export(words: list[str]) -> None:
    """Make and write a split's ground truth; `words` are the flags of the command line."""
    parser = argparse.ArgumentParser(prog="literal.py export")
    parser.add_argument("--data_path", required=True, help="KITTI's raw folder")
    parser.add_argument("--split", required=True, help="a split's name or folder")
    parser.add_argument("--out", required=True, help="the .npz to write")
    opts = parser.parse_args(words)
    lines = read_split(split_path(opts.split, "test_files.txt"))
    write_gt_depths(opts.out, export_gt_depths(opts.data_path, lines))


def main() -> None:
    """Run the command that the first word names, with the flags after it."""
    name, words = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name == "train":
        train(MonodepthOptions(TRAIN).parse(words))
    elif name == "evaluate":
        evaluate(MonodepthOptions(DEPTH).parse(words))
    elif name == "export":
        export(words)
    else:
        sys.exit("usage: python benchmarks/literal.py {train,evaluate,export} FLAGS")


if __name__ == "__main__":
    run(main)
