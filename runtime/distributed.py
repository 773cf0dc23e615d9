"""Run in one process, or in the processes that torchrun started, one for each GPU."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from runtime.errors import DataError, counted

SETTLING = 0.1  # seconds for gloo's threads to release the last tensors
# Longest wait of a process for another one. A GPU waits while the main process logs or saves;
# everything else waits, too, while the main process exports the ground truth of a split
STEP_TIMEOUT, HOST_TIMEOUT = timedelta(minutes=20), timedelta(hours=6)


class World(NamedTuple):
    """The process group of a run, as one of its processes sees it.

    Attributes:
        rank: index of this process; 0 is the main process, which prints and writes.
        size: number of processes.
        device: device of this process.
        host_group: gloo group that exchanges numbers without waiting for GPUs; None alone.
    """

    rank: int
    size: int
    device: torch.device
    host_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def print(self, *words: object, sep: str = " ") -> None:
        """Print in the main process only."""
        if self.is_main:
            with suppress(OSError):  # a closed terminal must not end the run
                print(*words, sep=sep, flush=True)

    def describe(self) -> str:
        """Describe the devices of the run, such as "2 x NVIDIA H100"."""
        device = "the CPU" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        return device if self.size == 1 else f"{self.size} x {device}"

    def shard(self, count: int) -> range:
        """Return the range of `count` items that this process handles; it may be empty."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce_max(self, number: int) -> int:
        """Return the maximum of all processes' numbers, in every process."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, self.host_group)
        return int(numbers)

    def all_reduce_min(self, number: int) -> int:
        """Return the minimum of all processes' numbers, in every process."""
        return -self.all_reduce_max(-number)

    def all_gather(self, item: object) -> list:
        """Return the items of all processes in the order of their ranks, in every process."""
        items = [item] * self.size
        if self.size > 1:
            dist.all_gather_object(items, item, self.host_group)
        return items

    def broadcast_from_main(self, work: Callable, *args) -> object:
        """Call `work` in the main process; return its result in every process.

        Other machines may not see the files of the main process, nor draw the same seed.

        Raises:
            DataError: `work` raised it in the main process; every process raises the same error.
        """
        result, error = None, None
        if self.is_main:
            try:
                result = work(*args)
            except DataError as raised:
                error = raised
        if self.size > 1:
            both = [result, error]
            dist.broadcast_object_list(both, 0, self.host_group)
            result, error = both
        if error is not None:
            # every process ends here; one that still waits for the others would abort when they end
            shut_down_distributed()
            raise error
        return result

    def gather_on_main(self, part: np.ndarray) -> np.ndarray | None:
        """Concatenate the arrays of all processes along their first axis, in the main process.

        Args:
            part: (n, ...) array of this process; n may differ between processes.

        Returns:
            The (sum of n, ...) array in the main process, None in the other processes.
        """
        if self.size == 1:
            return part
        parts = [None] * self.size if self.is_main else None
        dist.gather_object(part, parts, group=self.host_group)
        return np.concatenate(parts) if self.is_main else None


def get_device(no_cuda: bool) -> torch.device:
    """Return the GPU if there is one and `no_cuda` is False, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not no_cuda else "cpu")


def init_distributed(no_cuda: bool) -> World:
    """Join the process group that torchrun started; without torchrun, return a world of one.

    Args:
        no_cuda: use the CPU even if there is a GPU.

    Raises:
        DataError: there are more processes than GPUs.
    """
    if not dist.is_torchelastic_launched():
        return World(0, 1, get_device(no_cuda))
    on_gpu = get_device(no_cuda).type == "cuda"
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu and local_rank >= torch.cuda.device_count():
        raise DataError(f"torchrun started process {local_rank} and this machine has "
                        f"{counted(torch.cuda.device_count(), 'GPU')}; pass torchrun "
                        f"--nproc_per_node {torch.cuda.device_count()}, or --no_cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=STEP_TIMEOUT)
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    host_group = dist.new_group(timeout=HOST_TIMEOUT, backend="gloo")
    return World(dist.get_rank(), dist.get_world_size(), device, host_group)


def shut_down_distributed() -> None:
    """Shut down the process group, as the last step of a run."""
    if dist.is_initialized():
        # gloo's threads need Python's GIL to release the last tensors; PyTorch 2.4 holds the GIL
        # while it joins these threads, and would wait forever
        time.sleep(SETTLING)
        dist.destroy_process_group()
