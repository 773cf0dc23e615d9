"""Read the samples that training and evaluation need, and stack them into batches."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset, default_collate

from datasets.augment import MATRICES, name_in
from datasets.mono_dataset import MonoDataset


class Samples(Dataset):
    """Read `dataset.read` at some indices, for a `DataLoader` of evaluation or of a benchmark.

    Args:
        dataset: source of the samples.
        indices: indices of the samples, in order; None: all of them.
    """

    def __init__(self, dataset: MonoDataset, indices: Sequence[int] | None = None):
        self.dataset = dataset
        self.indices = range(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        """Return a sample; the keys are those of `MonoDataset.load`."""
        return self.dataset.read(self.indices[index])


def collate(items: Sequence[dict]) -> dict:
    """Stack items into a batch: matrices as numpy arrays, everything else as PyTorch does.

    Passing a tensor between processes costs a file descriptor and shared memory. That pays for
    images; the few numbers of a matrix are faster to copy.
    """
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        batch[key] = (np.stack([np.asarray(matrix) for matrix in values])
                      if name_in(key) in MATRICES else default_collate(values))
    return batch
