"""Loading for a training run: in an order that a seed decides, from any position on."""
from __future__ import annotations

import hashlib
import os
import signal
import sys
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from datasets.mono_dataset import MonoDataset, collate
from runtime.errors import DataError
from runtime.seeds import mix, seeded
from runtime.signals import leave_interrupts_to_parent

FAULTS = "faults"  # of a batch: a line for each sample that was replaced


class EpochSampler(Sampler[int]):
    """What one process draws in an epoch: its share of a permutation of seed and epoch.

    A draw is `epoch * len(dataset) + index`, so that a worker knows what to seed the item with.

    Args:
        length: of the dataset.
        seed: of the permutations.
        rank: of this process.
        size: of the world; what cannot be shared evenly is left out, in each epoch other samples.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, size: int = 1):
        self.length, self.seed, self.rank, self.size = length, seed, rank, size
        self.seek(0, 0)

    def seek(self, epoch: int, start: int) -> None:
        """Have the next iteration be that of `epoch`, without its first `start` draws."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return the number of draws in a whole epoch."""
        return self.length // self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.draws(self.epoch)[self.start:])

    def draws(self, epoch: int) -> list[int]:
        """Return all draws of an epoch."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        permutation = torch.randperm(self.length, generator=generator)
        own = permutation[self.rank:len(self) * self.size:self.size]
        return (epoch * self.length + own).tolist()


class Draws(Dataset):
    """A dataset as a run draws from it: each item has a seed, and a few may be bad.

    Args:
        dataset: what is drawn from.
        seed: of the run. What the dataset draws at random depends on it and on the draw alone,
            however many workers there are and wherever a run goes on.
        max_bad: how many neighbours to try in the place of an item that cannot be read.
    """

    def __init__(self, dataset: MonoDataset, seed: int, max_bad: int = 0):
        self.dataset, self.seed, self.max_bad = dataset, seed, max_bad

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: int) -> dict:
        """Return the item of a draw, with a `FAULTS` list if it had to be replaced.

        Raises:
            DataError: neither it nor as many neighbours as are allowed can be read.
        """
        with seeded(self.seed, draw):
            return self._item(draw % len(self))

    def _item(self, index: int) -> dict:
        faults = []
        for candidate in islice(_neighbours(index, len(self)), self.max_bad + 1):
            try:
                item = self.dataset[candidate]
            except DataError as error:
                faults.append(str(error))
            else:
                return item | {FAULTS: faults} if faults else item
        excess = f" (so are its neighbours, up to --max_bad_samples {self.max_bad})"
        raise DataError(faults[0] + excess * bool(self.max_bad))

    def line(self, draw: int) -> str:
        """Return the split line of a draw."""
        return str(self.dataset.filenames[draw % len(self)])


def _neighbours(index: int, length: int) -> Iterator[int]:
    """Yield all indices, the nearest to `index` first."""
    yield index
    for distance in count(1):
        for other in (index + distance, index - distance):
            if 0 <= other < length:
                yield other
        if distance >= length:
            return


class BadSamples:
    """The samples of a run that could not be read, and of which a neighbour took the place.

    Args:
        limit: how many different ones may be (of each process, where there are several).
        found: those of the run so far, one line each.
    """

    def __init__(self, limit: int, found: Sequence[str] = ()):
        self.limit, self.found = limit, list(found)

    def pop(self, batch: dict) -> dict:
        """Return a batch without its faults; each is counted and shown once.

        Raises:
            DataError: that makes more than the limit.
        """
        for fault in batch.get(FAULTS, ()):
            if fault in self.found:
                continue
            self.found.append(fault)
            number = len(self.found)
            if number > self.limit:
                raise DataError(f"{fault}; this is bad sample number {number}, and "
                                f"--max_bad_samples is {self.limit}")
            tqdm.write(f"bad sample {number}, of {self.limit} allowed: {fault}", file=sys.stderr)
        return {key: value for key, value in batch.items() if key != FAULTS}


def loader_of(draws: Draws, batch_size: int, num_workers: int, sampler: EpochSampler,
              drop_last: bool, pin_memory: bool) -> DataLoader:
    """Return the loader of a run, whose workers live as long as it does.

    Args:
        draws: what to load.
        batch_size: items of a batch.
        num_workers: processes that load; 0 loads in this one.
        sampler: the order; `sampler.seek` says where to begin.
        drop_last: leave a smaller last batch out.
        pin_memory: for a fast copy to a GPU.
    """
    is_gone = torch.zeros(1, dtype=torch.bool).share_memory_()
    loader = DataLoader(draws, batch_size, sampler=sampler, num_workers=num_workers,
                        collate_fn=_collate, pin_memory=pin_memory, drop_last=drop_last,
                        persistent_workers=num_workers > 0,
                        worker_init_fn=partial(_leave_signals_to_parent, is_gone),
                        generator=torch.Generator())  # the run's own stays where it is
    # when nobody holds the loader any more, and when the program ends
    weakref.finalize(loader, is_gone.fill_, True)
    return loader


def digest(*loaders: DataLoader) -> str:
    """Return a hash of the split lines of loaders of `loader_of`: a resumed run's must be the same.
    """
    lists = ("\n".join(loader.dataset.dataset.filenames) for loader in loaders)
    return hashlib.sha256("\n\n".join(lists).encode()).hexdigest()


def endless(loader: DataLoader, first: int) -> Iterator[dict]:
    """Yield the batches of a loader of `loader_of`, epoch after epoch, from number `first` on."""
    epoch, batch = divmod(first, len(loader))
    for later in count(epoch):
        loader.sampler.seek(later, batch * loader.batch_size)
        yield from loader
        batch = 0


def _collate(items: Sequence[dict]) -> dict:
    faults = [fault for item in items for fault in item.get(FAULTS, ())]
    batch = collate([{key: item[key] for key in item if key != FAULTS} for item in items])
    return batch | {FAULTS: faults} if faults else batch


def _leave_signals_to_parent(is_gone: torch.Tensor, _: int) -> None:
    """Have a worker outlive a Ctrl-C or SIGTERM that goes to all processes: the run still saves.

    Once its loader `is_gone`, a SIGTERM is its parent's own, which ends it.
    """
    leave_interrupts_to_parent()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_gone else None)
