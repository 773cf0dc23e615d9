"""runtime.errors: a user's mistake becomes one line on stderr and an exit status."""
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from runtime.errors import DataError, UsageError, run


def test_an_error_message_is_one_line_even_from_a_worker():
    assert str(DataError("it failed (Error(s):\n\tkey x); do y")) == (
        "it failed (Error(s): key x); do y")
    wrapped = "Caught DataError in worker\nTraceback:\n  raise\nutils.DataError: a is missing\n"
    assert str(DataError(wrapped)) == "a is missing"


@pytest.mark.parametrize(("error", "status", "line"), [
    (DataError("a is missing"), 1, "error: a is missing\n"),
    (UsageError("--split a does not exist"), 2, "error: --split a does not exist\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (RuntimeError("DataLoader worker (pid 7) is killed."), 1,
     "error: a process that reads images has died: DataLoader worker (pid 7) is killed. If memory "
     "is short, lower --num_workers or --batch_size\n"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), 1,
     "error: /dev/shm is too small for the batches of the worker processes; pass --num_workers 0, "
     "or enlarge /dev/shm (docker run --shm-size 8g)\n"),
    (FileNotFoundError(2, "No such file or directory", "a.txt"), 1,
     "error: a.txt: No such file or directory\n"),
    (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
    (PermissionError("Caught PermissionError in DataLoader worker process 0.\nTraceback\n"
                     "PermissionError: [Errno 13] Permission denied: 'a'\n"), 1,
     "error: PermissionError: [Errno 13] Permission denied: 'a'\n")])
def test_a_script_ends_with_one_line_and_a_status(capsys, error, status, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == status
    assert capsys.readouterr().err == line


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")))


def test_a_reader_that_closes_the_pipe_early_causes_no_error():
    lines = "from runtime.errors import run; run(lambda: [print('x' * 999) for _ in range(9999)])"
    with subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
