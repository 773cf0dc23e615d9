"""Run train.py with a tiny encoder and a noisy dataset: `python tests/tiny.py FLAGS`.

Importing this module registers `--num_layers 2` and `--dataset noisy`, for tests that are not about
ResNets: a training state takes 30 MB instead of a ResNet's 330 MB, and a step is faster.
"""
from __future__ import annotations

import random
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from datasets import DATASETS, KITTIRAWDataset
from networks import ENCODERS
from runtime import errors


class TinyEncoder(nn.Module):
    """Encode with five strided convolutions and batch norm."""

    num_ch_enc = (8, 8, 16, 16, 32)

    def __init__(self, pretrained: bool, num_input_images: int = 1):
        super().__init__()
        widths = (3 * num_input_images, *self.num_ch_enc)
        self.stages = nn.ModuleList(
            # a bias before batch norm would have only rounding errors as its gradient
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after),
                          nn.ReLU())
            for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3 * num_input_images, H, W)."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Noisy(KITTIRAWDataset):
    """Add noise to each frame, from all three random generators of the process that loads it."""

    def get_color(self, folder, frame_index, side, do_flip):
        """Return a frame that is darkened by a random factor at each pixel."""
        image = np.asarray(super().get_color(folder, frame_index, side, do_flip))
        noise = np.random.rand(*image.shape) * random.random() * float(torch.rand(()))
        return Image.fromarray((image * (1 - noise)).astype(np.uint8))


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Forbid this process to write files larger than `size` bytes, like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ENCODERS[2] = TinyEncoder
DATASETS["noisy"] = Noisy

if __name__ == "__main__":
    errors.run(train.main)
