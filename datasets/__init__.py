"""Datasets: a line in `DATASETS` makes one a value of --dataset."""
from datasets.augment import Augment
from datasets.kitti_dataset import (
    KITTIDepthDataset,
    KITTIOdomDataset,
    KITTIRAWDataset,
    KITTITestDataset,
)
from datasets.mono_dataset import MonoDataset

DATASETS = {
    "kitti": KITTIRAWDataset,
    "kitti_odom": KITTIOdomDataset,
    "kitti_depth": KITTIDepthDataset,
    "kitti_test": KITTITestDataset,
}

__all__ = ["DATASETS", "Augment", "KITTIDepthDataset", "KITTIOdomDataset", "KITTIRAWDataset",
           "KITTITestDataset", "MonoDataset"]
