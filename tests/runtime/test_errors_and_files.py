"""runtime.errors and runtime.files: one-line errors, whole files, text; utils' small helpers."""
import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from conftest import ROOT

import utils
from prediction import write
from runtime import files
from runtime.errors import DataError


def test_an_error_is_one_line_whatever_its_cause():
    assert str(DataError("it failed (Error(s):\n\tkey x); do y")) == (
        "it failed (Error(s): key x); do y")
    wrapped = "Caught DataError in worker\nTraceback:\n  raise\nutils.DataError: a is missing\n"
    assert str(DataError(wrapped)) == "a is missing"


def test_a_reader_that_has_read_enough_is_no_error():
    lines = "from runtime.errors import run; run(lambda: [print('x' * 999) for _ in range(9999)])"
    with subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be written"):
        files.write_atomically(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_write_replaces_the_file_as_a_whole(tmp_path):
    for content in (b"first", b"second"):
        files.write_atomically(tmp_path / "new" / "file", content)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").read_bytes() == b"second"


def write_often(path, content):
    for _ in range(50):
        files.write_atomically(path, content)


def test_processes_that_write_one_file_at_once_leave_what_one_of_them_wrote(tmp_path):
    contents = [bytes([i]) * 300_000 for i in range(3)]
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(write_often, tmp_path / "file", each) for each in contents]:
            done.result()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_lasts_as_long_as_a_process_that_was_started_with_the_file(tmp_path):
    with (tmp_path / "file").open("a") as file:
        assert files.lock(file)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                                 stdout=file)
    with (tmp_path / "file").open("a") as file:
        assert not files.lock(file)
        child.communicate(b"\n")
        assert files.lock(file)


def test_near_is_bright_and_far_is_dark():
    picture = write.colorize(np.linspace(0, 1, 100)[None].repeat(4, 0))
    assert picture.shape == (4, 100, 3)
    brightness = picture.astype(int).sum(2)
    assert (np.diff(brightness[0]) >= -3).all()
    assert brightness[0, 0] < 20
    assert brightness[0, -1] > 600


def test_magma_is_matplotlibs_and_the_brightest_5_percent_are_white():
    # published values of the colour map at 0, 1/2 and 1
    picture = write.colorize(np.append(np.linspace(0, 1, 96), [5, 6, 7, 8, 9])[None])[0]
    white = [252, 253, 191]
    np.testing.assert_allclose(picture[[0, 47, 95, 100]], [[0, 0, 4], [183, 55, 121], white, white],
                               atol=4)


def test_normalize_image_stretches_to_0_and_1_and_survives_a_constant():
    assert utils.normalize_image(torch.tensor([2.0, 3, 4])).tolist() == [0, 0.5, 1]
    assert utils.normalize_image(torch.full((3,), 7.0)).tolist() == [0, 0, 0]


def test_times_are_written_as_hours_minutes_and_seconds():
    assert utils.sec_to_hm_str(10239) == "02h50m39s"


def test_text_that_is_none_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        files.readlines(tmp_path / "bytes")
    with pytest.raises(DataError, match="nothing is missing"):
        files.readlines(tmp_path / "nothing")
