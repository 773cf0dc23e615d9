"""Seed, save and restore the random generators of a process, and make runs equal bit for bit."""
from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def draw_seed() -> int:
    """Draw a seed from the operating system's randomness."""
    return random.SystemRandom().randrange(2**31)


def mix(*numbers: int) -> int:
    """Hash integers >= 0 to a seed of 63 bits; different integers give different seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_all(*numbers: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch, on all devices."""
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU inside this context, and restore their states after it."""
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
    """Return the states of all generators, in types that `torch.load(weights_only=True)` reads."""
    kind, key, *rest = np.random.get_state()
    states = {"python": random.getstate(), "numpy": (kind, key.tolist(), *rest),
              "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_states(states: dict[str, object], device: torch.device) -> None:
    """Restore what `get_states` returned, perhaps on another kind of device."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def make_deterministic() -> None:
    """Make PyTorch choose deterministic operations, and warn where there are none.

    All operations are deterministic on a CPU. On a GPU, PyTorch warns of the gradients of
    reflection padding and of lookups.

    Source: https://pytorch.org/docs/stable/notes/randomness.html
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # no code reads unwritten memory
