"""Load batches for training in an order set by a seed, from any position on."""
from __future__ import annotations

import hashlib
import os
import signal
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice
from types import MappingProxyType

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from datasets.augment import pack_matrices
from datasets.batches import collate
from datasets.mono_dataset import MonoDataset
from datasets.splits import parse_line
from runtime.errors import DataError
from runtime.seeds import mix, seeded
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent

FAULTS = "faults"  # key of the messages of samples that were replaced, only inside this module


class BadSamples:
    """Count samples that could not be read and were replaced by a neighbour.

    Args:
        limit: largest number of different bad samples in one process.

    Attributes:
        found: one message for each bad sample so far; part of the training state.
    """

    def __init__(self, limit: int):
        self.limit, self.found = limit, []

    def add(self, faults: Sequence[str]) -> None:
        """Count and print each message that is new.

        Raises:
            DataError: there are more bad samples than the limit.
        """
        for fault in faults:
            if fault in self.found:
                continue
            self.found.append(fault)
            number = len(self.found)
            if number > self.limit:
                raise DataError(f"{fault}; this is bad sample number {number}, and "
                                f"--max_bad_samples is {self.limit}")
            tqdm.write(f"bad sample {number}, of {self.limit} allowed: {fault}", file=sys.stderr)


class TrainingLoader:
    """Load batches of a dataset in an order that depends on the seed and the epoch alone.

    Iterating yields the batches of one epoch, from the position that `seek` has set. Worker
    processes start with `start`, or with the first batch, and live as long as the loader.

    Args:
        dataset: source of the samples.
        batch_size: samples in a batch.
        num_workers: processes that load; 0 loads in this process.
        seed: seed of the order and of everything that the dataset draws at random.
        bad_samples: counter of samples that cannot be read; loaders may share it.
        rank: rank of this process.
        size: number of processes; each loads a different part of an epoch.
        drop_last: leave out a last batch that is smaller than the others.
        pin_memory: put batches into pinned memory, for fast copies to a GPU.
        cameras: number of each folder's camera, which samples then have as "camera"; folders that
            are missing get the number after the last.
    """

    def __init__(self, dataset: MonoDataset, batch_size: int, num_workers: int, seed: int,
                 bad_samples: BadSamples, rank: int = 0, size: int = 1, drop_last: bool = False,
                 pin_memory: bool = False, cameras: Mapping[str, int] = MappingProxyType({})):
        self.dataset, self.batch_size, self._bad_samples = dataset, batch_size, bad_samples
        self.cameras = cameras
        self._order = _EpochOrder(len(dataset), seed, rank, size)
        parent_is_done = torch.zeros(1, dtype=torch.bool)
        if checked_workers(num_workers):
            parent_is_done.share_memory_()
        self._batches = DataLoader(
            _SeededSamples(dataset, seed, bad_samples.limit, cameras), batch_size,
            sampler=self._order, num_workers=num_workers, collate_fn=_collate,
            pin_memory=pin_memory, drop_last=drop_last, persistent_workers=num_workers > 0,
            worker_init_fn=partial(_leave_signals_to_parent, parent_is_done),
            generator=torch.Generator())  # so that loading draws nothing from the global generator
        # called when the loader is deleted, and when the program ends
        weakref.finalize(self, parent_is_done.fill_, True)

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""
        return len(self._batches)

    def start(self) -> None:
        """Start the worker processes, before the position is set; they wait for `seek`.

        Fork them while this process is small: what it has in memory by then is shared with the
        workers, and the first write to each shared page makes a copy of the page.
        """
        self._order.seek(0, len(self._order))  # an iteration without draws: nothing is loaded
        iter(self._batches)
        self._order.seek(0, 0)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration start at batch number `batch` of `epoch`."""
        self._order.seek(epoch, batch * self.batch_size)

    def __iter__(self) -> Iterator[dict]:
        """Yield the batches from the current position to the end of the epoch.

        Raises:
            DataError: a sample cannot be read, or there are more bad samples than allowed.
        """
        for batch in self._batches:
            self._bad_samples.add(batch.pop(FAULTS, ()))
            yield batch

    def endless(self, first: int) -> Iterator[dict]:
        """Yield batch number `first` and all batches after it, epoch after epoch."""
        epoch, batch = divmod(first, len(self))
        for later in count(epoch):
            self.seek(later, batch)
            yield from self
            batch = 0

    def faults(self) -> list[str]:
        """Return one message for each bad sample so far, for the training state."""
        return self._bad_samples.found

    def restore_faults(self, faults: Sequence[str]) -> None:
        """Continue the count of bad samples after those of a training state."""
        self._bad_samples.found[:] = faults

    def split_lines(self, epoch: int, batch: int, batches: int) -> list[str]:
        """Return the split lines of a number of batches of `epoch`, from number `batch` on."""
        draws = self._order.draws(epoch)[batch * self.batch_size:][:batches * self.batch_size]
        return [str(self.dataset.filenames[draw % len(self.dataset)]) for draw in draws]


def hash_of_lists(*loaders: TrainingLoader) -> str:
    """Return a hash of the split lists of the loaders, which must not change when a run resumes."""
    lists = ("\n".join(loader.dataset.filenames) for loader in loaders)
    return hashlib.sha256("\n\n".join(lists).encode()).hexdigest()


class _EpochOrder(Sampler[int]):
    """Sample one process's part of a permutation that depends on the seed and the epoch.

    A draw is `epoch * length + index`: a worker seeds the sample with it. Samples that cannot be
    shared evenly between the processes are left out, different ones in each epoch.
    """

    def __init__(self, length: int, seed: int, rank: int, size: int):
        self.length, self.seed, self.rank, self.size = length, seed, rank, size
        self.seek(0, 0)

    def seek(self, epoch: int, start: int) -> None:
        """Let the next iteration start at draw number `start` of `epoch`."""
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


class _SeededSamples(Dataset):
    """Seed each sample with the run's seed and its draw, and replace samples that cannot be read.

    Random numbers of a sample then depend neither on the number of workers nor on where a run was
    resumed.

    Args:
        dataset: source of the samples.
        seed: seed of the run.
        max_bad: number of neighbours to try instead of a sample that cannot be read.
        cameras: as in `TrainingLoader`.
    """

    def __init__(self, dataset: MonoDataset, seed: int, max_bad: int,
                 cameras: Mapping[str, int]):
        self.dataset, self.seed, self.max_bad, self.cameras = dataset, seed, max_bad, cameras

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: int) -> dict:
        """Return the sample of a draw, with a list `FAULTS` if it is a replacement.

        Raises:
            DataError: neither the sample nor the allowed number of neighbours can be read.
        """
        with seeded(self.seed, draw):
            return self._load(draw % len(self))

    def _load(self, index: int) -> dict:
        faults = []
        for candidate in islice(_nearest_first(index, len(self)), self.max_bad + 1):
            try:
                sample = self.dataset.read(candidate)
            except DataError as error:
                faults.append(str(error))
            else:
                if self.cameras:
                    folder = parse_line(self.dataset.filenames[candidate])[0]
                    sample = sample | {"camera": self.cameras.get(folder, len(self.cameras))}
                return sample | {FAULTS: faults} if faults else sample
        message = faults[0]
        if self.max_bad:
            message += f" (so are its neighbours, up to --max_bad_samples {self.max_bad})"
        raise DataError(message)


def _nearest_first(index: int, length: int) -> Iterator[int]:
    """Yield all indices below `length`, the nearest to `index` first."""
    yield index
    for distance in range(1, length):
        for other in (index + distance, index - distance):
            if 0 <= other < length:
                yield other


def _collate(samples: Sequence[dict]) -> dict:
    """Stack samples to a batch, with packed matrices, and join their `FAULTS`."""
    faults = [fault for sample in samples for fault in sample.get(FAULTS, ())]
    batch = pack_matrices(collate([
        {key: sample[key] for key in sample if key != FAULTS} for sample in samples]))
    return batch | {FAULTS: faults} if faults else batch


def _leave_signals_to_parent(parent_is_done: torch.Tensor, _: int) -> None:
    """Make a worker ignore Ctrl-C and SIGTERM, which reach all processes, while the run saves.

    Once `parent_is_done`, a SIGTERM comes from the parent itself and ends the worker.
    """
    leave_interrupts_to_parent()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if parent_is_done else None)
