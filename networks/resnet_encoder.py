"""Encode one image, or several stacked along the channels, into ResNet feature maps."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

IMAGE_MEAN, IMAGE_STD = 0.45, 0.225  # for all three channels; close to ImageNet's statistics


class ResnetEncoder(nn.Module):
    """Compute the feature maps after a ResNet's first convolution and each of its four stages.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        pretrained: initialise with torchvision's IMAGENET1K_V1 weights.
        num_input_images: images stacked along the channels (2 or more for a pose network).

    Attributes:
        num_ch_enc: (5,) array, the channels of the five feature maps.

    Raises:
        ValueError: `num_layers` is none of the five numbers above.
        OSError: the pretrained weights are not in torch's cache, and the download failed.
    """

    def __init__(self, num_layers: int, pretrained: bool, num_input_images: int = 1):
        super().__init__()
        if num_layers not in (18, 34, 50, 101, 152):
            raise ValueError(f"{num_layers} is not a number of ResNet layers (18 34 50 101 152)")
        stages = [64, 128, 256, 512] if num_layers < 50 else [256, 512, 1024, 2048]
        self.num_ch_enc = np.array([64, *stages])
        self.encoder = models.get_model(f"resnet{num_layers}",
                                        weights="IMAGENET1K_V1" if pretrained else None)
        self.num_input_images = num_input_images
        if num_input_images > 1:
            self.encoder.conv1 = _widened(self.encoder.conv1, num_input_images, pretrained)
        # the classifier is unused and frozen; it keeps the published keys and Adam's numbering
        self.encoder.fc.requires_grad_(False)

    def imagenet_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return this encoder's state dict for the weights of torchvision's ResNet."""
        images = self.num_input_images
        return {f"encoder.{key}": torch.cat([value] * images, 1) / images
                if key == "conv1.weight" else value for key, value in state.items()}

    def forward(self, input_image: Tensor) -> list[Tensor]:
        """Return five feature maps (B, num_ch_enc[i], H / 2^(i+1), W / 2^(i+1)).

        Args:
            input_image: (B, 3 * num_input_images, H, W) in [0, 1]; H and W multiples of 32.
        """
        net = self.encoder
        # Faithful: one mean and deviation for all three channels
        x = (input_image - IMAGE_MEAN) / IMAGE_STD
        features = [net.relu(net.bn1(net.conv1(x)))]
        features.append(net.layer1(net.maxpool(features[-1])))
        for stage in (net.layer2, net.layer3, net.layer4):
            features.append(stage(features[-1]))
        return features


def _widened(conv1: nn.Conv2d, num_input_images: int, pretrained: bool) -> nn.Conv2d:
    """Widen the first convolution from one input image to several."""
    wide = nn.Conv2d(3 * num_input_images, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if pretrained:
        # Faithful: repeated weights, divided so that equal images give the response to one
        repeated = torch.cat([conv1.weight.data] * num_input_images, 1) / num_input_images
        wide.weight.data.copy_(repeated)
    else:
        nn.init.kaiming_normal_(wide.weight, mode="fan_out", nonlinearity="relu")
    return wide
