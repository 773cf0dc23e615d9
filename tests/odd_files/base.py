"""Make what all situations share: weights, a rendered drive, its test split."""
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from synthetic.render import HELD_OUT


def make_base(folder: Path) -> None:
    """Write w (weights), wp (with a pose network), drive (48 rendered frames), split and few."""
    from conftest import filled_weights, render_drive
    filled_weights(folder / "w", use_stereo=False)
    write_pose_weights(folder / "wp")
    render_drive(folder / "drive")  # unless it is there
    split = folder / "split"
    split.mkdir()
    (split / "test_files.txt").write_text(f"{HELD_OUT} l: 4-7\n")
    np.savez(split / "gt_depths.npz", *truth())
    few = folder / "few"
    few.mkdir()
    (few / "train_files.txt").write_text(f"{HELD_OUT.replace('0002', '0001')} l: 4-7\n")
    (few / "val_files.txt").write_text(f"{HELD_OUT} l: 4-5\n")
    picture().save(folder / "picture.png")


def write_pose_weights(folder: Path) -> None:
    """Write untrained weights with a pose network."""
    import torch

    from checkpoints.weights import InputFormat, save_weights
    from networks import Monodepth2
    torch.manual_seed(0)
    model = Monodepth2(frame_ids=[0, -1, 1])
    save_weights(folder, model, torch.optim.Adam(model.parameters()), InputFormat(64, 96, False))


def truth(count: int = 4) -> list[np.ndarray]:
    """Return depth maps (64, 96), metres, of which each is twice as far away as the one before."""
    column = np.linspace(2, 4, 96, dtype=np.float32)
    return [np.tile(column, (64, 1)) * 2**i for i in range(count)]


def save_npy(path: str, values: object) -> None:
    """Write an array with np.save, under a name of any extension."""
    with open(path, "wb") as file:
        np.save(file, values)


def content(name: str, data: bytes) -> Callable[[], object]:
    """Return a builder that writes bytes."""
    return lambda: Path(name).write_bytes(data)


def picture(width: int = 100, height: int = 70) -> Image.Image:
    """Draw a picture without symmetry, RGB."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x // 9 + y // 7) % 2 * 200], 2)
    rgb[5:20, 10:40] = (250, 30, 60)
    return Image.fromarray(rgb.astype(np.uint8))


def load_modules() -> None:
    """Import what the scripts import, so that a forked process starts at once."""
    for name in ("trainer", "prediction.predict", "prediction.onnx", "evaluation.depth",
                 "evaluation.odometry", "evaluation.depth_figures", "evaluation.results",
                 "preparation.video", "preparation.check", "preparation.kitti",
                 "datasets.ground_truth", "skimage.transform", "tensorboardX"):
        import_module(name)
