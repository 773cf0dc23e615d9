"""Turn every error that a user can cause into one line and an exit status."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from runtime.openmp import limit_spinning


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


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; end with one line on stderr and an exit status if the user erred.

    Scripts import PyTorch inside `main`, after parsing: importing it takes seconds, and -h and a
    wrong flag should answer at once. Importing it also loads OpenMP, whose waiting is set first.
    """
    limit_spinning()
    try:
        main()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        print(f"error: a process that reads images has died: {' '.join(str(error).split())} If "
              "memory is short, lower --num_workers or --batch_size", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has ended, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
