"""Choose how the threads of OpenMP, which compute for PyTorch on a CPU, wait for each other."""
from __future__ import annotations

import os

SPINS = "2000"  # about 0.1 ms
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Let threads that wait give their core away soon, unless the environment says how they wait.

    A step has thousands of parallel loops, and at the end of each loop the threads wait for the
    last one. By default a waiting thread spins for milliseconds. Beside another busy process it
    then holds the very core that the last thread needs.

    OpenMP reads the environment when PyTorch loads it: call this before PyTorch is imported.
    Processes that are started later inherit it. Only GNU's OpenMP, which PyTorch's packages for
    Linux have, reads the variable.
    """
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPINS
