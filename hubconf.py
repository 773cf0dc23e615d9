"""Offer the depth networks to torch.hub.load: a weights folder or a published model.

Other programs have modules named `utils` or `datasets` too. torch.hub.load therefore imports the
modules of this folder under private names: `PRIVATE.utils` for `utils`. Import statements in these
modules, also those inside functions, find the private modules, at any time.
"""
from __future__ import annotations

import builtins
import importlib.machinery
import os
import pkgutil
import re
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch.hub.list would list the imported class as a model
    from prediction.predictor import Predictor

FOLDER = os.path.dirname(os.path.realpath(__file__))
PRIVATE = re.sub(r"\W", "_", f"monodepth2{FOLDER}")  # another clone has other private modules
OWN = {module.name for module in pkgutil.iter_modules([FOLDER])}
dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2", "filelock", "tqdm"]


def monodepth2(weights: str | os.PathLike) -> Predictor:
    """Load a depth network; its `.predict(images)` takes images of any size.

    Args:
        weights: a weights folder; the name of a published model, which is downloaded to models/
            beside this file on first use; or hf:user/name, a model on the Hugging Face Hub.

    Returns:
        A module in evaluation mode, on the CPU. `predict(images)` returns `disp` (B, 1, H, W),
        the scaled inverse depth, `depth` (B, 1, H, W), and `unit` of depth, "metres" or
        "relative", for RGB images: a float tensor (B, 3, H, W) or (3, H, W) in [0, 1], or a uint8
        array (B, H, W, 3) or (H, W, 3).

    Raises:
        DataError: the folder or model does not exist, a file is broken, or the download failed.
    """
    _add_private_package()
    # imported here: torch.hub.list lists every callable of this file as a model
    Predictor = _import("prediction.predictor", fromlist=["Predictor"]).Predictor
    downloads = _import("runtime.downloads", fromlist=["PRETRAINED_MODELS"])
    models = downloads.PRETRAINED_MODELS
    DataError = _import("runtime.errors", fromlist=["DataError"]).DataError
    folder = os.path.expanduser(weights)
    shared = _import("runtime.hub", fromlist=["PREFIX"]).PREFIX
    if not (os.path.isdir(folder) or folder.startswith(shared)):  # Predictor downloads a shared one
        if weights not in models:
            raise DataError(f"weights {weights} is neither a folder nor a published model; give a "
                            "weights_<epoch> folder, hf:user/name, or one of "
                            f"{', '.join(models)}")
        folder = downloads.download_model_if_doesnt_exist(weights)
    return Predictor(folder)


def _import(name: str, globals: dict | None = None, locals: dict | None = None,
            fromlist: tuple | list = (), level: int = 0) -> types.ModuleType:
    """Import as import statements do, but a module of this folder under its private name.

    A module that the program has imported from this folder itself is used as it is.
    """
    top = name.partition(".")[0]
    if top not in OWN or _is_imported(name):
        return builtins.__import__(name, globals, locals, fromlist, level)
    package = builtins.__import__(f"{PRIVATE}.{name}", globals, locals, fromlist, level)
    return package if fromlist else sys.modules[f"{PRIVATE}.{top}"]


def _is_imported(name: str) -> bool:
    """Return whether the program has imported this folder's module under its plain name."""
    path = os.path.realpath(getattr(sys.modules.get(name), "__file__", None) or "")
    own = os.path.join(FOLDER, *name.split("."))
    return path in (f"{own}.py", os.path.join(own, "__init__.py"))


class _PrivateLoader(importlib.machinery.SourceFileLoader):
    """Load a module whose import statements call `_import`."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Execute the module's code."""
        module.__builtins__ = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _PrivateFinder:
    """Find the modules of this folder under their private names."""

    def find_spec(self, name: str, path: list[str] | None = None,
                  target: types.ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a private module; None for every other module."""
        if not name.startswith(f"{PRIVATE}."):
            return None
        return importlib.machinery.FileFinder(path[0], (_PrivateLoader, [".py"])).find_spec(name)


def _add_private_package() -> None:
    """Make the package of the private names, unless an earlier load has."""
    if PRIVATE not in sys.modules:
        sys.modules[PRIVATE] = types.ModuleType(PRIVATE)
        sys.modules[PRIVATE].__path__ = [FOLDER]
        sys.meta_path.insert(0, _PrivateFinder())
