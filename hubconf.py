"""What torch.hub.load finds here: depth from a weights folder, or from a published model."""
from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is imported here by its public name, torch.hub.list takes for a model
    from prediction.predictor import Predictor

dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2", "tqdm"]


def monodepth2(weights: str | os.PathLike) -> Predictor:
    """Return a network of depth: `.predict(images)` takes images of any size.

    Args:
        weights: a weights folder, or the name of a published model, which is downloaded to
            models/ beside this file on first use.

    Returns:
        A module, in evaluation mode, on the CPU. `predict(images)` gives `disp` (B, 1, H, W),
        scaled inverse depth, `depth` (B, 1, H, W), and its `unit`, "metres" or "relative", for
        RGB images: a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], or a uint8 array
        (B, H, W, 3) or (H, W, 3).

    Raises:
        DataError: there is no such folder or model, a file is broken, or the download failed.
        ImportError: another module has the name of one of this project's.
    """
    # here, not above: torch.hub.list takes every public name of this file for a model
    try:
        from prediction.predictor import Predictor
        from runtime.downloads import PRETRAINED_MODELS, download_model_if_doesnt_exist
        from runtime.errors import DataError
    except ImportError as error:
        raise _explained(error) from error
    folder = os.path.expanduser(weights)
    if not os.path.isdir(folder):
        if weights not in PRETRAINED_MODELS:
            raise DataError(f"weights {weights} is neither a folder nor a published model; give a "
                            f"weights_<epoch> folder, or one of {', '.join(PRETRAINED_MODELS)}")
        folder = download_model_if_doesnt_exist(weights)
    return Predictor(folder)


def _explained(error: ImportError) -> ImportError:
    """Return the error, or a better one where a module of another project is in the way."""
    name = (error.name or "").partition(".")[0]
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    if not path or os.path.realpath(path).startswith(os.path.dirname(os.path.realpath(__file__))):
        return error
    return ImportError(f"{path} is already imported as {name!r}, the name of a module of this "
                       "project; rename yours, or load the network in a process of its own")
