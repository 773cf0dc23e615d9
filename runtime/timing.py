"""Time several pieces of work in turns, so that a busy machine slows all of them alike."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping


def time_in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the seconds of each work's fastest call, of one call in each round.

    A first call of each, which chooses kernels and allocates memory, does not count.
    """
    for work in works.values():
        work()
    fastest = dict.fromkeys(works, math.inf)
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    return fastest
