"""Test that metrics.jsonl has TensorBoard's scalars, and each step once after any interruption."""
import json

import pytest
import torch
from conftest import read_events, train_flags
from tiny import files_limited_to

from options import MonodepthOptions
from runtime.errors import DataError
from trainer import Trainer
from training.logs import Logs


def log(folder, steps, first_step=0, **losses):
    """Log steps as a run does that started, or resumed, at `first_step`."""
    logs = Logs(folder, [0], [0], first_step)
    inputs = {("color", 0, 0): torch.rand(1, 3, 8, 16)}
    outputs = {("disp", 0): torch.rand(1, 1, 8, 16)}
    for step in steps:
        for mode in ("train", "val"):
            logs.write(mode, step, step // 3, inputs, outputs, losses or {"loss": step / 2}, {})
    logs.close()


def lines(folder):
    """Return the parsed lines; a NaN, which JSON does not have, fails."""
    content = (folder / "metrics.jsonl").read_text()
    assert content.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in content.splitlines()]


def logged(folder):
    """Return the mode and the step of each line."""
    return [(line["mode"], line["step"]) for line in lines(folder)]


def both(*steps):
    return [(mode, step) for step in steps for mode in ("train", "val")]


def test_a_line_has_mode_step_epoch_time_and_the_scalars(tmp_path):
    log(tmp_path, [7], **{"loss": torch.tensor(0.1), "de/abs_rel": 0.25})
    for line, mode in zip(lines(tmp_path), ("train", "val"), strict=True):
        events = [event for event in read_events(tmp_path / mode) if event.summary.value]
        scalars = {value.tag: value.simple_value for event in events
                   for value in event.summary.value if not value.HasField("image")}
        assert len(scalars) == 2
        assert line == {"mode": mode, "step": 7, "epoch": 2, "time": events[0].wall_time, **scalars}


def test_values_that_are_not_finite_become_null(tmp_path):
    log(tmp_path, [0], loss=torch.tensor(float("nan")), one=float("-inf"), two=2.0)
    assert [(line["loss"], line["one"], line["two"]) for line in lines(tmp_path)] == [
        (None, None, 2.0)] * 2


def test_a_resumed_run_replaces_the_lines_of_repeated_steps(tmp_path):
    log(tmp_path, [0, 2, 3, 4])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    log(tmp_path, [3, 5], first_step=3)
    assert logged(tmp_path) == both(0, 2, 3, 5)
    kept = b"".join(before.splitlines(keepends=True)[:4])
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(kept)


def test_a_new_run_removes_all_former_lines(tmp_path):
    log(tmp_path, [0, 2])
    log(tmp_path, [0])
    assert logged(tmp_path) == both(0)


def test_lines_are_removed_only_at_the_first_write(tmp_path):
    log(tmp_path, [0, 2])
    log(tmp_path, [], first_step=1)
    assert logged(tmp_path) == both(0, 2)


@pytest.mark.parametrize("left", [0, 1, 20, -2, -1])
def test_a_last_line_cut_by_a_kill_is_removed_on_resume(tmp_path, left):
    log(tmp_path, [0, 1])
    *whole, last = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([*whole, last[:left]]))
    log(tmp_path, [2], first_step=2)
    only_its_end_is_missing = left == -1
    assert logged(tmp_path) == [*both(0), ("train", 1), *[("val", 1)] * only_its_end_is_missing,
                                *both(2)]


def test_lines_stay_when_the_file_cannot_be_rewritten(tmp_path):
    log(tmp_path, [0, 2, 4], **{f"loss/{i}": 1 / (3 + i) for i in range(50)})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    with files_limited_to(size // 2), pytest.raises(
            DataError, match=r"metrics\.jsonl cannot be written: File too large; raise"):
        log(tmp_path, [3], first_step=3)
    assert logged(tmp_path) == both(0, 2, 4)


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path):
    many = {f"loss/{i}": 1 / (3 + i) for i in range(50)}
    log(tmp_path, [0, 1, 2], **many)
    size = (tmp_path / "metrics.jsonl").stat().st_size
    with files_limited_to(size + 100), pytest.raises(DataError) as error:
        log(tmp_path, [3], first_step=3, **many)  # its event files are new, and small enough
    assert str(error.value) == (f"--log_dir: {tmp_path} cannot be written: File too large; raise "
                                "the limit (ulimit -f), or choose another folder")
    log(tmp_path, [3], first_step=3, **many)
    assert logged(tmp_path) == both(0, 1, 2, 3)


def test_overwriting_a_run_deletes_its_lines(tmp_path):
    log(tmp_path, [0])
    Logs(tmp_path, [0], [0]).remove()
    assert not (tmp_path / "metrics.jsonl").exists()
    Logs(tmp_path, [0], [0]).remove()  # an empty folder is no error


def test_a_resumed_run_ends_with_the_lines_of_an_unbroken_one(drive, tmp_path):
    words = train_flags(drive, "--log_dir", tmp_path, "--num_epochs", 2, "--log_frequency", 1,
                        "--scales", 0, "--num_layers", 2, "--save_every", 2, "--keep", 9,
                        "--model_name", "m", "--seed", 7)
    Trainer(MonodepthOptions().parse(words)).train()
    unbroken = lines(tmp_path / "m")
    assert logged(tmp_path / "m") == both(0, 1, 2, 3, 4, 5)
    assert [line["epoch"] for line in unbroken] == [0] * 6 + [1] * 6
    assert all("de/abs_rel" in line for line in unbroken if line["mode"] == "val")
    for state in sorted((tmp_path / "m/models").glob("training_state_*.pth"))[2:]:
        state.unlink()  # all after step 2, as if the run had been killed in its second epoch
    Trainer(MonodepthOptions().parse([*words, "--resume"])).train()
    again = lines(tmp_path / "m")
    assert again[:4] == unbroken[:4]
    assert [{**line, "time": 0} for line in again] == [{**line, "time": 0} for line in unbroken]
