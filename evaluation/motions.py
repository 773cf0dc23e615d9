"""What a weights folder predicts of the camera: its motions along a sequence.

Scripts import this file after they have read their command line: it takes seconds (PyTorch).
"""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints.architecture import load_model, pose_frames
from checkpoints.training_camera import read_training_camera
from checkpoints.weights import read_weights
from datasets import KITTIOdomDataset, as_float
from datasets.splits import SplitLine, parse_line
from evaluation.test_set import batches_of
from runtime.distributed import World
from runtime.errors import DataError


@torch.no_grad()
def predict_motions(opts: Namespace, lines: list[str], world: World) -> np.ndarray | None:
    """Return (N, 4, 4): for each line's frame, the motion from its camera to the next frame's.

    A network of pairs sees frames i and i + 1. One that sees more at once predicts the poses from
    its target to them, and the motion from i to i + 1 is the way over the target: that is frame i
    itself, if frame i + 1 is seen from there, else (as at the ends of the sequence) the nearest
    frame from which both are seen.

    Each process predicts its share; the main one gets all of them, the others None.
    """
    model, (height, width, _) = load_model(opts.load_weights_folder, with_pose=True,
                                           device=world.device)
    frames = pose_frames(opts.load_weights_folder, len(model.times))
    back = np.zeros(len(lines), int)  # from each line's frame to the target of its motion
    if frames:
        back = _targets(frames, len(lines), opts.load_weights_folder)
    targets = [_earlier(line, b) for line, b in zip(lines, back, strict=True)]
    dataset = KITTIOdomDataset(opts.data_path, targets, height, width, frames or [0, 1], 1,
                               img_ext=".png" if opts.png else ".jpg")
    dataset.img_ext = dataset.found_extension()
    first = dataset.get_image_path(*parse_line(targets[0]))
    world.print(f"reading {dataset.img_ext} images, as in {Path(first).parent}")
    own, motions = back[world.shard(len(lines))], [np.empty((0, 4, 4), np.float32)]
    for batch in batches_of(dataset, opts, world):
        images = {f: as_float(batch["color", f, 0].to(world.device)) for f in dataset.frame_idxs}
        if frames:
            done = sum(map(len, motions))
            found = _over_target(model.motions(images), own[done:done + len(images[0])])
        else:
            found = model.motion(images[0], images[1])
        motions.append(found.cpu().numpy())
    return world.gather_on_main(np.concatenate(motions))


def _targets(frames: list[int], count: int, folder: str) -> np.ndarray:
    """Return, for each motion among `count` + 1 frames, how far before its start its target is.

    Args:
        frames: that the network sees, 0 is the target.
        count: of motions.
        folder: of the weights, for messages.

    Raises:
        DataError: no two frames follow each other, or there are too few of them.
    """
    choices = sorted((b for b in frames if b + 1 in frames), key=lambda b: (abs(b), b))
    if not choices:
        raise DataError(f"the pose network in {folder} sees frames {frames} at once, of which none "
                        "follows another, so it tells no motion from a frame to the next")
    back = np.empty(count, int)
    for i in range(count):
        fitting = [b for b in choices if i - b + min(frames) >= 0 and i - b + max(frames) <= count]
        if not fitting:
            raise DataError(f"the pose network in {folder} sees frames {frames} at once; "
                            f"{count + 1} frames are too few to find their motions")
        back[i] = fitting[0]
    return back


def _earlier(line: str, by: int) -> SplitLine:
    """Return a split line whose frame comes `by` frames before that of `line`."""
    folder, frame, side = parse_line(line)
    return SplitLine(" ".join([folder, str(frame - by), *filter(None, [side])]),
                     getattr(line, "where", ""))


def _over_target(poses: dict[int, Tensor], back: np.ndarray) -> Tensor:
    """Return the (B, 4, 4) motions from frame b to frame b + 1, seen from the target.

    Args:
        poses: {frame: (B, 4, 4) from the target's camera to its}.
        back: (B,) the frames b.
    """
    still = torch.eye(4).to(next(iter(poses.values()))).expand(len(back), 4, 4)
    poses = {0: still, **poses}
    start, end = (torch.stack([poses[int(b) + ahead][i] for i, b in enumerate(back)])
                  for ahead in (0, 1))
    return end @ torch.linalg.inv(start)


def metres_of(folder: str | Path) -> float | None:
    """Return metres in the unit of length of a weights folder; None where it is unknown."""
    encoder = read_weights(Path(folder, "encoder.pth"))
    return read_training_camera(folder, bool(encoder.get("use_stereo", False))).metres
