"""Read the flags of the training that made a weights folder, and write those that are shared."""
from __future__ import annotations

import json
import os
from pathlib import Path

from runtime.errors import DataError
from runtime.files import write_atomically

SHARED_NAME = "config.json"  # in a folder made for sharing
OWN_NAME = "opt.json"  # beside the weights folders of a run
# no paths and nothing of the machine: a flag is private until it is listed here
SHARED_FLAGS = (
    "dataset", "num_layers", "height", "width", "scales", "frame_ids", "use_stereo",
    "pose_model_type", "pose_model_input", "min_depth", "max_depth", "disparity_smoothness",
    "v1_multiscale", "avg_reprojection", "disable_automasking", "predictive_mask", "no_ssim",
    "velocity_weight", "batch_size", "accumulate", "learning_rate", "scheduler_step_size",
    "num_epochs", "weights_init", "precision", "seed")


def read_training_flags(folder: str | Path) -> dict:
    """Read config.json in a weights folder, or opt.json beside it; return {} without them.

    Raises:
        DataError: config.json is broken. A broken opt.json counts as missing.
    """
    path = Path(folder, SHARED_NAME)
    if not os.path.isfile(path):  # pathlib raises an error for a name that is too long
        return _read_object(Path(folder).parent / OWN_NAME) or {}
    flags = _read_object(path)
    if flags is None:
        raise DataError(f"{path} is broken; copy or download it again")
    return flags


def _read_object(path: Path) -> dict | None:
    """Read a JSON file; return None unless it holds an object."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def write_shared_flags(folder: Path, flags: dict) -> None:
    """Write config.json with those of the flags that may be shared."""
    shared = {name: flags[name] for name in SHARED_FLAGS if name in flags}
    content = {"model_type": "monodepth2"} | shared
    write_atomically(folder / SHARED_NAME, (json.dumps(content, indent=1) + "\n").encode())
