"""Check that worker processes can share memory with this process."""
from __future__ import annotations

import multiprocessing

from runtime.errors import NO_WORKERS, USE_NO_WORKERS, DataError

LOCKS = 8  # for the queues and events between this process and a worker, or more


def checked_workers(count: int, cure: str = USE_NO_WORKERS) -> int:
    """Return a number of worker processes, after a check that there can be any.

    A process talks to its workers through semaphores, which Linux keeps in /dev/shm. A loader that
    cannot make its own prints the traceback of its destructor, too.

    Args:
        count: number of processes.
        cure: what to do about /dev/shm.

    Raises:
        DataError: /dev/shm is full, missing or read-only.
    """
    if count > 0:
        try:
            [multiprocessing.Lock() for _ in range(LOCKS * (count + 1))]
        except OSError as error:
            raise DataError(NO_WORKERS.format(error.strerror, cure)) from None
    return count
