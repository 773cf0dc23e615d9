"""Run a command line of the project in a folder of odd files, and judge its outcome by a rule."""
from __future__ import annotations

import io
import os
import re
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60  # a command that takes longer hangs
BAR = re.compile(r"\d+%\||\d+(frame|it|sample|map)s? \[|\[\d\d:\d\d")  # of tqdm
NOTE = re.compile(r"(warning|note): ")  # the project's own words beside an error
ERROR = re.compile(r"(error|[\w.]+( \w+)?: error): ")
REPORT = re.compile("the first in full: (.*)")  # prepare_data.py check reports faults on stdout


class Situation(NamedTuple):
    """A folder of files as a user may have it, a command line, and the rule for its outcome.

    At least one of `refused` and `right` is given; with both, either outcome is as it should be.

    Attributes:
        words: describes the situation.
        command: script and flags; {base} is the folder of `make_base`. The situation's own folder
            is the working folder. A script that lies there is a user's own program.
        build: makes the files in the working folder; its value goes to `right`.
        refused: pattern of the one line of error.
        right: returns whether the results of a command that succeeded are right, given the value
            of `build` and all that was printed.
        before: called in the process of the command before it starts.
    """

    words: str
    command: str
    build: Callable[[], object] = lambda: None
    refused: str | None = None
    right: Callable[[object, str], bool] | None = None
    before: Callable[[], None] = lambda: None


class Outcome(NamedTuple):
    """The exit status of a command, and what it printed."""

    status: int
    out: str
    err: str


def base() -> Path:
    """Return the folder of weights and data that all situations share."""
    return Path(os.environ["ODD_BASE"])


def try_situation(situation: Situation) -> tuple[str, str]:
    """Build a situation in a new folder and run its command there.

    Returns:
        The outcome in a word (right, refused or WRONG), and what was printed or is wrong.
    """
    with _working_folder() as folder:
        try:
            value = situation.build()
            words = shlex.split(situation.command.replace("{base}", str(base())))
            outcome = _run(folder, words, situation.before)
            return _judge(situation, value, outcome)
        except Exception:  # a mistake in the table, which must not end the others
            return "WRONG", "the situation itself: " + traceback.format_exc(limit=-2)


@contextmanager
def _working_folder():
    """Make a folder that everybody may write to, work in it, and remove it."""
    home, folder = os.getcwd(), Path(tempfile.mkdtemp(prefix="odd_"))
    folder.chmod(0o777)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(home)
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, words: list[str], before: Callable[[], None]) -> Outcome:
    """Run a script with its words in a process forked from this one, which has PyTorch loaded."""
    printed = [folder / ".stdout", folder / ".stderr"]
    pid = os.fork()
    if pid == 0:
        status = 70  # of a mistake in these lines
        try:
            os.setpgid(0, 0)  # its workers end with it
            for number, path in enumerate(printed, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(io.FileIO(number, "w"), "utf-8", errors, line_buffering=True)
                for number, errors in ((1, "strict"), (2, "backslashreplace")))
            sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
            before()
            signal.alarm(SECONDS)
            status = _call(folder, words)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return Outcome(status, *(path.read_text(errors="replace") for path in printed))


def _call(folder: Path, words: list[str]) -> int:
    """Run a script as Python does; return its exit status. A user's own program starts afresh."""
    script, *sys.argv[1:] = words
    if (folder / script).is_file():
        os.execv(sys.executable, [sys.executable, *words])
    path = ROOT / f"{script}.py"
    sys.argv[0], sys.path[0] = str(path), str(ROOT)
    try:
        runpy.run_path(str(path), run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):  # as Python ends then
        status = 120
    return status


def _judge(situation: Situation, value: object, outcome: Outcome) -> tuple[str, str]:
    """Return right, refused or WRONG, and the reason."""
    pieces = re.split(r"[\r\n]+", outcome.err)
    lines = [line.strip() for line in pieces if line.strip() and not BAR.search(line)]
    errors = [line for line in lines if ERROR.match(line)] + REPORT.findall(outcome.out)
    others = [line for line in lines if not ERROR.match(line) and not NOTE.match(line)]
    last = " | ".join(lines)[-600:]
    if outcome.status < 0:
        return "WRONG", f"ended by {signal.Signals(-outcome.status).name}; {last}"
    if others:
        return "WRONG", f"status {outcome.status}, stderr holds other lines: {last}"
    if outcome.status == 0:
        if situation.right is None:
            return "WRONG", f"accepted; {outcome.out[-300:]} {last}"
        if errors or not situation.right(value, outcome.out + outcome.err):
            return "WRONG", f"status 0, but the result is not right; {outcome.out[-300:]} {last}"
        return "right", last
    if len(errors) != 1:
        return "WRONG", f"status {outcome.status} with {len(errors)} lines of error: {last}"
    if situation.refused is None or not re.search(situation.refused, errors[0]):
        return "WRONG", f"refused with other words: {last}"
    return "refused", errors[0]


@cache
def predictor():
    """Return the network of the shared weights folder."""
    from prediction.predictor import Predictor
    return Predictor(base() / "w")


def disparity_of(rgb):
    """Return the scaled disparity (64, 96) that the shared weights predict for uint8 (H, W, 3)."""
    import torch

    from datasets.images import resize
    image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    return predictor().scaled_disparity(resize(image, 64, 96, exact=True)[None])[0]
