"""Workers where /dev/shm is small or read-only, in a user namespace with a /dev/shm of its own."""
import subprocess
import sys

import pytest
from conftest import ROOT, train_flags


def with_shm(options, *words):
    """Run Python where /dev/shm is a new tmpfs with these mount options."""
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    return subprocess.run(["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh",
                           sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)


@pytest.fixture(autouse=True)
def namespaces():
    """Skip where this user may not mount a tmpfs of his own."""
    try:
        if with_shm("size=1m", "-c", "").returncode:
            pytest.skip("needs user namespaces with mounts")
    except OSError:
        pytest.skip("needs unshare")


def error_of(done):
    """Check that a process ended with one line of error and no traceback; return the line."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.replace("\r", "\n").splitlines() if "error: " in line]
    return line


CURE = "pass --num_workers 0, or enlarge /dev/shm (docker run --shm-size 8g)"


@pytest.mark.parametrize(("options", "reason"), [
    ("ro", "Read-only file system"), ("size=16k", "No space left on device")])
def test_workers_that_cannot_start_are_one_line_with_the_cure(options, reason, drive):
    words = ["--data_path", drive, "--split", drive / "splits/tiny"]
    line = error_of(with_shm(options, "export_gt_depth.py", *words, "--num_workers", 2))
    assert line == ("error: /dev/shm, which worker processes need, cannot be written: "
                    f"{reason}; {CURE}")


def test_batches_that_do_not_fit_are_one_line_with_the_cure(drive, tmp_path):
    flags = train_flags(drive, "--num_layers", 2, "--num_workers", 2, "--log_dir", tmp_path)
    line = error_of(with_shm("size=200k", "tests/tiny.py", *flags))
    assert line == f"error: /dev/shm is too small for the batches of the worker processes; {CURE}"


def test_training_without_workers_needs_no_shared_memory(drive, tmp_path):
    flags = train_flags(drive, "--num_layers", 2, "--num_workers", 0, "--log_dir", tmp_path)
    assert with_shm("ro", "tests/tiny.py", *flags).returncode == 0


def test_ground_truth_needs_no_room_for_its_maps(drive):
    words = ["--data_path", drive, "--split", drive / "splits/tiny", "--num_workers", 1]
    assert with_shm("size=96k", "export_gt_depth.py", *words).returncode == 0


def test_a_renderer_without_workers_names_the_memory_not_its_folder(tmp_path):
    line = error_of(with_shm("ro", "-m", "synthetic.render", tmp_path / "new"))
    assert "/dev/shm, which worker processes need, cannot be written: Read-only" in line
    assert line.endswith("; enlarge /dev/shm (docker run --shm-size 8g)")
