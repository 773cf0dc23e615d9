"""Load KITTI and own footage as datasets; a key of `DATASETS` is a value of --dataset."""
from importlib import import_module

# Names by module, imported at their first use: footage is also read where PyTorch is missing
_NAMES = {
    "augment": ("Augment",),
    "batches": ("Samples", "collate"),
    "folder_dataset": ("FolderDataset",),
    "frame_cache": ("FrameCache",),
    "images": ("as_float",),
    "kitti_dataset": ("KITTI2015Dataset", "KITTIDataset", "KITTIDepthDataset", "KITTIOdomDataset",
                      "KITTIRAWDataset", "KITTITestDataset"),
    "make3d": ("Make3DDataset",),
    "masks": ("Masks",),
    "mono_dataset": ("MonoDataset",),
    "registry": ("DATASETS", "dataset_class"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
