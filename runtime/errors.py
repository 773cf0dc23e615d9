"""Turn every error that a user can cause into one line and an exit status."""
from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from runtime.openmp import limit_spinning
from runtime.streams import fault_of_stdout, make_streams_last

# PyTorch's words when the process at the other end of a connection has ended
LOST_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
# PyTorch's words when a worker process has no room for a batch in the memory that processes share
NO_SHARED_MEMORY = ("shared memory", "</torch_", "Bus error")
ENLARGE_SHM = "enlarge /dev/shm (docker run --shm-size 8g)"
USE_NO_WORKERS = f"pass --num_workers 0, or {ENLARGE_SHM}"
NO_WORKERS = "/dev/shm, which worker processes need, cannot be written: {}; {}"
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)  # a file stands where a folder is needed
CURES_OF_WRITING = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some space, or choose another folder",
    errno.EFBIG: "raise the limit (ulimit -f), or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "rename this folder, or choose another name",
}


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


def cannot_write(path: str | Path, error: OSError, flag: str = "") -> DataError:
    """Return the error of a file or folder that cannot be written, with its cause and its cure.

    Args:
        path: the file or folder.
        error: the error of the system.
        flag: the flag that names `path`.
    """
    reason, cure = error.strerror or str(error), CURES_OF_WRITING.get(error.errno,
                                                                      "choose another folder")
    if error.errno in IN_THE_WAY:
        files = [place for place in (Path(path), *Path(path).parents) if os.path.isfile(place)]
        reason = f"{files[-1]} is a file, not a folder" if files else reason
    return DataError(f"{flag}{' ' if flag else ''}{path} cannot be written: {reason}; {cure}")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; end with one line on stderr and an exit status if the user erred.

    Scripts import PyTorch inside `main`, after parsing: importing it takes seconds, and -h and a
    wrong flag should answer at once. Importing it also loads OpenMP, whose waiting is set first.
    """
    limit_spinning()
    make_streams_last()
    warnings.formatwarning = _warning_line
    try:
        _call(main)
    except DataError as error:
        _end(str(error), error.status)
    except BrokenPipeError:  # the reader of our output has ended, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (RuntimeError, OSError) as error:
        words = _cause_in_the_machine(error)
        if words is None:
            raise
        _end(words, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _warning_line(message: Warning | str, *_: object) -> str:
    """Return one line for the warning of a library, without the line of code that gave it."""
    return f"warning: {' '.join(str(message).split())}\n"


def _call(main: Callable[[], None]) -> None:
    """Call `main`, and find out whether all that it printed has arrived.

    Raises:
        DataError: printed lines are lost.
    """
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise  # with an error of its own
    if fault := fault_of_stdout():
        raise DataError(f"stdout cannot be written: {fault}; its last lines are lost, "
                        "files are complete")


def _cause_in_the_machine(error: RuntimeError | OSError) -> str | None:
    """Return one line for an error that the machine or its files have caused, or None."""
    words = " ".join(str(error).split())
    is_worker = "DataLoader worker" in words
    if is_worker and any(sign in words for sign in NO_SHARED_MEMORY):
        return f"/dev/shm is too small for the batches of the worker processes; {USE_NO_WORKERS}"
    if isinstance(error, OSError):
        if is_worker:
            return str(error).strip().splitlines()[-1]  # below the traceback of the worker
        if any(frame.f_code.co_filename.endswith("synchronize.py")
               for frame, _ in traceback.walk_tb(error.__traceback__)):  # of multiprocessing
            return NO_WORKERS.format(error.strerror, USE_NO_WORKERS)
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if is_worker:
        return (f"a process that reads images has died: {words} If memory is short, lower "
                "--num_workers or --batch_size")
    if any(sign in words for sign in LOST_PROCESS):
        return "another process of this run has ended; its own lines say why"
    return None


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
