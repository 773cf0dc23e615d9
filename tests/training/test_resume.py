"""Resuming: a run that is stopped, killed or short of disk goes on as if nothing had happened."""
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Malicious, one_line, read_events, train_flags
from tensorboardX.proto.event_pb2 import SessionLog

from options import MonodepthOptions
from synthetic.render import TRAIN
from trainer import Trainer
from training.states import TrainingStates

import_module("tiny")  # which brings --num_layers 2 and --dataset noisy
TINY = str(ROOT / "tests" / "tiny.py")
CHECKED = ("model", "optimizer", "scheduler", "scaler", "random", "epoch", "batch", "step",
           "validated", "bad_samples")


@pytest.fixture
def flags(drive, tmp_path):
    """Flags of two epochs of three steps, a validation at each other step, of a tiny network."""
    return train_flags(drive, "--log_dir", tmp_path, "--num_epochs", 2, "--log_frequency", 2,
                       "--scales", 0, "--scheduler_step_size", 1, "--seed", 7, "--num_layers", 2)


def train(*words):
    Trainer(MonodepthOptions().parse([str(word) for word in words])).train()


def state(folder, step):
    path = folder / "models" / f"training_state_{step:08d}.pth"
    return torch.load(path, weights_only=True)


def keep_only(folder, step, copy):
    """Make a run that was killed after `step` from one that was not."""
    (copy / "models").mkdir(parents=True)
    shutil.copy(folder / "models" / f"training_state_{step:08d}.pth", copy / "models")


def differences(a, b, where=""):
    """Yield where two states are not equal to the bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            yield from differences(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{where}/{i}")
    elif not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b):
        yield where


def assert_same_end(folder, other, step):
    """Both runs ended with the same state, and wrote the same weights."""
    ended, resumed = state(folder, step), state(other, step)
    assert [d for key in CHECKED for d in differences(ended[key], resumed[key], key)] == []
    for path in sorted((folder / "models").glob("weights_1/*.pth")):
        twin = other / "models" / "weights_1" / path.name
        one, two = (torch.load(p, weights_only=True) for p in (path, twin))
        assert list(differences(one, two, path.name)) == []


@pytest.mark.parametrize(("workers", "steps"), [(0, (1, 2, 3, 5)), (2, (2,))])
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(flags, tmp_path, workers, steps):
    words = [*flags, "--dataset", "noisy", "--num_workers", workers]
    train(*words, "--save_every", 1, "--keep", 99, "--model_name", "whole")
    for step in steps:
        keep_only(tmp_path / "whole", step, tmp_path / f"from_{step}")
        train(*words, "--resume", "--model_name", f"from_{step}")
        assert_same_end(tmp_path / "whole", tmp_path / f"from_{step}", 6)


def test_what_is_loaded_does_not_depend_on_the_number_of_workers(flags, tmp_path):
    for workers in (0, 2):
        train(*flags, "--dataset", "noisy", "--num_workers", workers, "--model_name", workers)
    assert_same_end(tmp_path / "0", tmp_path / "2", 6)


def test_two_machines_resume_what_two_processes_began(flags, tmp_path):
    words = [*map(str, flags), "--batch_size", "1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, "2", "--standalone", TINY, *words, "--save_every", "2", "--keep", "9",
                    "--model_name", "whole"], cwd=ROOT, env=environment, check=True)
    keep_only(tmp_path / "whole", 2, tmp_path / "resumed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    machines = [subprocess.Popen(
        [*launch, "1", "--nnodes", "2", "--node_rank", str(rank), "--master_addr", "127.0.0.1",
         "--master_port", str(port), TINY, *words, "--resume", "--model_name", "resumed",
         "--log_dir", str(log_dir)], cwd=ROOT, env=environment)
        for rank, log_dir in enumerate((tmp_path, tmp_path / "what_another_machine_sees"))]
    assert [machine.wait() for machine in machines] == [0, 0]
    assert_same_end(tmp_path / "whole", tmp_path / "resumed", 6)


def test_a_gradient_scaler_goes_on_too(flags, tmp_path):
    words = [*flags, "--precision", "fp16", "--frame_ids", 0, "--use_stereo", "--batch_size", 6,
             "--log_frequency", 9]
    train(*words, "--num_epochs", 1, "--model_name", "half")
    run = Trainer(MonodepthOptions().parse([*map(str, words), "--model_name", "half", "--resume"]))
    assert run.scaler.state_dict() == state(tmp_path / "half", 1)["scaler"] != {}


def test_logs_of_a_resumed_run_go_on_the_same_axis(flags, tmp_path):
    train(*flags, "--num_epochs", 1, "--model_name", "m")
    train(*flags, "--resume", "--model_name", "m")
    found = list(read_events(tmp_path / "m" / "train"))
    steps = [event.step for event in found if event.summary.value]
    assert sorted(set(steps)) == [0, 2, 3, 5]
    starts = [event.step for event in found if event.session_log.status == SessionLog.START]
    assert starts == [3]  # from where TensorBoard drops what an interrupted run has logged


def test_resume_auto_begins_where_there_is_nothing_and_a_finished_run_says_so(flags, tmp_path,
                                                                              script):
    words = [*flags, "--model_name", "m", "--resume", "auto"]
    assert "trained 3 steps" in script("train", *words, "--num_epochs", 1).out
    outcome = script("train", *words, "--num_epochs", 1)
    assert outcome.status == 0
    assert "nothing is left to do; a larger --num_epochs goes on" in outcome.out
    assert "going on after step 3, in epoch 2" in script("train", *words).out


def test_a_run_is_not_resumed_on_other_lists(drive, flags, tmp_path, script):
    shutil.copytree(drive / "splits/tiny", tmp_path / "split")
    words = [*flags, "--num_epochs", 1, "--split", tmp_path / "split"]
    script("train", *words)
    with (tmp_path / "split/train_files.txt").open("a") as lists:
        lists.write(f"{TRAIN} l: 30-33\n")
    error = one_line(script("train", *words, "--num_epochs", 2, "--resume"), 2)
    assert "the lists of --split" in error


def test_resume_of_nothing_is_an_error(flags, script):
    outcome = script("train", *flags, "--resume", "--model_name", "m")
    assert "m/models has no training_state_<step>.pth" in one_line(outcome, 1)


@pytest.mark.parametrize(("change", "found"), [
    ("--batch_size 3", "--batch_size was 2, is 3"), ("--seed 8", "--seed was 7, is 8"),
    ("--learning_rate 1e-3 --use_stereo",
     "--use_stereo was False, is True; --learning_rate was 0.0001, is 0.001")])
def test_another_run_is_not_resumed(flags, script, change, found):
    script("train", *flags, "--num_epochs", 1)
    outcome = script("train", *flags, "--resume", *change.split())
    assert found in one_line(outcome, 2)


def test_only_the_last_states_are_kept_and_all_weights(flags, tmp_path):
    train(*flags, "--save_every", 2, "--keep", 3, "--model_name", "m")
    assert sorted(path.name for path in (tmp_path / "m" / "models").iterdir()) == [
        "opt.json", "training_state_00000003.pth", "training_state_00000004.pth",
        "training_state_00000006.pth", "weights_0", "weights_1"]


def test_a_run_is_never_overwritten_silently(flags, tmp_path, script):
    words = [*flags, "--num_epochs", 1, "--model_name", "m"]
    script("train", *words)
    before = (tmp_path / "m/models/weights_0/depth.pth").read_bytes()
    outcome = script("train", *words)
    error = one_line(outcome, 2)
    assert all(flag in error for flag in ("--resume", "--overwrite", "another --model_name"))
    assert (tmp_path / "m/models/weights_0/depth.pth").read_bytes() == before
    (tmp_path / "m/models/weights_7").mkdir()
    assert script("train", *words, "--overwrite", "--seed", 8).status == 0
    assert (tmp_path / "m/models/weights_0/depth.pth").read_bytes() != before
    assert not (tmp_path / "m/models/weights_7").exists()
    assert len(list((tmp_path / "m/train").iterdir())) == 1


def test_a_malicious_state_is_refused_and_not_run(flags, tmp_path, script):
    models = tmp_path / "m" / "models"
    models.mkdir(parents=True)
    torch.save({"model": Malicious(tmp_path / "hacked")}, models / "training_state_00000003.pth")
    outcome = script("train", *flags, "--resume", "--model_name", "m")
    assert "cannot be read as weights" in one_line(outcome, 1)
    assert not (tmp_path / "hacked").exists()


def test_a_state_with_parts_missing_is_named(flags, tmp_path, script):
    TrainingStates(tmp_path / "m" / "models", 1).save({"step": 3, "model": {}})
    outcome = script("train", *flags, "--resume", "--model_name", "m")
    assert "00000003.pth is no training state: it has no options, seed, processes, epoch, " in (
        one_line(outcome, 1))


def test_deterministic_has_pytorch_choose_such_operations(flags):
    try:
        Trainer(MonodepthOptions().parse([*map(str, flags), "--deterministic"]))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_deterministic_runs_of_one_seed_are_equal_to_the_bit(flags, tmp_path):
    for name in ("one", "two"):
        words = [*flags, "--deterministic", "--dataset", "noisy", "--num_workers", 2]
        done = subprocess.run([sys.executable, TINY, *map(str, words), "--model_name", name],
                              check=True, capture_output=True, text=True)
        assert "seed 7;" in done.stdout
    assert_same_end(tmp_path / "one", tmp_path / "two", 6)


def test_a_drawn_seed_is_printed_stored_and_makes_the_same_run_again(flags, tmp_path, script):
    at = flags.index("--seed")
    unseeded = flags[:at] + flags[at + 2:]
    said = script("train", *unseeded, "--model_name", "drawn").out
    seed = int(re.search(r"seed (\d+);", said)[1])
    assert json.loads((tmp_path / "drawn/models/opt.json").read_text())["seed"] == seed
    script("train", *unseeded, "--seed", seed, "--model_name", "again")
    assert_same_end(tmp_path / "drawn", tmp_path / "again", 6)
    other = script("train", *unseeded, "--model_name", "other").out
    assert f"seed {seed};" not in other


@pytest.fixture
def faulty(drive, flags, tmp_path):
    """Flags of a run on a copy of the drive, of whose six samples two cannot be read."""
    data = tmp_path / "data"
    shutil.copytree(drive, data)
    for side, frame in (("02", 12), ("03", 20)):  # the target of one sample, a source of others
        image = data / TRAIN / f"image_{side}/data/00000000{frame}.jpg"
        image.write_bytes(image.read_bytes()[:300])
    split = data / "splits/some"
    shutil.copytree(data / "splits/tiny", split)
    (split / "train_files.txt").write_text(f"{TRAIN} l: 12 15-18\n{TRAIN} r: 20\n")
    return [*flags, "--data_path", data, "--split", split]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_and_shown_once_each(faulty, tmp_path, workers):
    ended, out, err = Run(tmp_path, *faulty, "--max_bad_samples", 2, "--num_workers", workers).end()
    assert ended == 0, err
    assert "trained 6 steps" in out
    assert err.count("bad sample ") == 2
    for number, image in ((1, "02/data/0000000012"), (2, "03/data/0000000020")):
        assert f"bad sample {number}, of 2 allowed" in err
        assert len(re.findall(rf"bad sample \d, of .*{image}.jpg cannot be read", err)) == 1
    assert state(tmp_path / "mdp", 6)["bad_samples"][0][1]  # and a resumed run knows them


def test_one_bad_sample_more_than_allowed_ends_the_run(faulty, tmp_path, script):
    error = one_line(script("train", *faulty, "--max_bad_samples", 1), 1)
    assert "this is bad sample number 2, and --max_bad_samples is 1" in error
    assert "train_files.txt, line " in error
    error = one_line(script("train", *faulty, "--model_name", "strict"), 1)
    assert "cannot be read as an image" in error


def test_workers_are_gone_when_their_trainer_is(flags):
    train(*flags, "--num_workers", 2)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Run:
    """A training script in a process group of its own, as a terminal starts it."""

    def __init__(self, tmp_path, *words, preexec=None, launcher=()):
        self.err = tmp_path / f"{time.monotonic()}.err"
        with self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, TINY, *map(str, words)], stdout=subprocess.PIPE,
                stderr=err, text=True, preexec_fn=preexec, start_new_session=True)

    def wait_for(self, sign: str, may_end=False):
        """Wait until it shows `sign` on its bar, or perhaps until it has ended well."""
        deadline = time.monotonic() + 300
        while not re.search(sign, self.err.read_text()):
            if may_end and self.process.poll() == 0:
                return
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self):
        """Return its exit status and what it printed."""
        out, _ = self.process.communicate(timeout=300)
        return self.process.returncode, out, self.err.read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(flags, tmp_path, number, status):
    words = [*flags, "--num_epochs", 50, "--num_workers", 1, "--model_name", "m"]
    run = Run(tmp_path, *words)
    run.wait_for(r"loss 0\.")
    os.killpg(run.process.pid, number)  # as Ctrl-C does: its workers get it too
    ended, out, err = run.end()
    assert ended == status
    assert "Traceback" not in err
    step, path = re.search(r"stopped after step (\d+), which is in (.*); to go on: ", out).groups()
    assert torch.load(path, weights_only=True)["step"] == int(step) > 0
    command = out.rpartition("to go on: python ")[2].split()
    assert command[-1] == "--resume"
    resumed = subprocess.run([sys.executable, *command, "--num_epochs", str(1 + int(step) // 3)],
                             text=True, capture_output=True, check=True)
    assert f"going on after step {step}" in resumed.stdout


def test_a_signal_to_all_processes_of_two_saves_and_the_command_printed_goes_on(flags, tmp_path):
    words = [*flags, "--num_epochs", 50, "--batch_size", 1, "--model_name", "m"]
    run = Run(tmp_path, *words, launcher=["-m", "torch.distributed.run", "--standalone",
                                          "--nproc_per_node", "2"])
    run.wait_for(r"loss 0\.")
    os.killpg(run.process.pid, signal.SIGTERM)  # the launcher passes it on besides
    _, out, err = run.end()
    step = int(re.search(r"stopped after step (\d+), which is in ", out)[1])
    assert "at once" not in err.replace("once more to stop at once", "")
    command = out.rpartition("to go on: ")[2].split()
    assert command[:3] == ["torchrun", "--nproc_per_node", "2"]
    resumed = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command[1:],
         "--num_epochs", str(1 + step // 3)], text=True, capture_output=True, check=True)
    assert f"going on after step {step}" in resumed.stdout


def test_a_terminal_that_is_gone_does_not_keep_a_run_from_saving(flags, tmp_path):
    words = [*flags, "--num_epochs", 2, "--model_name", "m"]
    run = subprocess.Popen([sys.executable, TINY, *map(str, words)], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    run.stdout.readline()
    run.stdout.close()
    run.stderr.close()
    run.wait(120)
    assert state(tmp_path / "m", 6)["step"] == 6
    assert (tmp_path / "m/models/weights_1/adam.pth").exists()


def test_a_second_signal_stops_at_once(flags, tmp_path):
    run = Run(tmp_path, *flags, "--height", 256, "--width", 832, "--num_layers", 50,
              "--batch_size", 6, "--model_name", "m")  # a step of many seconds
    run.wait_for(r"0/1 ")
    run.process.send_signal(signal.SIGTERM)
    run.wait_for("SIGTERM: finishing the step")
    run.process.send_signal(signal.SIGTERM)  # an echo, as launchers send it
    time.sleep(1.5)
    run.process.send_signal(signal.SIGTERM)
    ended, out, err = run.end()
    assert ended == 143
    assert "stopped at once by a second SIGTERM" in err
    assert "stopped after step" not in out


def test_killed_at_random_moments_a_run_loses_nothing(flags, tmp_path, request):
    words = [*flags, "--save_every", 1]
    train(*words, "--model_name", "whole")
    kills, finished, draws = request.config.getoption("--kills"), False, random.Random(0)
    for kill in range(kills):
        if finished:  # begin once more: the kills shall fall anywhere
            shutil.rmtree(tmp_path / "killed")
        run = Run(tmp_path, *words, "--model_name", "killed", "--resume", "auto")
        run.wait_for(r"epoch \d/2|\n", may_end=True)  # killed at the end, nothing is left to do
        time.sleep(draws.uniform(0, 4))
        run.process.kill()
        ended, _, err = run.end()
        finished = ended == 0
        assert ended in (0, -signal.SIGKILL), f"kill {kill}: {err}"
        for path in (tmp_path / "killed").glob("models/training_state_*.pth"):
            assert torch.load(path, weights_only=True).keys() >= TrainingStates.FORM.keys()
    train(*words, "--model_name", "killed", "--resume", "auto")
    assert not list(tmp_path.glob("killed/models/training_state_*.tmp"))
    assert_same_end(tmp_path / "whole", tmp_path / "killed", 6)


def test_a_full_disk_leaves_one_line_and_the_state_before(flags, tmp_path):
    words = [*flags, "--num_epochs", 1, "--model_name", "m"]
    train(*words)
    before = {path: path.read_bytes() for path in tmp_path.glob("m/models/*.pth")}
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 2**20,) * 2)
    ended, _, err = Run(tmp_path, *words, "--num_epochs", 2, "--resume", preexec=limit).end()
    assert ended == 1
    assert "Traceback" not in err
    assert re.search(r"error: .*weights_1/adam.pth cannot be written: File too large; free", err)
    assert {path: path.read_bytes() for path in tmp_path.glob("m/models/*.pth")} == before
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_log_that_cannot_grow_ends_the_run_and_does_not_hang(flags, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000,) * 2)
    ended, _, err = Run(tmp_path, *flags, preexec=limit).end()
    assert ended == 1
    assert re.search(r"error: .*training_state_00000000.pth cannot be written: File too large", err)


def test_a_worker_that_is_killed_ends_the_run_with_a_line_that_says_so(flags, tmp_path):
    run = Run(tmp_path, *flags, "--num_epochs", 50, "--num_workers", 2)
    run.wait_for(r"loss 0\.")
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children
               if "tiny.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(workers[0], signal.SIGKILL)
    ended, _, err = run.end()
    assert ended == 1
    assert "error: a process that reads images has died: DataLoader worker (pid" in err
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_stops_the_run_and_its_batch_is_reported(flags, tmp_path, script):
    words = [*flags, "--log_frequency", 1, "--save_every", 1]
    script("train", *words, "--num_epochs", 1)
    bad = tmp_path / "mdp/models/training_state_00000003.pth"
    poisoned = torch.load(bad, weights_only=True)
    poisoned["model"]["depth.decoder.0.conv.conv.bias"][0] = float("nan")
    torch.save(poisoned, bad)
    error = one_line(script("train", *words, "--resume"), 1)
    assert "the loss of step 3, or a weight after it, is not finite" in error
    assert f"the last good state is {bad}" in error
    (report,) = (tmp_path / "mdp").glob("not_finite_at_step_3_process_0.txt")
    lines = report.read_text().splitlines()
    assert lines[0] == "step 3, epoch 1"
    assert all(re.fullmatch(r"\S+_sync \d+ [lr]", line) for line in lines[1:3])
    assert json.loads("\n".join(lines[3:]))["seed"] == 7
    assert not list(tmp_path.glob("**/training_state_00000004.pth"))
