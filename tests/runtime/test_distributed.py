"""distributed.py: two processes learn, write and evaluate what one does."""
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, train_flags

from runtime.distributed import World


def torchrun(processes, *words):
    """Run a command line of ours in so many processes; return what it printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    return python(*launcher * (processes > 1), *words)


def python(*words):
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def gradients(tmp_path, processes, flags):
    """Return all gradients of one step as one vector."""
    torchrun(processes, ROOT / "tests/data/gradients.py", tmp_path / f"{processes}.pth", *flags)
    saved = torch.load(tmp_path / f"{processes}.pth", weights_only=True)
    return torch.cat([saved[name].flatten() for name in sorted(saved)])


def test_two_processes_and_accumulated_batches_have_the_gradients_of_one_large_batch(
        drive, tmp_path):
    def flags(size, accumulate):
        return train_flags(drive, "--batch_size", size, "--accumulate", accumulate, "--log_dir",
                           tmp_path, "--seed", 0)
    together = gradients(tmp_path, 1, flags(4, 1))
    for processes, size, accumulate in ((2, 2, 1), (1, 2, 2), (2, 1, 2)):
        found = gradients(tmp_path, processes, flags(size, accumulate))
        assert (found - together).norm() / together.norm() < 1e-10
    assert together.norm() > 1e-3


def test_two_processes_train_and_only_one_prints_and_writes(drive, tmp_path):
    flags = train_flags(drive, "--log_dir", tmp_path, "--batch_size", 1, "--num_epochs", 2)
    out = torchrun(2, "train.py", *flags)
    assert "training mdp on 2 x the CPU: 6 items of " in out
    assert ", 2 to a step, " in out
    assert out.count("trained 6 steps") == 1
    assert len(list((tmp_path / "mdp/train").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "mdp/models").iterdir()) == [
        "opt.json", "training_state_00000003.pth", "training_state_00000006.pth", "weights_0",
        "weights_1"]


@pytest.mark.parametrize("script", ["evaluate_depth.py", "evaluate_pose.py"])
def test_two_processes_evaluate_what_one_does(drive, weights, tmp_path, script):
    split = drive / "splits/tiny" if script == "evaluate_depth.py" else tmp_path / "list.txt"
    (tmp_path / "list.txt").write_text("9 l: 0-6\n")
    flags = ["--data_path", drive, "--eval_split", split, "--load_weights_folder", weights,
             "--num_workers", 0, "--batch_size", 2, "--no_cuda", "--eval_out_dir", tmp_path,
             *["--eval_mono"] * (script == "evaluate_depth.py")]
    tables = [re.findall(r"(?:&.*|Trajectory error.*)", torchrun(n, script, *flags))
              for n in (1, 2)]
    assert len(tables[0]) == 1
    assert tables[0] == tables[1]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
def test_shares_are_all_things_once_in_order(size, count):
    shares = [World(rank, size, torch.device("cpu")).shard(count) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_gathers_its_own():
    part = np.arange(6).reshape(3, 2)
    assert World(0, 1, torch.device("cpu")).gather_on_main(part) is part
