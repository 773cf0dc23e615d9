"""runtime.distributed: two processes learn, write and evaluate the same as one."""
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
    """Run a command line of ours in several processes; return what it printed."""
    return python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes,
                  *words)


def python(*words):
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_gradients(path):
    """Read the gradients of each size as one vector."""
    return {size: torch.cat([gradients[name].flatten() for name in sorted(gradients)])
            for size, gradients in torch.load(path, weights_only=True).items()}


def test_processes_and_accumulation_have_the_large_batchs_gradients(drive, tmp_path):
    script, flags = ROOT / "tests/data/gradients.py", train_flags(
        drive, "--log_dir", tmp_path, "--seed", 0, "--num_layers", 2)
    python(script, tmp_path / "alone.pth", "4x1", "2x2", "--", *flags)
    torchrun(2, script, tmp_path / "both.pth", "2x1", "1x2", "--", *flags)
    alone, both = (read_gradients(tmp_path / f"{name}.pth") for name in ("alone", "both"))
    together = alone["4x1"]
    for found in (alone["2x2"], both["2x1"], both["1x2"]):
        assert (found - together).norm() / together.norm() < 1e-10
    assert together.norm() > 1e-3


def test_two_processes_train_and_only_one_prints_and_writes(drive, tmp_path):
    flags = train_flags(drive, "--log_dir", tmp_path, "--batch_size", 1, "--num_epochs", 2,
                        "--num_layers", 2)
    out = torchrun(2, ROOT / "tests/tiny.py", *flags)
    assert "training mdp on 2 x the CPU: 6 items of " in out
    assert ", 2 to a step, " in out
    assert out.count("trained 6 steps") == 1
    assert len(list((tmp_path / "mdp/train").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "mdp/models").iterdir()) == [
        "opt.json", "training_state_00000003.pth", "training_state_00000006.pth", "weights_0",
        "weights_1"]


@pytest.mark.parametrize("name", ["evaluate_depth", "evaluate_pose"])
def test_two_processes_evaluate_what_one_does(drive, weights, tmp_path, script, name):
    split = drive / "splits/tiny" if name == "evaluate_depth" else tmp_path / "list.txt"
    (tmp_path / "list.txt").write_text("9 l: 0-6\n")
    flags = ["--data_path", drive, "--eval_split", split, "--load_weights_folder", weights,
             "--num_workers", 0, "--batch_size", 2, "--no_cuda", "--eval_out_dir", tmp_path]
    if name == "evaluate_depth":
        flags.append("--eval_mono")
    tables = [re.findall(r"(?:&.*|Trajectory error.*)", out) for out in (
        script(name, *flags).out, torchrun(2, f"{name}.py", *flags))]
    assert len(tables[0]) == 1
    assert tables[0] == tables[1]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
def test_shards_cover_all_items_once_in_order(size, count):
    shards = [World(rank, size, torch.device("cpu")).shard(count) for rank in range(size)]
    assert [i for shard in shards for i in shard] == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_one_process_gathers_its_own_array():
    part = np.arange(6).reshape(3, 2)
    assert World(0, 1, torch.device("cpu")).gather_on_main(part) is part
