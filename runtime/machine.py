"""The machine that a run finds: whether it can compile, how its C library treats memory."""
from __future__ import annotations

import ctypes
import sys

import torch

# Parameters of glibc's mallopt (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
NEVER = -1
TOP_PAD = 256 * 2**20  # bytes by which the heap grows at once


def compiler_fault(device: torch.device) -> str | None:
    """Compile a trifle; return why that does not work here, or None if it does."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:  # the compiler's own are RuntimeErrors
        return f"nothing can be compiled here ({' '.join(str(error).split())[:200]})"
    return None


def trains_channels_last(device: torch.device) -> bool:
    """Whether convolutions and their gradients are faster with the channels last.

    On a CPU with AVX-512 a step of the networks takes three quarters of the time so, with AVX2 more
    than with the channels first. (Prediction is faster on all of them.)
    """
    return device.type == "cuda" or torch.backends.cpu.get_cpu_capability() == "AVX512"


def prepare_for_steps(device: torch.device, deterministic: bool) -> None:
    """Set this process up for many steps of the same shapes."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
        torch.set_float32_matmul_precision("highest")  # no TF32 in geometry and pyramid
    else:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: half a CPU step's time in the loss is page faults.

    Tensors of a step are freed and asked for again, step after step. glibc gives blocks of
    more than 32 MB back to the system each time, and new ones come page by page, zeroed. Elsewhere
    than on Linux this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)  # what the backward pass frees, the forward pass takes
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, TOP_PAD)
