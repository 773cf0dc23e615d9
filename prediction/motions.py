"""Predict the motions of the camera between neighbouring frames."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from checkpoints.architecture import pose_frames, read_pose_input
from networks import Monodepth2
from prediction.predictor import Predictor
from runtime.errors import DataError


def target_offsets(frames: list[int], count: int, folder: str) -> np.ndarray:
    """Choose the target of each of `count` motions among `count` + 1 frames.

    A network of more frames than two predicts the poses from its target to its other frames, and
    the motion from i to i + 1 goes over the target. The target is frame i itself if the network
    then sees frame i + 1; otherwise, and at the ends of the sequence, it is the nearest frame from
    which the network sees both.

    Args:
        frames: offsets of the frames that the network sees; 0 is the target.
        count: number of motions.
        folder: of the weights, for the error.

    Returns:
        (count,) offset of the motion's first frame from the motion's target.

    Raises:
        DataError: the network sees no two consecutive frames, or the sequence is too short.
    """
    choices = sorted((b for b in frames if b + 1 in frames), key=lambda b: (abs(b), b))
    if not choices:
        raise DataError(f"the pose network in {folder} sees frames {frames} at once, of which no "
                        "two are consecutive, so it cannot predict the motion from a frame to the "
                        "next")
    offsets = np.empty(count, int)
    for i in range(count):
        fitting = [b for b in choices if i - b + min(frames) >= 0 and i - b + max(frames) <= count]
        if not fitting:
            raise DataError(f"the pose network in {folder} sees frames {frames} at once; "
                            f"{count + 1} frames are too few to predict their motions")
        offsets[i] = fitting[0]
    return offsets


def motions_over_targets(model: Monodepth2, images: dict[int, Tensor],
                         offsets: np.ndarray | None) -> Tensor:
    """Predict the (B, 4, 4) motions from a frame's camera to the next frame's camera.

    Args:
        model: with its pose network.
        images: {frame: (B, 3, h, w) in [0, 1]}: every frame that the network sees, 0 the target;
            for a network of pairs, frame 0 and the next frame, 1.
        offsets: (B,) from the target to the motion's first frame, as `target_offsets` returns them;
            None for a network of pairs.
    """
    if offsets is None:
        return model.motion(images[0], images[1])
    poses = model.motions(images)  # {frame: (B, 4, 4) from the target's camera to the frame's}
    identity = torch.eye(4).to(next(iter(poses.values()))).expand(len(offsets), 4, 4)
    poses = {0: identity, **poses}
    start, end = (torch.stack([poses[int(b) + ahead][i] for i, b in enumerate(offsets)])
                  for ahead in (0, 1))
    return end @ torch.linalg.inv(start)


class MotionStream:
    """Predict motions while frames arrive.

    Args:
        model: with its pose network.
        frames: offsets of the frames that the network sees at once; None if it sees pairs.
        folder: of the weights, for errors.

    Attributes:
        span: frames from the first one that the network sees at once to the last one.
    """

    def __init__(self, model: Monodepth2, frames: list[int] | None, folder: str):
        self.model, self.frames, self.folder = model, frames, folder
        self.span = max(frames) - min(frames) if frames else 1
        self._images, self._done = [], 0  # the latest images, and the number of their motions

    @torch.no_grad()
    def add(self, images: Sequence[Tensor]) -> np.ndarray:
        """Take the next images, and predict the motions that lead to all images taken so far.

        Args:
            images: (3, h, w) each, in [0, 1], on the device of the network.

        Returns:
            (N, 4, 4), from the camera of each frame to the next frame's; none while fewer images
            have arrived than the network sees.
        """
        self._images.extend(images)
        count = len(self._images) - 1
        if count < self.span:
            return np.empty((0, 4, 4), np.float32)
        starts = np.arange(self._done, count)
        if self.frames:
            offsets = target_offsets(self.frames, count, self.folder)[starts]
            seen, targets = self.frames, starts - offsets
        else:
            offsets, seen, targets = None, (0, 1), starts
        stacks = {f: torch.stack([self._images[target + f] for target in targets]) for f in seen}
        motions = motions_over_targets(self.model, stacks, offsets)
        self._images = self._images[-self.span - 1:]
        self._done = len(self._images) - 1
        return motions.cpu().numpy()


def motion_stream(predictor: Predictor) -> MotionStream:
    """Return a stream that predicts motions with the pose network of a predictor.

    Args:
        predictor: with its pose network.

    Raises:
        DataError: the frames of the pose network are unknown.
    """
    folder = predictor.folder
    return MotionStream(predictor.model, pose_frames(folder, read_pose_input(folder)), str(folder))
