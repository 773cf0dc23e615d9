"""Arrays from files that strangers wrote: no code in them is run, and no claim in them believed."""
from __future__ import annotations

import io
import math
import pickle
import tokenize

import numpy as np

# What a header or a pickle that is broken raises, in numpy, tokenize and pickle
BROKEN = (ValueError, EOFError, KeyError, TypeError, IndexError, AttributeError, RuntimeError,
          SyntaxError, ImportError, MemoryError, OverflowError, tokenize.TokenError,
          pickle.UnpicklingError)


def read_array(content: bytes, objects: bool = False) -> np.ndarray:
    """Read a .npy of plain values.

    Args:
        content: of the file.
        objects: also read, as the original's ground truth has it, an array of float arrays.

    Returns:
        An array that cannot be written to.

    Raises:
        ValueError: it is broken, says that it has more or fewer values than it has, or its pickle
            asks for more than float arrays.
    """
    try:
        return _read(content, objects)
    except BROKEN as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read(content: bytes, objects: bool) -> np.ndarray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                   else np.lib.format.read_array_header_2_0)
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject and not objects:
        raise ValueError("it holds objects, not numbers")
    if dtype.hasobject:
        return _FloatArrayUnpickler(stream, encoding="latin1").load()
    size, start = math.prod(shape) * dtype.itemsize, stream.tell()
    if size != len(content) - start:
        raise ValueError(f"its header says {size} bytes, it has {len(content) - start}")
    values = np.frombuffer(content, dtype, offset=start) if size else np.empty(0, dtype)
    return values.reshape(shape, order="F" if is_fortran else "C")


class _FloatArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and refuses everything else that a pickle can call."""

    ALLOWED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
                         ("_codecs", "encode")})  # the last as numpy's oldest pickles write bytes

    def find_class(self, module: str, name: str):
        """Return what a pickle names, if an array needs it."""
        package, last = module.partition(".")[0], module.rpartition(".")[2]
        if package in ("numpy", "_codecs") and (last, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which float arrays don't need")
