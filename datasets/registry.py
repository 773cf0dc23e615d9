"""List the classes of datasets: a key of `DATASETS` is a value of --dataset."""
from __future__ import annotations

from datasets.folder_dataset import FolderDataset
from datasets.kitti_dataset import (
    KITTI2015Dataset,
    KITTIDepthDataset,
    KITTIOdomDataset,
    KITTIRAWDataset,
    KITTITestDataset,
)
from datasets.make3d import Make3DDataset
from datasets.mono_dataset import MonoDataset
from runtime.errors import UsageError

DATASETS = {
    "kitti": KITTIRAWDataset,
    "kitti_odom": KITTIOdomDataset,
    "kitti_depth": KITTIDepthDataset,
    "kitti_test": KITTITestDataset,
    "kitti_2015": KITTI2015Dataset,
    "make3d": Make3DDataset,
    "folder": FolderDataset,
}


def dataset_class(name: str) -> type[MonoDataset]:
    """Return the class that --dataset names.

    Raises:
        UsageError: `name` is not a key of `DATASETS`.
    """
    if name not in DATASETS:
        raise UsageError(f"--dataset {name} does not exist; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
