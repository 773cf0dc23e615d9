"""Report and store the cameras that a run with --learn_intrinsics learns."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from checkpoints.training_camera import TrainingCamera, write_training_camera
from datasets import Augment, MonoDataset
from datasets.splits import parse_line
from losses import ReprojectionObjective
from networks import Monodepth2
from networks.learned_intrinsics import LearnedIntrinsics
from runtime.distributed import World
from training.loader import TrainingLoader

FACTORS = (0.8, 1.0, 1.25)  # of the focal length found, for the comparison of losses
BATCHES = 50                # of the training list, for that comparison
# relative increase of the loss that shows a focal length to be right: on rendered drives, 0.03 with
# turns and 0.001 without (docs/own_data.md)
OBSERVABLE = 0.01


def number_cameras(dataset: MonoDataset) -> dict[str, int]:
    """Number the folders of a training list: each is taken to have a camera of its own."""
    folders = sorted({parse_line(line)[0] for line in dataset.filenames})
    return {folder: i for i, folder in enumerate(folders)}


class RunCameras:
    """Write the cameras of a run to camera.json, and report what --learn_intrinsics has learned.

    Args:
        world: processes of the run; the main process prints.
        start: camera of the run, with the K that training starts from.
        dataset: dataset of the training list, which knows the K of each folder.
        intrinsics: the part of the model that learns; None: the cameras stay as they are.
    """

    def __init__(self, world: World, start: TrainingCamera, dataset: MonoDataset,
                 intrinsics: LearnedIntrinsics | None):
        self.world, self.start, self.dataset, self.intrinsics = world, start, dataset, intrinsics
        self._losses: list[float] | None = None  # photometric loss at each of `FACTORS`

    def end_epoch(self) -> None:
        """Note the cameras at the end of an epoch, and print a line about each."""
        if self.intrinsics is None:
            return
        drift = self.intrinsics.drift
        drift.append(self.intrinsics.changes())
        for i, camera in enumerate(self.intrinsics.cameras):
            now, before = drift[-1][i][0], drift[-2][i][0] if drift[1:] else 1
            K = self._in_pixels(self._learned(camera, drift[-1][i]))
            self.world.print(f"camera {camera}: {K}; focal length {now - 1:+.1%} since the start, "
                             f"{now / before - 1:+.1%} in this epoch")

    def _in_pixels(self, K: np.ndarray) -> str:
        """Describe a normalised K in pixels of the image files."""
        width, height = self.start.image_size or (self.dataset.width, self.dataset.height)
        return (f"fx {K[0, 0] * width:.1f} fy {K[1, 1] * height:.1f} cx {K[0, 2] * width - .5:.1f} "
                f"cy {K[1, 2] * height - .5:.1f} pixels of {width}x{height}")

    def _learned(self, camera: str, changes: list[float]) -> np.ndarray:
        """Return a camera's (3, 3) K in units of the image, after `changes` of its start."""
        factor, x, y = changes
        K = self.dataset.get_intrinsics(camera)[:3, :3].astype(float)
        K[0] *= factor, 1, 1
        K[1] *= 1, factor, 1
        K[:2, 2] += x, y
        return K

    def write(self, folder: Path) -> None:
        """Write camera.json into a weights folder."""
        if self.intrinsics is None:
            write_training_camera(folder, self.start)
            return
        drift, cameras = self.intrinsics.drift, self.intrinsics.cameras
        learned = {"cameras": {camera: {
            "K_at_start": self.dataset.get_intrinsics(camera)[:3, :3].tolist(),
            "K_by_epoch": [self._learned(camera, changes[i]).tolist() for changes in drift]}
            for i, camera in enumerate(cameras)}}
        if self._losses:
            learned["focal_length"] = {"factors": FACTORS, "photometric": self._losses,
                                       "observable": is_observable(self._losses)}
        # one K for all cameras, where they started from one: their mean
        K = self.start.K and self._learned(cameras[0], drift[-1][-1]).tolist()
        write_training_camera(folder, self.start._replace(K=K), learned)

    @torch.no_grad()
    def compare_focal_lengths(self, loader: TrainingLoader, augment: Augment, model: Monodepth2,
                              objective: ReprojectionObjective, folder: Path) -> None:
        """Measure, print and store in camera.json whether the motion tells the focal length.

        Args:
            loader: loads the training list, whose motion the cameras were learned from.
            augment: converts its batches.
            model: the trained model.
            objective: its objective.
            folder: weights folder of the last epoch.
        """
        if self.intrinsics is None or not self.world.is_main:
            return
        losses = []
        model.eval()
        augment.eval()
        loader.seek(0)
        for batch in islice(loader, BATCHES):
            inputs = augment(batch)
            for factor in FACTORS:
                self.intrinsics.probe = factor
                outputs = model.forward(inputs)
                losses.append(objective.forward(inputs, outputs)[0]["photometric/0"])
        self.intrinsics.probe = 1.0
        self._losses = torch.stack(losses).view(-1, len(FACTORS)).mean(0).tolist()
        self.write(folder)
        figures = ", ".join(f"{loss:.4f} at {factor:g}" for loss, factor in
                            zip(self._losses, FACTORS, strict=True))
        verdict = "the motion tells it" if is_observable(self._losses) else (
            "warning: the focal length is unobservable, the motion hardly tells it; add drives "
            "with turns, or calibrate the camera and leave --learn_intrinsics out")
        self.world.print(f"photometric loss {figures} of the focal length found: {verdict}")


def is_observable(losses: Sequence[float]) -> bool:
    """Return whether the loss is clearly lower at the focal length found than at both others."""
    low, found, high = losses
    return min(low, high) / found - 1 > OBSERVABLE
