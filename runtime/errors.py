"""Turn every error that a user can cause into one line and an exit status."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from runtime.openmp import limit_spinning

# PyTorch's words when the process at the other end of a connection has ended
LOST_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


class DataError(Exception):
    """A file or value of the user is not as expected.

    The message is for a person: what was found, what was expected, what to type. It is printed as
    one line, even after a worker of a loader has wrapped it in a traceback.
    """

    status = 1  # exit status of a script that ends with this error

    def __str__(self) -> str:
        own_words = super().__str__().rpartition("DataError: ")[2]
        return " ".join(own_words.split())


class UsageError(DataError):
    """The value of a flag does not exist, which the option parser cannot know."""

    status = 2


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; end with one line on stderr and an exit status if the user erred.

    Scripts import PyTorch inside `main`, after parsing: importing it takes seconds, and -h and a
    wrong flag should answer at once. Importing it also loads OpenMP, whose waiting is set first.
    """
    limit_spinning()
    try:
        main()
    except DataError as error:
        _end(str(error), error.status)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        if "DataLoader worker" in words:
            _end(f"a process that reads images has died: {words} If memory is short, lower "
                 "--num_workers or --batch_size", 1)
        if any(sign in words for sign in LOST_PROCESS):
            _end("another process of this run has ended; its own lines say why", 1)
        raise
    except BrokenPipeError:  # the reader of our output has ended, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _end(words: str, status: int) -> NoReturn:
    """Print one line for all processes of the run on this machine, and exit with the status."""
    if _is_first_to_fail():
        print(f"error: {words}", file=sys.stderr)
    sys.exit(status)


def _is_first_to_fail() -> bool:
    """Return whether this process is the first one to fail of those that torchrun started here."""
    own_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder of the run>/<rank>/error.json
    if own_file is None:
        return True
    try:
        Path(own_file).parent.with_name("first_to_fail").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # rather two lines than none
        return True
    return True
