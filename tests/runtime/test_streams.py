"""runtime.streams: a script goes on where its output cannot be printed, in real processes."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
LOST = ("error: stdout cannot be written: No space left on device; its last lines are lost, files "
        "are complete\n")


def run(main, redirect="", python=sys.executable, **env):
    """Run Python lines as a script's main, with a shell's redirections; return the process."""
    lines = f"from runtime.errors import run\ndef main():\n {main}\nrun(main)"
    return subprocess.run(["bash", "-c", f'{python} -c "$1" {redirect}', "bash", lines], cwd=ROOT,
                          env=os.environ | env, capture_output=True, text=True)


def test_letters_that_an_encoding_lacks_are_printed_as_escapes():
    done = run("print('ünï.png')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xfcn\\xef.png\n", "")
    name = run("print(b'\\xff.png'.decode(errors='surrogateescape'))", PYTHONIOENCODING="utf-8")
    assert (name.returncode, name.stdout) == (0, "\\udcff.png\n")


@needs_full_disk
@pytest.mark.parametrize("python", [sys.executable, f"{sys.executable} -u"])
def test_a_full_disk_under_stdout_loses_lines_but_no_file(python, tmp_path):
    work = f"[print(i, flush=True) for i in range(99)]; open('{tmp_path}/file', 'w').write('all')"
    done = run(work, ">/dev/full", python)
    assert (done.returncode, done.stderr) == (1, LOST)
    assert (tmp_path / "file").read_text() == "all"


@needs_full_disk
def test_a_help_that_cannot_be_printed_ends_with_one_line():
    done = run("import argparse; argparse.ArgumentParser().parse_args(['-h'])", ">/dev/full")
    assert (done.returncode, done.stderr) == (1, LOST)


@needs_full_disk
def test_an_error_stays_the_error_where_stdout_is_full():
    done = run("import sys; print(1); sys.exit('own words')", ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "own words\n")


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_script_without_stderr_prints_and_writes_all(redirect, tmp_path):
    work = (f"import sys; file = open('{tmp_path}/file', 'w'); sys.stderr.write('bar'); "
            "sys.stderr.flush(); from tqdm import tqdm; print(sum(tqdm(range(3)))); "
            "file.write('all')")
    done = run(work, redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert (tmp_path / "file").read_text() == "all"


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    work = f"import os; file = open('{tmp_path}/file', 'w'); [os.write(i, b'lost') for i in (1, 2)]"
    done = run(work, ">&- 2>&- <&-")
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_an_error_keeps_its_status_without_stderr():
    done = run("from runtime.errors import UsageError; raise UsageError('x')", "2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_librarys_warning_is_one_line_without_its_code():
    done = run("import warnings; warnings.warn('this is\\nold')")
    assert (done.returncode, done.stderr) == (0, "warning: this is old\n")
