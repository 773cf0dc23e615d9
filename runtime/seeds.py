"""Every random generator of a process: seeded, saved, restored; and runs equal bit for bit."""
from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def draw_seed() -> int:
    """Return a seed that nobody has chosen."""
    return random.SystemRandom().randrange(2**31)


def mix(*numbers: int) -> int:
    """Return a seed of 63 bits that differs wherever one of the `numbers`, all >= 0, does."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_all(*numbers: int) -> None:
    """Seed the generators of python, numpy and torch, on all devices."""
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU; leave them as they were found."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would queue work for each GPU
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def get_states(device: torch.device) -> dict[str, object]:
    """Return the states of all generators, as `torch.load` reads them without running code."""
    kind, key, *rest = np.random.get_state()
    states = {"python": random.getstate(), "numpy": (kind, key.tolist(), *rest),
              "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_states(states: dict[str, object], device: torch.device) -> None:
    """Set all generators to what `get_states` returned, perhaps on another kind of device."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def make_deterministic() -> None:
    """Have PyTorch choose operations that give the same bits each time, and name those that don't.

    On a CPU all do. On a GPU it warns of some that have no such form: the gradients of reflected
    borders and of lookups.

    Source: https://pytorch.org/docs/stable/notes/randomness.html
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads what isn't written
