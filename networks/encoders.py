"""Make an encoder by its name: a ResNet, a network of timm, or a class in the user's file."""
from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from networks.resnet_encoder import IMAGE_MEAN, IMAGE_STD, ResnetEncoder
from networks.timm_encoder import TimmEncoder, check_timm_name
from runtime.errors import UsageError

# A backbone is called with (pretrained, num_input_images); it has the attribute num_ch_enc, and its
# forward pass returns five feature maps. Other names are those of timm, or FILE.py:factory.
ENCODERS = {n: partial(ResnetEncoder, n) for n in (18, 34, 50, 101, 152)}
IMAGE_SIZE = 192, 640  # height, width: the default of training
HALF_SIZE_CHANNELS = 32  # those of the depth decoder at that size
OWN_FILE = re.compile(r"(.+\.py):(\w+)")


def encoder_key(name: str | int) -> str | int:
    """Return the key of `ENCODERS` for resnet18 to resnet152, and other names as they are."""
    number = re.fullmatch(r"resnet(\d+)", str(name))
    return int(number[1]) if number and int(number[1]) in ENCODERS else name


def make_encoder(name: str | int, pretrained: bool = False, num_input_images: int = 1,
                 image_size: tuple[int, int] = IMAGE_SIZE) -> nn.Module:
    """Make an encoder; one that lacks the feature map at half the image's size gets it.

    Args:
        name: a key of `ENCODERS`, a name of timm, or FILE.py:factory.
        pretrained: initialise with ImageNet weights.
        num_input_images: images stacked along the channels.
        image_size: (height, width) of the images.

    Raises:
        UsageError: there is no such encoder, or it does not encode such images.
    """
    if name in ENCODERS:
        return ENCODERS[name](pretrained, num_input_images)
    if own := OWN_FILE.fullmatch(str(name)):
        encoder = _own_factory(*own.groups())(pretrained, num_input_images)
    else:
        encoder = TimmEncoder(str(name), pretrained, num_input_images, image_size)
    if num_input_images == 1:
        if len(encoder.num_ch_enc) == 4:
            encoder = WithHalfSize(encoder)
        _check_features(name, encoder, image_size)
    return encoder


def check_encoder_name(name: str | int) -> None:
    """Raise a UsageError if there is no encoder of this name; its file is not run."""
    if name in ENCODERS:
        return
    if own := OWN_FILE.fullmatch(str(name)):
        _check_own_file(*own.groups())
    else:
        check_timm_name(str(name))


def describe_encoder(name: str | int, encoder: nn.Module) -> str:
    """Describe an encoder in a few words: its name, its size, and what was added to it."""
    name = f"resnet{name}" if isinstance(name, int) else name
    size = sum(x.numel() for x in encoder.parameters() if x.requires_grad) / 1e6
    words = f"{name} ({size:.1f} M parameters)"
    if not isinstance(encoder, WithHalfSize):
        return words
    if getattr(encoder.encoder, "is_vit", False):
        words += ", its token maps reassembled to 1/4, 1/8, 1/16 and 1/32 of the image"
    return words + ", with a feature map at 1/2 made by a convolution"


class WithHalfSize(nn.Module):
    """Add a feature map at half the image's size to an encoder whose first one has a quarter.

    Attributes:
        num_ch_enc: (5,) array, the channels of the five feature maps.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.num_ch_enc = np.array([HALF_SIZE_CHANNELS, *encoder.num_ch_enc])
        self.first = nn.Sequential(
            nn.Conv2d(3, HALF_SIZE_CHANNELS, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(HALF_SIZE_CHANNELS), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return five feature maps of images (B, 3, H, W) in [0, 1]."""
        return [self.first((images - IMAGE_MEAN) / IMAGE_STD), *self.encoder(images)]


def _check_own_file(path: str, factory: str) -> None:
    if not os.path.isfile(path):
        raise UsageError(f"the encoder {path[:200]}:{factory[:60]} is in a file that does not "
                         f"exist; put it at {os.path.abspath(path)[:300]}")


def _own_factory(path: str, factory: str) -> Callable[[bool, int], nn.Module]:
    """Run a Python file of the user, and return what it calls `factory`."""
    _check_own_file(path, factory)
    spec = importlib.util.spec_from_file_location(f"encoder_{factory}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the module that they are in
    spec.loader.exec_module(module)
    if not callable(getattr(module, factory, None)):
        raise UsageError(f"{path} has no class or function {factory}; expected one that is called "
                         "with (pretrained, num_input_images)")
    return getattr(module, factory)


@torch.no_grad()
def _check_features(name: str, encoder: nn.Module, image_size: tuple[int, int]) -> None:
    """Raise a UsageError if an encoder's feature maps are not those that the decoders need."""
    height, width = image_size
    parameter, was_training = next(encoder.parameters()), encoder.training
    maps = encoder.eval()(torch.zeros(1, 3, height, width, device=parameter.device))
    encoder.train(was_training)
    found = [tuple(x.shape[1:]) for x in maps]
    expected = [(channels, height >> n, width >> n)
                for n, channels in enumerate(map(int, encoder.num_ch_enc), 1)]
    if found != expected or len(found) != 5:
        raise UsageError(f"the encoder {name} gives feature maps of (channels, height, width) "
                         f"{found} for {width}x{height} images, and num_ch_enc is "
                         f"{[int(n) for n in encoder.num_ch_enc]}; expected five maps, at 1/2 to "
                         "1/32 of the image, or four from 1/4 on")
