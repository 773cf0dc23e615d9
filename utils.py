"""Offer the original's small helpers under their old names."""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from datasets.splits import read_split
from runtime import files
from runtime.downloads import download_model_if_doesnt_exist

__all__ = ["download_model_if_doesnt_exist", "normalize_image", "readlines", "sec_to_hm",
           "sec_to_hm_str"]


def readlines(filename: str | Path) -> list[str]:
    """Return the lines of a text file; those of a compact split list, expanded to one frame a line.

    Raises:
        DataError: the file is missing, not text, or a malformed split list.
    """
    lines = files.readlines(filename)
    is_compact = "_files" in Path(filename).name and any(": " in line for line in lines)
    return read_split(filename) if is_compact else lines


def normalize_image(x: Tensor) -> Tensor:
    """Stretch a tensor of any shape to [0, 1] for display; a constant tensor becomes 0."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp(min=1e-12)


def sec_to_hm(t: float) -> tuple[int, int, int]:
    """Split seconds into whole hours, minutes and seconds: 10239 -> (2, 50, 39)."""
    minutes, seconds = divmod(int(t), 60)
    hours, minutes = divmod(minutes, 60)
    return hours, minutes, seconds


def sec_to_hm_str(t: float) -> str:
    """Format seconds as hours, minutes and seconds: 10239 -> 02h50m39s."""
    hours, minutes, seconds = sec_to_hm(t)
    return f"{hours:02d}h{minutes:02d}m{seconds:02d}s"
