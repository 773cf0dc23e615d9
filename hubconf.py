"""Offer the depth networks to torch.hub.load: a weights folder or a published model."""
from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch.hub.list would list the imported class as a model
    from prediction.predictor import Predictor

dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2", "filelock", "tqdm"]


def monodepth2(weights: str | os.PathLike) -> Predictor:
    """Load a depth network; its `.predict(images)` takes images of any size.

    Args:
        weights: a weights folder, or the name of a published model, which is downloaded to
            models/ beside this file on first use.

    Returns:
        A module in evaluation mode, on the CPU. `predict(images)` returns `disp` (B, 1, H, W),
        the scaled inverse depth, `depth` (B, 1, H, W), and `unit` of depth, "metres" or
        "relative", for RGB images: a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], or a uint8
        array (B, H, W, 3) or (H, W, 3).

    Raises:
        DataError: the folder or model does not exist, a file is broken, or the download failed.
        ImportError: an imported module has the same name as a module of this project.
    """
    # imported here: torch.hub.list lists every callable of this file as a model
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
    """Explain an import error that a module of the same name in another project causes."""
    name = (error.name or "").partition(".")[0]
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    if not path or os.path.realpath(path).startswith(os.path.dirname(os.path.realpath(__file__))):
        return error
    return ImportError(f"{path} is already imported as {name!r}, the name of a module of this "
                       "project; rename yours, or load the network in a process of its own")
