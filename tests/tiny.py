"""train.py with a small network, and with a dataset that draws: `python tests/tiny.py FLAGS`.

A ResNet's training state takes 330 MB, this one's a tenth; tests that save at every step are about
states, not about networks. `--num_layers 2` is the network, `--dataset noisy` the dataset.
"""
from __future__ import annotations

import random
import sys
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
    """Five strided convolutions with batch norm, as wide as these features."""

    num_ch_enc = (8, 8, 16, 16, 32)

    def __init__(self, pretrained: bool, num_input_images: int = 1):
        super().__init__()
        widths = (3 * num_input_images, *self.num_ch_enc)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of (B, 3 * num_input_images, H, W)."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Noisy(KITTIRAWDataset):
    """Draws at random in whichever process loads, with each of the three generators."""

    def get_color(self, folder, frame_index, side, do_flip):
        """Return a frame in another darkness at each pixel."""
        image = np.asarray(super().get_color(folder, frame_index, side, do_flip))
        noise = np.random.rand(*image.shape) * random.random() * float(torch.rand(()))
        return Image.fromarray((image * (1 - noise)).astype(np.uint8))


ENCODERS[2] = TinyEncoder
DATASETS["noisy"] = Noisy

if __name__ == "__main__":
    errors.run(train.main)
