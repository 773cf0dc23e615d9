"""Read and write .safetensors files: tensors, and the other entries of a state dict as metadata."""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor

from runtime.errors import DataError
from runtime.files import write_atomically
from runtime.hub import INSTALL
from runtime.packages import require_packages

SUFFIX = ".safetensors"
OTHERS = "monodepth2"  # key of the metadata whose value is the JSON of all that is no tensor


def _import_safetensors() -> ModuleType:
    """Import safetensors, which only these files need.

    Raises:
        DataError: it is not installed.
    """
    require_packages(["safetensors"], INSTALL)
    import safetensors.torch
    return safetensors


def read_safetensors(path: Path) -> dict:
    """Read the state dict of a .safetensors file, of any program.

    Raises:
        DataError: the file is missing or broken, or safetensors is not installed.
    """
    library = _import_safetensors()
    try:
        with library.safe_open(path, "pt") as file:
            others = json.loads((file.metadata() or {}).get(OTHERS, "{}"))
            if not isinstance(others, dict):
                raise ValueError(f"{OTHERS} in its metadata is no JSON object")
            return others | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (library.SafetensorError, OSError, ValueError, TypeError, AttributeError,
            RuntimeError) as error:  # RecursionError, too, of deep JSON
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as safetensors ({reason}); copy or download it "
                        "again") from None


def write_safetensors(path: Path, state: Mapping[str, object]) -> None:
    """Write a state dict of tensors, numbers and words; `read_safetensors` returns the same.

    Raises:
        DataError: the file cannot be written, or safetensors is not installed.
    """
    library = _import_safetensors()
    # tensors of one storage are written apart, each row by row
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()
               if isinstance(value, Tensor)}
    others = {name: value for name, value in state.items() if name not in tensors}
    # a single key: safetensors writes several in random order, and equal weights give equal files
    content = library.torch.save(tensors, {OTHERS: json.dumps(others)})
    write_atomically(path, content)
