"""What a user can cause becomes one line and an exit status."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


class DataError(Exception):
    """A file or value of the user's is not what it must be.

    The message is for a person: what was found, what was expected, what to type. It is one line,
    also after a loader's worker has wrapped it in its own traceback.
    """

    status = 1  # of the script that ends with it

    def __str__(self) -> str:
        own_words = super().__str__().rpartition("DataError: ")[2]
        return " ".join(own_words.split())


class UsageError(DataError):
    """A flag has a value that does not exist, which only the part that reads it can know."""

    status = 2


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; what a user can cause becomes one line on stderr and a status."""
    try:
        main()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        print(f"error: a process that reads images has died: {' '.join(str(error).split())} Where "
              "memory is short, lower --num_workers or --batch_size", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read what is printed has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
