"""Adapt a process to its machine: compiler, precision, memory layout, memory of the C library."""
from __future__ import annotations

import ctypes
import math
import sys
import time

import torch

# Parameters of glibc's mallopt (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
NEVER = -1
VOLTA, AMPERE = (7, 0), (8, 0)  # compute capabilities
TOP_PAD = 256 * 2**20  # bytes by which the heap grows at once


def compiler_fault(device: torch.device) -> str | None:
    """Compile a tiny function; return why torch.compile fails on this machine, or None."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:  # the compiler raises RuntimeErrors
        return f"nothing can be compiled here ({' '.join(str(error).split())[:200]})"
    return None


def trains_channels_last(device: torch.device, precision: torch.dtype) -> bool:
    """Whether training is faster in the memory format channels_last.

    On a GPU it is where tensor cores convolve: in float16 since Volta, in bfloat16 and float32 (as
    TF32) since Ampere. On a CPU with AVX-512, channels_last takes three quarters of a step's time;
    with AVX2 it is slower than channels first. (Prediction is faster with channels_last on every
    CPU.)
    """
    if device.type == "cuda":
        first = VOLTA if precision == torch.float16 else AMPERE
        return torch.cuda.get_device_capability(device) >= first
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def slowdown(dtype: torch.dtype) -> float:
    """Return how many times as long as in float32 the CPU takes to train a layer in `dtype`.

    A 3x3 convolution of a small map is timed in turns, the fastest of three: tens of milliseconds.
    """
    layout = torch.channels_last if trains_channels_last(torch.device("cpu"), dtype) else (
        torch.contiguous_format)
    fastest = {}
    for _ in range(4):  # the first one chooses kernels
        for kind in (torch.float32, dtype):
            x = torch.ones(1, 64, 24, 80, dtype=kind).to(memory_format=layout)
            weight = torch.ones(64, 64, 3, 3, dtype=kind).to(memory_format=layout)
            start = time.perf_counter()
            torch.conv2d(x.requires_grad_(), weight.requires_grad_(), padding=1).sum().backward()
            fastest[kind] = min(fastest.get(kind, math.inf), time.perf_counter() - start)
    return fastest[dtype] / fastest[torch.float32]


def prepare_for_steps(device: torch.device, deterministic: bool) -> None:
    """Configure PyTorch and the C library for many steps with the same tensor shapes."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
        torch.set_float32_matmul_precision("highest")  # no TF32 in geometry and pyramid
    else:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Make the C library keep freed memory: page faults take half of the loss's time on a CPU.

    A step frees its tensors and the next step allocates them again. By default, glibc returns
    blocks of more than 32 MB to the system each time, and the system hands out new blocks page by
    page, zeroed. On other systems than Linux this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)  # one arena: the forward pass reuses what the backward pass frees
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, TOP_PAD)
