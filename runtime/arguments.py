"""Read the words of a command line: types of flags, and errors in one line."""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def positive(kind: type) -> Callable[[str], int | float]:
    """Return an argparse type that reads a finite number of `kind` above 0."""
    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not larger than 0, as it must be")
        return value
    parse.__name__ = f"positive {kind.__name__}"
    return parse


def non_negative_int(text: str) -> int:
    """Read a whole number that is 0 or more; an argparse type."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0, which it must not be")
    return value


non_negative_int.__name__ = "whole number"  # argparse prints it: "invalid whole number value"


def weight(text: str) -> float:
    """Read the weight of a loss, a finite number that is 0 or more; an argparse type."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no weight; give 0 or a number above")
    return value


def path(text: str | Path) -> str:
    """Replace `~` at the start of a path by the home folder; an argparse type."""
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise argparse.ArgumentTypeError(f"{text} needs the home folder, which is unknown; set "
                                         "HOME, or give another path")
    return expanded


def whole_path(text: str) -> Path:
    """Return `path` as a Path; an argparse type."""
    return Path(path(text))


class OneLineParser(argparse.ArgumentParser):
    """Parse a command line, and print an error as one line without the list of flags."""

    def error(self, message: str):
        """End the program with status 2 and the message."""
        self.exit(2, f"{self.prog}: error: {message} (-h shows the flags)\n")
