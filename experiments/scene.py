"""Measure fused scenes against the true surfaces of a rendered street.

    python -m synthetic.render street
    python -m experiments.scene street WEIGHTS

The held-out drive is fused four times: true or predicted depth, true or predicted motions. The true
surfaces are all points of the true depth, in the same voxels, without the votes of neighbouring
views. All clouds start at the first camera; none is aligned.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets import as_float
from datasets.footage import Footage
from datasets.images import resize
from datasets.kitti_dataset import annotated_path, read_depth_png
from kitti_utils import read_poses
from layers import resize_disp
from metrics.clouds import THRESHOLDS, cloud_errors
from metrics.trajectory import chain_motions
from prediction.motions import motion_stream
from prediction.predictor import Predictor
from prediction.scene import SceneCloud, View
from runtime.arguments import OneLineParser, path, positive
from runtime.errors import run
from synthetic.render import HELD_OUT, LEFT_CAMERA, SEQUENCE
from synthetic.street import kitti_K

SKY = 1e4  # m: true depth of pixels without a surface
FAR, VOXEL = 30.0, 0.2  # m
MAX_POINTS = 2_000_000  # compared: all of them


def read_drive(folder: Path) -> tuple[list[Tensor], list[Tensor], np.ndarray]:
    """Read the held-out drive.

    Returns:
        Images (3, H, W) uint8, true depth (H, W) in metres, and true poses (N, 4, 4).
    """
    images = [torch.from_numpy(still.read())
              for still in Footage(folder / HELD_OUT / "image_02/data", "jpg")]
    maps = [torch.from_numpy(read_depth_png(annotated_path(folder, HELD_OUT, i, LEFT_CAMERA)))
            for i in range(len(images))]
    depths = [torch.where(depth > 0, depth, SKY) for depth in maps]
    return images, depths, read_poses(folder / "poses" / f"{SEQUENCE:02d}.txt")


@torch.no_grad()
def predict_drive(weights: Path, images: list[Tensor]) -> tuple[list[Tensor], np.ndarray]:
    """Predict the depth (H, W) of each image, and the poses (N, 4, 4), both in the unit of depth.

    Args:
        weights: folder, with a pose network.
        images: (3, H, W) uint8, in order.
    """
    predictor = Predictor(weights, with_pose=True)
    camera = predictor.training_camera
    factor, size = camera.unit().factor, images[0].shape[1:]
    inputs = [as_float(resize(image, predictor.height, predictor.width, exact=True))
              for image in images]
    depths = [factor * camera.disp_to_depth(resize_disp(
        predictor.disparity(image[None]), *size))[1][0, 0] for image in inputs]
    return depths, chain_motions(motion_stream(predictor).add(inputs), factor)


def fuse(images: list[Tensor], depths: list[Tensor], poses: np.ndarray,
         far: float = FAR, voxel: float = VOXEL, votes: bool = True) -> np.ndarray:
    """Fuse a drive to a cloud (N, 3), with or without the votes of neighbouring views."""
    K = torch.eye(4)
    K[:3, :3] = torch.from_numpy(kitti_K(*depths[0].shape))
    scene = SceneCloud(far, voxel, *([] if votes else [np.inf]))
    for image, depth, pose in zip(images, depths, poses, strict=True):
        scene.add(View(depth, image, K, pose))
    return scene.means()[0]


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(prog="python -m experiments.scene",
                           description="Measure fused scenes of a rendered street.")
    parser.add_argument("data", type=path, help="folder of synthetic.render")
    parser.add_argument("weights", type=path, help="weights folder with a pose network")
    parser.add_argument("--voxel", type=positive(float), default=VOXEL, help="metres (%(default)s)")
    parser.add_argument("--far", type=positive(float), default=FAR, help="metres (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Print the errors of each fused scene."""
    args = parse_args()
    images, true_depths, true_poses = read_drive(Path(args.data))
    depths, poses = predict_drive(Path(args.weights), images)
    surfaces = fuse(images, true_depths, true_poses, args.far, args.voxel, votes=False)
    print(f"{len(images)} frames, nearer than {args.far:g} m, voxels of {args.voxel:g} m: "
          f"{len(surfaces)} points of the true surfaces")
    print("| depth | motions | points | chamfer, m | " + " | ".join(
        f"P, R, F at {threshold:g} m" for threshold in THRESHOLDS) + " |")
    print("|---" * (4 + len(THRESHOLDS)) + "|")
    for depth_kind, motion_kind in (("true", "true"), ("true", "predicted"), ("predicted", "true"),
                                    ("predicted", "predicted")):
        cloud = fuse(images, true_depths if depth_kind == "true" else depths,
                     true_poses if motion_kind == "true" else poses, args.far, args.voxel)
        errors = cloud_errors(surfaces, cloud, MAX_POINTS)
        found = [", ".join(f"{errors[f'cloud_{name}_{100 * threshold:.0f}cm']:.3f}"
                           for name in ("precision", "recall", "f")) for threshold in THRESHOLDS]
        print(f"| {depth_kind} | {motion_kind} | {len(cloud)} | {errors['cloud_chamfer']:.3f} | "
              f"{' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    run(main)
