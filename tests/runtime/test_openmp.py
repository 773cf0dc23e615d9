"""runtime.openmp: OpenMP has its setting before a script imports PyTorch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from runtime.openmp import SETTINGS, SPINS

gnu = pytest.mark.skipif(not list(Path(torch.__file__).parent.glob("lib/libgomp*")),
                         reason="needs PyTorch with GNU's OpenMP")


def openmp_of(*words, **settings):
    """Run Python; return what its OpenMP says of its settings."""
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, text=True, capture_output=True,
                          env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"} | settings)
    assert "GOMP_SPINCOUNT" in done.stderr
    return done.stderr


@gnu
@pytest.mark.parametrize("words", [
    ("train.py", "--data_path", "nowhere", "--no_cuda"),
    ("evaluate_depth.py", "--eval_mono", "--load_weights_folder", "nowhere", "--no_cuda")])
def test_a_script_limits_how_long_threads_spin(words):
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in openmp_of(*words)


@gnu
@pytest.mark.parametrize(("name", "value", "spins"), [
    ("GOMP_SPINCOUNT", "77", "77"), ("OMP_WAIT_POLICY", "PASSIVE", "0")])
def test_a_users_own_setting_of_openmp_stays(name, value, spins):
    assert f"GOMP_SPINCOUNT = '{spins}'" in openmp_of("train.py", "--data_path", "nowhere",
                                                      **{name: value})


@gnu
def test_a_users_own_process_is_left_alone():
    assert f"GOMP_SPINCOUNT = '{SPINS}'" not in openmp_of("-c", "import trainer, hubconf")
