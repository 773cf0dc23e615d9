"""The processes of one run: one, or as many as torchrun started, a GPU each."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from runtime.errors import DataError

SETTLING = 0.1  # seconds


class World(NamedTuple):
    """Where this process stands among those of the run."""

    rank: int
    size: int
    device: torch.device
    host_group: dist.ProcessGroup | None = None  # to agree on numbers without waiting for GPUs

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def print(self, *words: object, sep: str = " ") -> None:
        """Print, in the main process."""
        if self.is_main:
            with suppress(OSError):  # a terminal that is gone ends no run
                print(*words, sep=sep, flush=True)

    def describe(self) -> str:
        """Say what the run runs on."""
        device = "the CPU" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        return device if self.size == 1 else f"{self.size} x {device}"

    def shard(self, count: int) -> range:
        """Return which of `count` things this process does: a run of neighbours, maybe empty."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce_max(self, number: int) -> int:
        """Return the largest of the numbers of all processes, in each of them."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, self.host_group)
        return int(numbers)

    def all_reduce_min(self, number: int) -> int:
        """Return the smallest of the numbers of all processes, in each of them."""
        return -self.all_reduce_max(-number)

    def all_gather(self, thing: object) -> list:
        """Return the things of all processes, in the order of their ranks, in each of them."""
        things = [thing] * self.size
        if self.size > 1:
            dist.all_gather_object(things, thing, self.host_group)
        return things

    def broadcast_from_main(self, work: Callable, *args) -> object:
        """Return what `work` returns in the main process, whose files others may not see."""
        things = [work(*args) if self.is_main else None]
        if self.size > 1:
            dist.broadcast_object_list(things, 0, self.host_group)
        return things[0]

    def call_in_rank_order(self, work: Callable[[], None]) -> None:
        """Call `work` in each process, one after the other."""
        for rank in range(self.size):
            if rank == self.rank:
                work()
            self.all_gather(None)

    def gather_on_main(self, part: np.ndarray) -> np.ndarray | None:
        """Join the arrays of all processes along their first axis, in the main one.

        Args:
            part: (n, ...) array; n may differ between processes.

        Returns:
            The (sum of n, ...) array in the main process, None in the others.
        """
        if self.size == 1:
            return part
        parts = [None] * self.size if self.is_main else None
        dist.gather_object(part, parts)
        return np.concatenate(parts) if self.is_main else None


def get_device(no_cuda: bool) -> torch.device:
    """Return the GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not no_cuda else "cpu")


def init_distributed(no_cuda: bool) -> World:
    """Join the processes that torchrun started; without torchrun there is one.

    Args:
        no_cuda: use the CPU even where there is a GPU.

    Raises:
        DataError: there are more processes than GPUs.
    """
    if not dist.is_torchelastic_launched():
        return World(0, 1, get_device(no_cuda))
    on_gpu = get_device(no_cuda).type == "cuda"
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu and local_rank >= torch.cuda.device_count():
        raise DataError(f"torchrun started process {local_rank} and this machine has "
                        f"{torch.cuda.device_count()} GPUs; pass torchrun --nproc_per_node "
                        f"{torch.cuda.device_count()}, or --no_cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device, dist.new_group(backend="gloo"))


def shut_down_distributed() -> None:
    """Part from the other processes, if there are any; the last thing that a run does."""
    if dist.is_initialized():
        # gloo's threads need the interpreter to let go of the last tensors; PyTorch 2.4 ends them
        # while it holds it, and waits forever
        time.sleep(SETTLING)
        dist.destroy_process_group()
