"""Name the sides of a stereo pair, and place its cameras."""
from __future__ import annotations

import torch

from options import NOMINAL_BASELINE
from runtime.errors import DataError

OTHER_SIDE = {"l": "r", "r": "l", "2": "3", "3": "2"}
LEFT_SIDES = ("l", "2")
NO_SIDE = ("the side is missing; expected `folder frame side` with side l or r; for frames without "
           "sides pass --dataset folder")


def index_and_side(f: int | str, frame: int, side: str | None) -> tuple[int, str | None]:
    """Return the index and the side of frame `f` (0, an offset, "s") of a split line."""
    if f != "s":
        return frame + f, side
    if side not in OTHER_SIDE:
        raise DataError(NO_SIDE)
    return frame, OTHER_SIDE[side]


def stereo_pose(side: str, do_flip: bool = False) -> torch.Tensor:
    """Return the (4, 4) pose from the camera on `side` to the other camera of the stereo pair.

    Args:
        side: side of the target image.
        do_flip: the images are mirrored.
    """
    # Faithful: a nominal baseline of 0.1; from left to right, points move to the left, and in
    # mirrored images to the right
    T = torch.eye(4)
    T[0, 3] = -NOMINAL_BASELINE if (side in LEFT_SIDES) != do_flip else NOMINAL_BASELINE
    return T
