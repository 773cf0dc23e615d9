"""Fuse the depth of all frames to one scene: a coloured cloud and the path of the camera."""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets import as_float
from datasets.footage import DEFAULT_FPS
from datasets.images import resize
from layers import backproject, project, sample
from metrics.trajectory import tum_text
from prediction.glb import scene_glb
from prediction.images import Frame
from prediction.motions import motion_stream
from prediction.predictor import Predictor
from prediction.voxels import VoxelCloud
from prediction.write import FrameWriter, cloud_ply
from runtime.errors import DataError, counted
from runtime.files import write_atomically
from runtime.packages import require_packages

FAR = 3.0       # median depths: points beyond are left out, and so is the sky
VOXEL = 0.01    # median depths: edge of a voxel
TOLERANCE = 0.05  # of depth: the difference between neighbouring views up to which they agree
REACH = 2       # frames from a view to its neighbours: in one frame a car moves too little


class View(NamedTuple):
    """Hold what one frame sees.

    Attributes:
        depth: (h, w) along the optical axis, > 0.
        image: (3, h, w) uint8 RGB.
        K: (4, 4) intrinsics in pixels.
        pose: (4, 4) float64, camera to world, in the unit of depth.
    """

    depth: Tensor
    image: Tensor
    K: Tensor
    pose: np.ndarray


class SceneCloud:
    """Fuse views to a cloud, without the points that their neighbouring views contradict.

    A point is kept if it is nearer than `far` and if the views `REACH` frames before and after
    agree with its depth, where they see it; at least one of them must. Moving objects and smeared
    edges are at another place in these views, so they are left out.

    Args:
        far: depth from which points are left out.
        voxel: edge of the voxels in which points are averaged.
        tolerance: relative difference of depth up to which views agree.
    """

    def __init__(self, far: float, voxel: float, tolerance: float = TOLERANCE):
        self.far, self.tolerance, self.voxels = far, tolerance, VoxelCloud(voxel)
        self._views: deque[View] = deque(maxlen=2 * REACH + 1)
        self._unfused = 0  # of the last views

    def add(self, view: View) -> None:
        """Add the next view, and fuse the one whose neighbours are now known."""
        self._views.append(view)
        self._unfused += 1
        if self._unfused > REACH:
            self._fuse(len(self._views) - self._unfused)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Fuse the last views; return the points (N, 3) float32 and their colours (N, 3) uint8."""
        while self._unfused and len(self._views) > 1:
            self._fuse(len(self._views) - self._unfused)
        return self.voxels.means()

    def _fuse(self, index: int) -> None:
        view, last = self._views[index], len(self._views) - 1
        self._unfused -= 1
        neighbours = [self._views[i] for i in {max(index - REACH, 0), min(index + REACH, last)}
                      if i != index]
        seen, agrees = zip(*(compare_views(view, other, self.tolerance) for other in neighbours),
                           strict=True)
        keep = (view.depth < self.far) & torch.stack(seen).any(0)                  # (h, w)
        for is_seen, is_same in zip(seen, agrees, strict=True):
            keep &= is_same | ~is_seen
        points = backproject(view.depth[None, None], view.K.inverse()[None])[0]    # (4, h * w)
        kept = keep.flatten()
        world = view.pose[:3] @ points[:, kept].double().numpy()
        self.voxels.add(world.T, view.image.flatten(1)[:, kept].T.numpy())


def compare_views(view: View, other: View, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return which pixels of a view another view sees, and for which its depth is the same.

    Disparity is sampled, not depth: it is linear in the image on every plane.

    Args:
        view: with (h, w) pixels.
        other: of the same size.
        tolerance: relative difference of depth.

    Returns:
        (h, w) bool, twice.
    """
    height, width = view.depth.shape
    T = torch.from_numpy(np.linalg.inv(other.pose) @ view.pose).float()[None]
    points = backproject(view.depth[None, None], view.K.inverse()[None])           # (1, 4, h * w)
    grid = project(points, other.K[None], T, height, width)
    expected = (T[:, 2:3] @ points).view(height, width)  # depth in the other camera
    found = sample(1 / other.depth[None, None], grid)[0, 0]
    is_seen = (grid[0].abs() <= 1).all(-1) & (expected > 0)
    return is_seen, (found * expected - 1).abs() < tolerance


class SceneWriter:
    """Follow predicted frames, predict the camera's motions, and write the scene at the end.

    Args:
        predictor: with its pose network.
        writer: of the frames; knows the intrinsics and the unit.

    Raises:
        DataError: trimesh is not installed, or the frames of the pose network are unknown.
    """

    def __init__(self, predictor: Predictor, writer: FrameWriter):
        require_packages(["trimesh"], "-r requirements-scene.txt")
        self.predictor, self.writer = predictor, writer
        self._motions = motion_stream(predictor)
        self._cloud, self._waiting = None, deque()  # frames without a pose, and their images
        self._poses, self._times = [], []

    def follow(self, batches: Iterable[list[Frame]]) -> Iterator[list[Frame]]:
        """Yield the batches; fuse each of them first."""
        for batch in batches:
            self._add(batch)
            yield batch

    def _add(self, batch: list[Frame]) -> None:
        predictor = self.predictor
        if self._cloud is None:
            middle = float(np.median(np.concatenate([self._depth(frame) for frame in batch])))
            self._cloud = SceneCloud(FAR * middle, VOXEL * middle)
        images = [resize(torch.from_numpy(frame.image), predictor.height, predictor.width,
                         exact=True) for frame in batch]
        self._waiting.extend(zip(batch, images, strict=True))
        motions = self._motions.add([as_float(image.to(predictor.device)) for image in images])
        if not self._poses:
            self._add_view(np.eye(4))
        for motion in motions.astype(np.float64):
            motion[:3, 3] *= self.writer.unit.factor
            self._add_view(self._poses[-1] @ np.linalg.inv(motion))

    def _add_view(self, pose: np.ndarray) -> None:
        """Add the first frame that waits for its pose."""
        frame, image = self._waiting.popleft()
        height, width = image.shape[1:]
        K = torch.from_numpy(self.writer.intrinsics(frame).resized(width, height).in_pixels)
        self._cloud.add(View(torch.from_numpy(self._depth(frame)), image, K, pose))
        self._times.append(len(self._times) / DEFAULT_FPS if frame.time is None else frame.time)
        self._poses.append(pose)

    def _depth(self, frame: Frame) -> np.ndarray:
        return self.writer.depth(frame.disp)[0, 0]

    def write(self, stem: str) -> str:
        """Write the cloud, the path and the poses to `stem`_scene and _trajectory; describe them.

        Raises:
            DataError: there are too few frames, or all points are contradicted.
        """
        if len(self._poses) < 2:
            seen = len(self._poses) + len(self._waiting)
            raise DataError(f"--scene needs at least {self._motions.span + 1} consecutive frames, "
                            f"and {stem} has {seen}; give a video or a folder of its frames")
        points, colours = self._cloud.means()
        if not len(points):
            raise DataError(f"{stem}: the depths of neighbouring frames differ by more than "
                            f"{TOLERANCE:.0%} everywhere; are the frames in order, and the weights "
                            "trained for this camera?")
        poses, unit = np.array(self._poses), self.writer.unit.words
        contents = {"_scene.glb": scene_glb(points, colours, poses[:, :3, 3], unit),
                    "_scene.ply": cloud_ply(points, colours, unit, "the first camera"),
                    "_trajectory.txt": tum_text(self._times, poses).encode()}
        for ending, content in contents.items():
            write_atomically(stem + ending, content)
        cloud = self._cloud
        return (f"{', '.join(stem + ending for ending in contents)}: "
                f"{counted(len(points), 'point')} of {counted(len(poses), 'frame')}, in voxels of "
                f"{cloud.voxels.size:.3g}, nearer than {cloud.far:.3g}")
