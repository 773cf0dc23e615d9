"""Encode images with a feature extractor of timm: a network of stages, or a plain ViT."""
from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.errors import DataError, UsageError

STRIDES = (4, 8, 16, 32)  # of the four coarse feature maps
# Arguments with which timm's networks accept an image size that they were not made for, in order
# of preference: whatever the size needs is best computed from each image.
ANY_SIZE = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_size": True}, {})
SIZE_ERRORS = (TypeError, AssertionError, ValueError, RuntimeError)  # of timm, for a wrong size
MAX_NAME = 200  # letters; a name may come from a file


def import_timm(name: str) -> ModuleType:
    """Import timm, which only encoders of timm need.

    Raises:
        UsageError: timm is not installed.
    """
    try:
        import timm
    except ImportError:
        raise UsageError(f"the encoder {name} needs timm, which is not installed; type: "
                         "pip install -r requirements-timm.txt") from None
    return timm


def check_timm_name(name: str) -> None:
    """Raise a UsageError if timm is missing or has no network of this name."""
    timm = import_timm(name)
    if len(name) > MAX_NAME or not timm.is_model(name):
        similar = get_close_matches(name[:MAX_NAME], timm.list_models()) or ["resnet18"]
        advice = f"{name}:CLASS names a class in that file" if name.endswith(".py") else (
            f"choose one such as {', '.join(similar)}")
        raise UsageError(f"the encoder {name[:60]} is no network of timm {timm.__version__}; "
                         f"{advice}")


class TimmEncoder(nn.Module):
    """Compute feature maps at 1/4 to 1/32 of the image, and at 1/2 if the network has such a map.

    A plain ViT has token maps of one size; those of four blocks become the four maps. Of several
    stacked images, a pose decoder reads only the last map, so a ViT then gives only that one.

    Args:
        name: of a network of timm, with or without the tag of its weights.
        pretrained: initialise with the weights that timm downloads.
        num_input_images: images stacked along the channels.
        image_size: (height, width) of the images; some networks are made for one size.

    Attributes:
        num_ch_enc: array, the channels of the four or five maps.
        mean, std: normalisation of the images that the weights were trained with, in the state
            dict too.

    Raises:
        UsageError: timm is missing, has no such network, or the network cannot encode the images.
        DataError: the pretrained weights cannot be downloaded.

    Source of the reassembling: Ranftl et al. 2021 (arXiv:2103.13413), Sec. 3.1.
    """

    def __init__(self, name: str, pretrained: bool, num_input_images: int = 1,
                 image_size: tuple[int, int] = (192, 640)):
        super().__init__()
        check_timm_name(name)
        self.name, channels = name, 3 * num_input_images
        self._arguments, strides = _find_arguments(name, channels, image_size)
        self._arguments["in_chans"] = channels
        self.is_vit = len({*strides}) == 1
        if self.is_vit:
            depth, wanted = len(strides), len(STRIDES) if num_input_images == 1 else 1
            self._arguments["out_indices"] = [depth * (i + 1) // len(STRIDES) - 1
                                              for i in range(len(STRIDES))][-wanted:]
        else:
            self._arguments["out_indices"] = _stages(name, strides)
        self.encoder = self._create(pretrained)
        info, cfg = self.encoder.feature_info, self.encoder.pretrained_cfg
        self.num_ch_enc = np.array(info.channels())
        self.is_channels_last = getattr(self.encoder, "output_fmt", None) == "NHWC"
        if self.is_vit:
            width = self.num_ch_enc[-1]
            self.num_ch_enc = np.array([width // 8, width // 4, width // 2, width])
            self.reassemble = nn.ModuleList(
                Reassemble(width, out, strides[0], stride) for out, stride in
                list(zip(self.num_ch_enc, STRIDES, strict=True))[-wanted:])
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(cfg[key]).repeat(num_input_images)
                                 .view(1, channels, 1, 1))

    def _create(self, pretrained: bool, state: dict[str, Tensor] | None = None) -> nn.Module:
        """Build timm's network, without classifier and unused layers.

        Args:
            pretrained: initialise with downloaded weights.
            state: weights of timm's network, or of the original that timm converts, to load
                instead; missing ones keep their initial values.
        """
        import timm
        own = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": dict(state)}}
        try:
            return timm.create_model(self.name, pretrained=pretrained or state is not None,
                                     features_only=True, **self._arguments, **own)
        except Exception as error:  # those of timm, the hub and its http client share no base class
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if state is not None:
                raise DataError(f"the weights do not fit the encoder {self.name}: {reason}"
                                ) from None
            if not pretrained:
                raise UsageError(f"the encoder {self.name} cannot be built: {reason}") from None
            raise DataError(
                f"the weights of the encoder {self.name} cannot be downloaded ({reason}); give "
                "local ones with --encoder_weights FILE (.pth or .safetensors), or pass "
                "--weights_init scratch") from None

    def load_imagenet(self, state: dict[str, Tensor]) -> list[str]:
        """Load the weights of a classifier of one image; return the names of those that it lacks.

        Of a network whose weights differ from the file's, because they are sums over several
        images or were interpolated, only NaNs tell which come from the file.
        """
        unset = {key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
                 for key, value in state.items()}
        missing = [key for key, value in self._create(False, unset).state_dict().items()
                   if value.is_floating_point() and not value.isnan().all()]
        self.encoder = self._create(False, state)
        return missing

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps, from fine to coarse.

        Args:
            images: (B, 3 * num_input_images, H, W) in [0, 1]; H and W multiples of 32.
        """
        size = images.shape[2:]
        maps = self.encoder((images - self.mean) / self.std)
        if self.is_vit:
            return [reassemble(tokens, size)
                    for reassemble, tokens in zip(self.reassemble, maps, strict=True)]
        if self.is_channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        halvings = range(6 - len(maps), 6)
        return [fit(x, [side >> n for side in size]) for x, n in zip(maps, halvings, strict=True)]


class Reassemble(nn.Module):
    """Turn a token map of a ViT into a feature map of another size.

    Args:
        width: channels of the tokens.
        channels: channels of the feature map.
        patch: side of a token's patch, pixels.
        stride: the feature map has 1 / stride of the image's size.
    """

    def __init__(self, width: int, channels: int, patch: int, stride: int):
        super().__init__()
        self.patch, self.stride = patch, stride
        self.norm = nn.GroupNorm(1, width)
        self.project = nn.Conv2d(width, channels, 1)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Map (B, width, h, w) tokens of a padded image to (B, channels, H/stride, W/stride)."""
        x = self.project(self.norm(tokens))
        if self.patch != self.stride:
            x = F.interpolate(x, scale_factor=self.patch / self.stride, mode="bilinear",
                              recompute_scale_factor=False)
        # timm pads the image at its right and its bottom to whole patches
        return self.smooth(x[..., :size[0] // self.stride, :size[1] // self.stride])


def convert_sync_batchnorm(model: nn.Module) -> None:
    """Replace the batch norms of a model by those that normalise over all processes' batches."""
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if names := [net.name for net in model.modules() if isinstance(net, TimmEncoder)]:
        # timm's batch norms may have an activation, which PyTorch's conversion would drop
        convert = import_timm(names[0]).layers.convert_sync_batchnorm
    convert(model)


def fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a feature map of convolutions without padding to the size that its stride gives."""
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _find_arguments(name: str, channels: int, image_size: tuple[int, int]) -> tuple[dict, list]:
    """Return the arguments that make a network accept an image size, and its maps' strides.

    Raises:
        UsageError: the network does not accept the size in any way.
    """
    import timm
    height, width = image_size
    for arguments in (*ANY_SIZE, {"img_size": (height, width)}):
        try:
            # shapes without values: quick, and without memory
            with torch.device("meta"), torch.no_grad():
                net = timm.create_model(name, features_only=True, in_chans=channels, **arguments)
                net.eval()(torch.empty(1, channels, height, width))
            return dict(arguments), [each["reduction"] for each in net.feature_info.info]
        except SIZE_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
    raise UsageError(f"the encoder {name} cannot be built for {width}x{height} images ({reason}); "
                     "choose another --height and --width, or another encoder")


def _stages(name: str, strides: list[int]) -> list[int]:
    """Return the numbers of the stages whose maps have 1/2 (if there is one) to 1/32 of the size.

    Raises:
        UsageError: the network lacks one of 1/4 to 1/32.
    """
    last = {stride: number for number, stride in enumerate(strides)}
    if not last.keys() >= {*STRIDES}:
        raise UsageError(f"the encoder {name} has feature maps at 1/{', 1/'.join(map(str, last))} "
                         "of the image; expected 1/4, 1/8, 1/16 and 1/32, or a plain ViT")
    return [last[stride] for stride in (2, *STRIDES) if stride in last]
