"""runtime.files: text, atomic writes, folder locks, and arrays read without running code."""
import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, Malicious
from filelock import FileLock, Timeout

from runtime import files
from runtime.errors import DataError, UsageError


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be written"):
        files.write_atomically(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_write_replaces_the_whole_file(tmp_path):
    for content in (b"first", b"second"):
        files.write_atomically(tmp_path / "new" / "file", content)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").read_bytes() == b"second"


def test_concurrent_writers_leave_the_complete_file_of_one(tmp_path):
    lines = ("import sys; from runtime.files import write_atomically\n"
             "for _ in range(50): write_atomically(sys.argv[1], sys.argv[2].encode() * 300_000)")
    writers = [subprocess.Popen([sys.executable, "-c", lines, tmp_path / "file", letter], cwd=ROOT)
               for letter in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert (tmp_path / "file").read_bytes() in [letter * 300_000 for letter in (b"a", b"b", b"c")]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


HOST = socket.gethostname()


@pytest.fixture
def dead_pid():
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_files_of_dead_owners_and_old_files_are_removed(tmp_path, dead_pid):
    names = {"mine": f"{os.getpid()}@{HOST}", "dead": f"{dead_pid}@{HOST}",
             "elsewhere": f"{dead_pid}@other.host", "old": f"{dead_pid}@other.host",
             "unnamed": "0a1b2c3d"}
    for name, owner in names.items():
        (tmp_path / f"{name}.{owner}.tmp").write_bytes(b"half")
    os.utime(tmp_path / f"old.{names['old']}.tmp", (0, 0))
    files.remove_abandoned(tmp_path.glob("*.tmp"))
    assert sorted(path.name.partition(".")[0] for path in tmp_path.iterdir()) == [
        "elsewhere", "mine", "unnamed"]


def test_the_next_run_removes_a_killed_runs_unfinished_folder(tmp_path, dead_pid):
    lines = ("import os, sys; from pathlib import Path; from runtime.files import new_folder\n"
             "with new_folder(Path(sys.argv[1])) as folder: (folder / 'x').touch(); os._exit(9)")
    subprocess.run([sys.executable, "-c", lines, tmp_path / "out [1]"], cwd=ROOT)
    elsewhere = tmp_path / f"out [1].{dead_pid}@other.host.unfinished"
    elsewhere.mkdir()
    os.utime(elsewhere, (0, 0))  # a folder's time says nothing about the files in it
    assert len(list(tmp_path.iterdir())) == 2
    with files.new_folder(tmp_path / "out [1]") as folder:
        (folder / "y").touch()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out [1]", elsewhere]
    assert [path.name for path in (tmp_path / "out [1]").iterdir()] == ["y"]


def test_an_unfinished_folder_of_this_processs_own_number_is_replaced(tmp_path):
    dead = tmp_path / f"out.{os.getpid()}@{HOST}.unfinished"  # numbers come again in containers
    dead.mkdir()
    (dead / "x").touch()
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "y").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "y"]


def test_a_run_is_locked_on_a_full_disk_too(tmp_path):
    lines = ("import resource, signal, sys; from pathlib import Path\n"
             "from runtime.files import lock_run\n"
             "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
             "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
             "lock = lock_run(Path(sys.argv[1])); print(flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", lines, tmp_path], cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UsageError, match="belongs to another process; wait until it has ended"):
            files.lock_run(tmp_path)
        process.communicate(b"\n")
    assert process.returncode == 0
    files.lock_run(tmp_path).close()


def test_an_out_folder_that_cannot_be_written_is_named(tmp_path):
    files.check_out_dir(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"--eval_out_dir .*file is a file, not a folder; choose"):
        files.check_out_dir(tmp_path / "file")


def test_a_folder_lock_ends_with_its_process(tmp_path):
    lines = ("import sys; from pathlib import Path; from runtime.files import lock_folder\n"
             "with lock_folder(Path(sys.argv[1])): print(flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", lines, tmp_path], cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(Timeout):
            FileLock(tmp_path / files.LOCK_NAME).acquire(timeout=0.1)
        process.kill()
    with files.lock_folder(tmp_path), pytest.raises(Timeout):
        FileLock(tmp_path / files.LOCK_NAME).acquire(timeout=0.1)
    with files.lock_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [files.LOCK_NAME]


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / files.LOCK_NAME).mkdir()
    with pytest.raises(DataError, match=r"cannot be locked: .*; use a folder that you may write"):
        files.lock_folder(tmp_path)


def test_a_missing_or_binary_text_file_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        files.readlines(tmp_path / "bytes")
    with pytest.raises(DataError, match="absent is missing"):
        files.readlines(tmp_path / "absent")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_read_in_every_encoding_of_editors(tmp_path, encoding, end):
    (tmp_path / "text").write_bytes(end.join(["a/straße 1 l", "", "b 2", ""]).encode(encoding))
    assert files.readlines(tmp_path / "text") == ["a/straße 1 l", "", "b 2"]


def test_byte_order_marks_of_joined_files_are_left_out(tmp_path):
    (tmp_path / "text").write_bytes("a\n".encode("utf-8-sig") * 2)
    assert files.readlines(tmp_path / "text") == ["a", "a"]


def test_text_of_an_older_encoding_is_refused_with_the_cure(tmp_path):
    (tmp_path / "text").write_bytes("straße".encode("cp1252"))
    with pytest.raises(DataError, match=r"text cannot be read as text: .*; if it is text, save it"):
        files.readlines(tmp_path / "text")


def test_a_data_path_that_is_missing_or_a_file_is_refused(tmp_path):
    files.check_data_path(tmp_path)
    (tmp_path / "file").touch()
    for name, fault in ("file", "is a file"), ("absent", "does not exist"):
        with pytest.raises(DataError, match=rf"--data_path .*{name} {fault}; .*kitti\.md"):
            files.check_data_path(tmp_path / name)


def array_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("array", [
    np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(3)[:2]),
    np.empty((0, 4)), np.array(7)], ids=["c", "fortran", "empty", "scalar"])
def test_an_array_is_read_as_numpy_reads_it(array):
    found = files.read_array(array_file(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert files.npy(array) == array_file(array)


def test_an_array_file_of_python_2_is_read_without_a_warning(recwarn):
    content = array_file(np.arange(6, dtype=np.float32).reshape(2, 3))
    old = content.replace(b"(2, 3), ", b"(2L, 3L)")
    assert old != content
    np.testing.assert_array_equal(files.read_array(old), files.read_array(content))
    assert len(recwarn) == 0


def test_an_array_file_that_lies_or_runs_code_is_refused(tmp_path):
    whole = array_file(np.arange(6.0))
    for content in (whole[:-1], whole + b"x", whole[:20], b"text"):
        with pytest.raises(ValueError, match="Error"):
            files.read_array(content)
    trap = np.array([Malicious(tmp_path / "trap")], object)
    with pytest.raises(ValueError, match="it holds objects, not numbers"):
        files.read_array(array_file(trap))
    with pytest.raises(ValueError, match="which float arrays don't need"):
        files.read_array(array_file(trap), objects=True)
    assert not (tmp_path / "trap").exists()


def test_only_a_full_disk_asks_for_space(tmp_path):
    lines = ("from runtime.files import write_atomically\nfrom runtime.errors import run\n"
             f"run(lambda: write_atomically('{tmp_path}/a.bin', bytes(200_000)))")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=64k tmpfs {tmp_path} || exit 77\n"
         'exec "$0" -c "$1"', sys.executable, lines], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        pytest.skip("needs user namespaces with mounts")
    assert done.stderr == (f"error: {tmp_path}/a.bin cannot be written: No space left on device; "
                           "free some space, or choose another folder\n")


@pytest.mark.parametrize(("path", "reason"), [
    ("file/a.bin", "{}/file is a file, not a folder; choose another folder"),
    ("folder", "Is a directory; rename this folder, or choose another name"),
    ("y" * 300, "File name too long; choose a shorter name")])
def test_what_stands_in_the_way_of_a_file_is_named(path, reason, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as error:
        files.write_atomically(tmp_path / path, b"")
    assert str(error.value) == f"{tmp_path / path} cannot be written: {reason.format(tmp_path)}"
