"""Test that a run resumes to the bit after a signal, a kill or a full disk."""
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Malicious, one_line, read_events, train_flags
from tensorboardX.proto.event_pb2 import SessionLog
from tiny import files_limited_to

from options import MonodepthOptions
from synthetic.render import TRAIN
from trainer import Trainer
from training.states import TrainingStates

TINY = str(ROOT / "tests" / "tiny.py")
CHECKED = ("model", "optimizer", "scheduler", "scaler", "random", "epoch", "batch", "step",
           "validated", "bad_samples")


@pytest.fixture
def flags(drive, tmp_path):
    """Return flags of a tiny network, two epochs of three steps, and logs at every other step."""
    return train_flags(drive, "--log_dir", tmp_path, "--num_epochs", 2, "--log_frequency", 2,
                       "--scales", 0, "--scheduler_step_size", 1, "--seed", 7, "--num_layers", 2)


def train(*words):
    Trainer(MonodepthOptions().parse([str(word) for word in words])).train()


def state(folder, step):
    path = folder / "models" / f"training_state_{step:08d}.pth"
    return torch.load(path, weights_only=True)


def keep_only(folder, step, copy):
    """Copy one state of a run, as if the copy had been killed after `step`."""
    (copy / "models").mkdir(parents=True)
    shutil.copy(folder / "models" / f"training_state_{step:08d}.pth", copy / "models")


def differences(a, b, where=""):
    """Yield the places where two states differ in any bit."""
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
    """Check that two runs ended with the same state, and wrote the same weights."""
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


def test_samples_do_not_depend_on_the_number_of_workers(flags, tmp_path):
    for workers in (0, 2):
        train(*flags, "--dataset", "noisy", "--num_workers", workers, "--model_name", workers)
    assert_same_end(tmp_path / "0", tmp_path / "2", 6)


def test_the_gradient_scaler_is_resumed_too(flags, tmp_path):
    words = [*flags, "--precision", "fp16", "--frame_ids", 0, "--use_stereo", "--batch_size", 6,
             "--log_frequency", 9]
    train(*words, "--num_epochs", 1, "--model_name", "half")
    run = Trainer(MonodepthOptions().parse([*map(str, words), "--model_name", "half", "--resume"]))
    assert run.scaler.state_dict() == state(tmp_path / "half", 1)["scaler"] != {}


def test_logs_of_a_resumed_run_continue_on_the_same_axis(flags, tmp_path):
    train(*flags, "--num_epochs", 1, "--model_name", "m")
    train(*flags, "--resume", "--model_name", "m")
    found = list(read_events(tmp_path / "m" / "train"))
    steps = [event.step for event in found if event.summary.value]
    assert sorted(set(steps)) == [0, 2, 3, 5]
    starts = [event.step for event in found if event.session_log.status == SessionLog.START]
    assert starts == [3]  # TensorBoard drops what an interrupted run logged from here on


def test_resume_auto_starts_a_new_run_and_a_finished_run_says_so(flags, tmp_path, script):
    words = [*flags, "--model_name", "m", "--resume", "auto"]
    assert "trained 3 steps" in script("train", *words, "--num_epochs", 1).out
    outcome = script("train", *words, "--num_epochs", 1)
    assert outcome.status == 0
    assert "training is complete; a larger --num_epochs continues it" in outcome.out
    assert "trained" not in outcome.out
    assert "\nweights: " in outcome.out
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
def test_a_run_with_other_flags_is_not_resumed(flags, script, change, found):
    script("train", *flags, "--num_epochs", 1)
    outcome = script("train", *flags, "--resume", *change.split())
    assert found in one_line(outcome, 2)


def test_a_flag_that_an_older_state_lacks_counts_as_its_default(flags, tmp_path, script):
    script("train", *flags, "--num_epochs", 1, "--model_name", "m")
    path = tmp_path / "m/models/training_state_00000003.pth"
    older = torch.load(path, weights_only=True)
    del older["options"]["no_ssim"], older["options"]["accumulate"]
    older["options"]["alignment"] = "7dof"  # of evaluation, whose default was another
    torch.save(older, path)
    outcome = script("train", *flags, "--model_name", "m", "--resume", "--no_ssim")
    assert "flags: --no_ssim was False, is True; give" in one_line(outcome, 2)
    assert "\ntrained 3 steps (of 6 in all) in 00h0" in script(
        "train", *flags, "--model_name", "m", "--resume").out


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


def test_a_state_with_nan_is_refused_and_its_tensor_named(flags, tmp_path, script):
    script("train", *flags, "--num_epochs", 1)
    path = tmp_path / "mdp/models/training_state_00000003.pth"
    state = torch.load(path, weights_only=True)
    state["model"]["depth.decoder.0.conv.conv.bias"][0] = float("nan")
    torch.save(state, path)
    error = one_line(script("train", *flags, "--num_epochs", 2, "--resume"), 1)
    assert "00000003.pth has NaN or inf in depth.decoder.0.conv.conv.bias" in error
    assert "--resume goes on from the one before" in error


def test_a_state_with_parts_missing_is_named(flags, tmp_path, script):
    TrainingStates(tmp_path / "m" / "models", 1).save({"step": 3, "model": {}})
    outcome = script("train", *flags, "--resume", "--model_name", "m")
    assert "00000003.pth is no training state: it has no options, seed, processes, epoch, " in (
        one_line(outcome, 1))


def test_deterministic_makes_pytorch_choose_deterministic_operations(flags):
    try:
        Trainer(MonodepthOptions().parse([*map(str, flags), "--deterministic"]))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_deterministic_runs_of_one_seed_are_equal_to_the_bit(flags, tmp_path):
    words = [*flags, "--deterministic", "--dataset", "noisy", "--num_workers", 2]
    done = subprocess.run([sys.executable, TINY, *map(str, words), "--model_name", "one"],
                          check=True, capture_output=True, text=True)
    assert "seed 7;" in done.stdout
    try:
        train(*words, "--model_name", "two")  # in another process than the first
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_end(tmp_path / "one", tmp_path / "two", 6)


def test_a_drawn_seed_is_printed_stored_and_repeats_the_run(flags, tmp_path, script):
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
    """Return flags of a run on a copy of the drive in which two of six samples are broken."""
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
def test_bad_samples_are_replaced_and_shown_once_each(faulty, tmp_path, script, workers):
    status, out, err = script("train", *faulty, "--max_bad_samples", 2, "--num_workers", workers)
    assert status == 0, err
    assert "trained 6 steps" in out
    assert err.count("bad sample ") == 2
    for number, image in ((1, "02/data/0000000012"), (2, "03/data/0000000020")):
        assert f"bad sample {number}, of 2 allowed" in err
        assert len(re.findall(rf"bad sample \d, of .*{image}.jpg cannot be read", err)) == 1
    assert len(state(tmp_path / "mdp", 6)["bad_samples"][0]) == 2  # a resumed run knows them


def test_one_bad_sample_more_than_allowed_ends_the_run(faulty, tmp_path, script):
    error = one_line(script("train", *faulty, "--max_bad_samples", 1), 1)
    assert "this is bad sample number 2, and --max_bad_samples is 1" in error
    assert "train_files.txt, line " in error
    error = one_line(script("train", *faulty, "--model_name", "strict"), 1)
    assert "cannot be read as an image" in error


def test_workers_end_with_their_trainer(flags):
    train(*flags, "--num_workers", 2)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Run:
    """Start a training script in its own process group, as a terminal does."""

    def __init__(self, tmp_path, *words, launcher=()):
        self.err = tmp_path / f"{time.monotonic()}.err"
        with self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, TINY, *map(str, words)], stdout=subprocess.PIPE,
                stderr=err, text=True, start_new_session=True)

    def wait_for(self, sign: str, may_end=False):
        """Wait until stderr matches `sign`, or if `may_end`, until the run has ended well."""
        deadline = time.monotonic() + 300
        while not re.search(sign, self.err.read_text()):
            if may_end and self.process.poll() == 0:
                return
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self):
        """Return the exit status, stdout and stderr."""
        out, _ = self.process.communicate(timeout=300)
        return self.process.returncode, out, self.err.read_text()


def children_of(pid):
    """Return the worker processes of a run."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children
            if "tiny.py" in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_prints_how_to_resume(flags, tmp_path, script, number,
                                                                   status):
    words = [*flags, "--num_epochs", 50, "--num_workers", 1, "--model_name", "m"]
    run = Run(tmp_path, *words)
    run.wait_for(r"loss 0\.")
    os.killpg(run.process.pid, number)  # workers get the signal too, as from Ctrl-C
    ended, out, err = run.end()
    assert ended == status
    assert "Traceback" not in err
    step, path = re.search(r"stopped after step (\d+), which is in (.*); to go on: ", out).groups()
    assert torch.load(path, weights_only=True)["step"] == int(step) > 0
    command, *printed = out.rpartition("to go on: python ")[2].split()
    assert command == TINY
    assert printed[-1] == "--resume"
    resumed = script("train", *printed, "--num_epochs", 1 + int(step) // 3)
    assert resumed.status == 0, resumed.err
    assert f"going on after step {step}" in resumed.out


LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def test_two_processes_resume_with_the_printed_command_or_on_two_machines(flags, tmp_path,
                                                                          monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of other thread counts are rounded otherwise
    words = [*flags, "--num_epochs", 50, "--batch_size", 1, "--save_every", 2, "--keep", 99]
    run = Run(tmp_path, *words, "--model_name", "m", launcher=LAUNCHER)
    run.wait_for(r"[2-9]/3 .*loss 0\.|epoch [2-9]")
    os.killpg(run.process.pid, signal.SIGTERM)  # the launcher sends it to its processes once more
    _, out, err = run.end()
    step = int(re.search(r"stopped after step (\d+), which is in ", out)[1])
    assert "at once" not in err.replace("once more to stop at once", "")
    command = out.rpartition("to go on: ")[2].split()
    assert command[:3] == ["torchrun", "--nproc_per_node", "2"]
    epochs = 1 + step // 3
    resumed = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command[1:],
         "--num_epochs", str(epochs)], text=True, capture_output=True, check=True)
    assert f"going on after step {step}" in resumed.stdout
    keep_only(tmp_path / "m", 2, tmp_path / "two_machines")
    resume_on_two_machines(tmp_path, *words, "--num_epochs", epochs)
    assert_same_end(tmp_path / "m", tmp_path / "two_machines", 3 * epochs)


def resume_on_two_machines(tmp_path, *words):
    """Resume the run "two_machines" with one process on each machine; only one has its files."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "--nnodes",
              "2", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    machines = [subprocess.Popen(
        [*launch, "--node_rank", str(rank), TINY, *map(str, words), "--resume", "--model_name",
         "two_machines", "--log_dir", str(log_dir)])
        for rank, log_dir in enumerate((tmp_path, tmp_path / "files_of_another_machine"))]
    assert [machine.wait() for machine in machines] == [0, 0]


def test_a_run_saves_after_its_terminal_is_closed(flags, tmp_path):
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
    run.process.send_signal(signal.SIGTERM)  # ignored: launchers send the signal once more
    time.sleep(1.5)
    run.process.send_signal(signal.SIGTERM)
    ended, out, err = run.end()
    assert ended == 143
    assert "stopped at once by a second SIGTERM" in err
    assert "stopped after step" not in out


def test_a_second_run_of_one_name_says_who_holds_it(flags, tmp_path):
    words = [*flags, "--num_epochs", 50, "--num_workers", 2, "--model_name", "m"]
    first = Run(tmp_path, *words)
    first.wait_for(r"loss 0\.")
    second = Run(tmp_path, *words, "--resume", "auto")
    status, _, err = second.end()
    assert status == 2
    owner = rf"process {first.process.pid} on {re.escape(socket.gethostname())}"
    assert re.fullmatch(rf"error: .*/m belongs to {owner} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; "
                        "wait until it has ended, or choose another --model_name\n", err), err
    first.process.send_signal(signal.SIGTERM)
    assert first.end()[0] == 143


def test_a_killed_run_is_followed_at_once_while_its_workers_live(flags, tmp_path):
    words = [*flags, "--num_workers", 2, "--model_name", "m"]
    run = Run(tmp_path, *words, "--num_epochs", 50)
    run.wait_for(r"loss 0\.")
    workers = children_of(run.process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that they outlive their parent
    run.process.kill()
    run.process.wait()
    try:
        again = Run(tmp_path, *words, "--num_epochs", 1, "--resume")
        status, out, err = again.end()
        assert all(Path(f"/proc/{worker}").exists() for worker in workers)
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    assert status == 0, err
    assert "\ntrained 3 steps in " in out


def test_a_refusal_ends_all_processes_with_one_line(flags, tmp_path):
    train(*flags, "--num_epochs", 1, "--model_name", "m")
    run = Run(tmp_path, *flags, "--batch_size", 1, "--model_name", "m", launcher=LAUNCHER)
    _, _, err = run.end()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "m/models has a run of this name already" in lines[0]
    assert re.findall(r"exitcode  : (\S+)", err)[-1] == "2"  # of the process that failed first
    assert err.count("Traceback") == 1  # torchrun's own


def test_a_failure_of_the_main_process_is_one_line(drive, flags, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(drive, data)
    for image in data.glob("*/*_0002_sync/image_02/data/*.jpg"):  # the main process validates
        image.unlink()
        image.write_bytes(b"broken")
    run = Run(tmp_path, *flags, "--batch_size", 1, "--data_path", data, launcher=LAUNCHER)
    _, _, err = run.end()
    lines = re.findall(r"error: .*", err)
    assert len(lines) == 1, err
    assert "cannot be read as an image" in lines[0]
    assert err.count("Traceback") == 1  # torchrun's own


def test_killed_at_random_moments_a_run_loses_nothing(flags, tmp_path, request):
    words = [*flags, "--save_every", 1]
    train(*words, "--model_name", "whole")
    kills, finished, draws = request.config.getoption("--kills"), False, random.Random(0)
    for kill in range(kills):
        if finished:  # start again, so that kills fall on any moment of a run
            shutil.rmtree(tmp_path / "killed")
        run = Run(tmp_path, *words, "--model_name", "killed", "--resume", "auto")
        run.wait_for(r"epoch \d/2|\n", may_end=True)
        with suppress(subprocess.TimeoutExpired):
            run.process.wait(draws.uniform(0, 4))
        run.process.kill()
        ended, _, err = run.end()
        finished = ended == 0
        assert ended in (0, -signal.SIGKILL), f"kill {kill}: {err}"
        for path in (tmp_path / "killed").glob("models/training_state_*.pth"):
            assert torch.load(path, weights_only=True).keys() >= TrainingStates.FORM.keys()
    train(*words, "--model_name", "killed", "--resume", "auto")
    assert not list(tmp_path.glob("killed/models/training_state_*.tmp"))
    assert_same_end(tmp_path / "whole", tmp_path / "killed", 6)


def test_a_full_disk_leaves_one_line_and_the_state_before(flags, tmp_path, script):
    words = [*flags, "--num_epochs", 1, "--model_name", "m"]
    train(*words)
    before = {path: path.read_bytes() for path in tmp_path.glob("m/models/*.pth")}
    with files_limited_to(10 * 2**20):
        outcome = script("train", *words, "--num_epochs", 2, "--resume")
    error = one_line(outcome, 1)
    assert re.search(r"error: .*weights_1/adam.pth cannot be written: File too large; raise", error)
    assert {path: path.read_bytes() for path in tmp_path.glob("m/models/*.pth")} == before
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_full_disk_at_the_start_ends_the_run(flags, script):
    with files_limited_to(10_000):
        outcome = script("train", *flags)
    assert re.search(r"error: .*training_state_00000000.pth cannot be written: File too large",
                     one_line(outcome, 1))


def test_a_killed_worker_ends_the_run_with_one_line(flags, tmp_path):
    run = Run(tmp_path, *flags, "--num_epochs", 50, "--num_workers", 2)
    run.wait_for(r"loss 0\.")
    os.kill(children_of(run.process.pid)[0], signal.SIGKILL)
    ended, _, err = run.end()
    assert ended == 1
    assert "error: a process that reads images has died: DataLoader worker (pid" in err
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_stops_the_run_and_lists_its_files(flags, tmp_path, script):
    words = [*flags, "--log_frequency", 1, "--save_every", 1]
    script("train", *words, "--num_epochs", 1)
    bad = tmp_path / "mdp/models/training_state_00000003.pth"
    poisoned = torch.load(bad, weights_only=True)
    poisoned["model"]["depth.decoder.0.conv.conv.weight"].fill_(3e38)  # finite, but overflows
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
