"""experiments: every line of the lists is parsed, and run.py runs lists of its own."""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from string import Template

import pytest
from conftest import HEIGHT, ROOT, WIDTH, read_results

from experiments.lists import read_experiments
from experiments.table import markdown_table, mean_and_spread
from options import MonodepthOptions
from runtime.errors import DataError

LISTS = {path.stem: read_experiments(path) for path in sorted((ROOT / "experiments").glob("*.sh"))}
LINES = [(stem, name, line) for stem, lines in LISTS.items() for name, line in lines.items()]
NAMES = [name for _, name, _ in LINES]


def parsed(line, out="out", seed=7):
    """Return the script and the options of each command of a line."""
    words = shlex.split(Template(line).substitute(DATA="data", OUT=out, SEED=seed))
    commands = [command.split() for command in shlex.join(words).split(" '&&' ")]
    return [(script, MonodepthOptions(script.removesuffix(".py")).parse(flags))
            for _, script, *flags in commands]


def trained_weights(lines):
    """Return the options of each training by the weights folder that it ends with."""
    return {f"{opts.log_dir}/{opts.model_name}/models/weights_{opts.num_epochs - 1}": opts
            for line in lines for script, opts in parsed(line) if script == "train.py"}


@pytest.mark.parametrize(("stem", "name", "line"), LINES,
                         ids=[f"{stem}-{name}" for stem, name, _ in LINES])
def test_a_line_writes_to_its_folder_and_reads_trained_weights(stem, name, line):
    own = list(LISTS[stem].values())
    trained = trained_weights([*LISTS["table_1"].values(), *own[:own.index(line) + 1]])
    for script, opts in parsed(line):
        assert (ROOT / script).is_file()
        if script == "train.py":
            assert (opts.seed, opts.resume, opts.model_name) == (7, "auto", f"{name}_7")
            assert opts.load_weights_folder is None or opts.load_weights_folder in trained
            continue
        assert opts.eval_out_dir == f"out/{name}_7"
        source = trained[opts.load_weights_folder]
        if script == "evaluate_depth.py" and stem != "street":  # where all are scaled alike
            assert opts.eval_stereo == source.use_stereo
        if script == "evaluate_depth.py":
            assert opts.min_depth is None


def test_only_the_supplement_needs_weights_of_table_1():
    for stem, lines in LISTS.items():
        own, needed = trained_weights(lines.values()), set()
        for line in lines.values():
            needed |= {opts.load_weights_folder for _, opts in parsed(line)} - {None, *own}
        assert (needed != set()) == (stem == "supplement")


def test_no_two_lines_share_a_folder():
    assert len(set(NAMES)) == len(NAMES)


def test_the_readme_has_each_row_and_marks_that_are_its_flags():
    text = (ROOT / "experiments/README.md").read_text()
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert sorted(named) == sorted(NAMES)
    for name, line in LISTS["table_2"].items():
        _, opts = parsed(line)[0]
        marks = re.search(rf"^\| `{name}`[^|]*\|(.*?)\|(.*?)\|(.*?)\|", text, re.MULTILINE)
        assert [mark.strip() == "x" for mark in marks.groups()] == [
            not opts.avg_reprojection, not opts.disable_automasking, not opts.v1_multiscale]


def test_the_list_in_the_readme_is_valid(tmp_path):
    blocks = re.findall("```shell\n(.*?)```", (ROOT / "experiments/README.md").read_text(), re.S)
    (block,) = [block for block in blocks if '"$OUT"/' in block]
    (tmp_path / "list.sh").write_text(block)
    assert list(read_experiments(tmp_path / "list.sh")) == ["mine", "mine_pp"]


def start(*words):
    """Start experiments.run as the leader of a process group, as a shell does."""
    return subprocess.Popen([sys.executable, "-m", "experiments.run", *map(str, words)], cwd=ROOT,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def call(*words):
    """Return how experiments.run ended: status, stdout, stderr."""
    run = start(*words)
    out, err = run.communicate()
    return run.returncode, out, err


EVALUATION = ('python evaluate_depth.py --eval_stereo --eval_split "$DATA"/splits/tiny '
              '--data_path "$DATA" --num_workers 0 --no_cuda --pred_depth_scale_factor $SEED '
              '--load_weights_folder {weights} --eval_out_dir "$OUT"/{name}_$SEED')


def test_a_failed_row_is_named_and_the_others_are_in_the_table(drive, weights, tmp_path):
    bad, good = (EVALUATION.format(weights=folder, name=name)
                 for folder, name in (("nowhere", "bad"), (weights, "good")))
    (tmp_path / "list.sh").write_text(f"# a comment\n{bad} && {bad}\n\n{good}\n")
    out = tmp_path / "with a space"
    words = tmp_path / "list.sh", "--data_path", drive, "--out", out, "--seeds", 1, 2, 1
    status, printed, err = call(*words)
    assert status == 1
    assert err == ("error: 2 of 4 runs failed; see above, and run the same command again: "
                   "what is finished is not trained again\n")
    log = out / "bad_2.log"
    assert f"bad_2: ended with status 1; see {log}\n" in printed
    assert re.fullmatch(r"\+ python evaluate_depth.py .*--pred_depth_scale_factor 2 .*\n"
                        r"\+ .*python.* evaluate_depth.py .*\n"
                        r"error: nowhere.*\n", log.read_text())
    assert "good_2: done\n" in printed
    found = [read_results(out / f"good_{seed}")["metrics"]
             for seed in (1, 2)]
    abs_rel, a1 = ([each[name]["mean"] for each in found] for name in ("abs_rel", "a1"))
    assert abs_rel[0] != abs_rel[1]
    assert printed.endswith("\n| row | seeds | abs_rel | a1 |\n| --- | --- | --- | --- |\n"
                            "| bad | 0 | - | - |\n"
                            f"| good | 2 | {mean_and_spread(abs_rel, 2)} | "
                            f"{mean_and_spread(a1, 2)} |\n")
    # the table alone runs nothing
    alone = call(*words, "--table", "--only", "good", "--metrics", "rmse")
    assert re.fullmatch(r"\n\| row \| seeds \| rmse \|\n.*\n\| good \| 2 \| .* \|\n", alone[1])
    assert (out / "good_2.log").read_text().count("+ python") == 1


TRAINING = ('python train.py --data_path "$DATA" --split "$DATA"/splits/tiny --num_epochs 300 '
            f"--height {HEIGHT} --width {WIDTH} --batch_size 2 --num_workers 0 --use_stereo "
            '--weights_init scratch --no_cuda --log_dir "$OUT" --model_name {name}_$SEED '
            '--seed $SEED --resume auto && python evaluate_depth.py --eval_stereo '
            '--load_weights_folder "$OUT"/{name}_$SEED/models/weights_299 '
            '--eval_out_dir "$OUT"/{name}_$SEED')


def wait_for_steps(run, log, steps):
    """Wait until a training that is started has shown so many steps in its log."""
    before = log.read_text() if log.exists() else ""
    while not log.exists() or log.read_text().removeprefix(before).count("epoch ") < steps:
        assert run.poll() is None
        time.sleep(0.1)


def test_a_stopped_training_saves_and_the_same_command_goes_on(drive, tmp_path):
    (tmp_path / "list.sh").write_text(f"{TRAINING.format(name='one')}\n"
                                      f"{TRAINING.format(name='two')}\n")
    words = tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path / "out"
    log = tmp_path / "out/one_1.log"
    # `kill` reaches the runner alone, Ctrl-C in a terminal its whole process group
    for send, number, status in ((os.kill, signal.SIGTERM, 143), (os.killpg, signal.SIGINT, 130)):
        run = start(*words)
        wait_for_steps(run, log, 3)
        stopped = log.read_text().count("stopped after step")
        send(run.pid, number)
        out, err = run.communicate(timeout=60)
        assert run.returncode == status, err
        assert "Traceback" not in err
        assert log.read_text().count("stopped after step") == stopped + 1
        assert f"one_1: ended with status 143; see {log}\n" in out
        assert "two_1" not in out
    assert "going on after step" in log.read_text()
    assert "python evaluate_depth.py" not in log.read_text()


def test_a_row_that_outlives_its_runner_is_left_alone(drive, tmp_path):
    (tmp_path / "list.sh").write_text(TRAINING.format(name="one"))
    words = tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path
    run = start(*words)
    wait_for_steps(run, tmp_path / "one_1.log", 1)
    (shell,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    run.communicate()
    try:
        status, out, _ = call(*words)
    finally:
        os.killpg(int(shell), signal.SIGKILL)
    assert status == 1
    assert "one_1: another process runs it already; wait until that process has ended\n" in out


def test_the_spread_is_the_standard_deviation_of_a_sample():
    assert mean_and_spread([1, 2, 3], 3) == "2.0000 ± 1.0000"
    assert mean_and_spread([1, 2, 3], 4) == "2.0000 ± 1.0000 (of 3)"
    assert mean_and_spread([0.5], 1) == "0.5000"
    assert mean_and_spread([], 1) == "-"


def test_the_table_reads_the_only_results_of_a_row(tmp_path):
    (tmp_path / "a_1").mkdir()
    content = json.dumps({"lines": ["x 0", "x 1"], "images": {
        "abs_rel": [0.25, 0.75], "a1": [None, 0.5], "pixels": [9, 9]}})
    (tmp_path / "a_1/results_eigen_scale.json").write_text(content)
    table = markdown_table(["a"], [1], tmp_path, ["abs_rel", "a1"])
    assert table.endswith("| a | 1 | 0.5000 | 0.5000 |")
    (tmp_path / "a_1/results_eigen_median.json").write_text(content)
    with pytest.raises(DataError, match=r"a_1 has results_eigen_median\.json and results_eigen_sc"):
        markdown_table(["a"], [1], tmp_path, ["abs_rel"])


def test_a_missing_error_is_a_dash_in_the_table(tmp_path):
    for name, error in (("a_1", 0.5), ("a_2", None), ("b_1", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trajectory_09.json").write_text(json.dumps({"five_frame_error": error}))
    assert markdown_table(["a", "b"], [1, 2], tmp_path, []) == (
        "| row | seeds | 5-frame 09, m |\n| --- | --- | --- |\n| a | 1 | 0.5000 |\n| b | 0 | - |")


@pytest.mark.parametrize("name", ["trajectory_09.json", "trajectory_09_6dof.json"])
def test_the_table_reads_trajectories_of_any_alignment(tmp_path, name):
    (tmp_path / "a_1").mkdir()
    (tmp_path / "a_1" / name).write_text(json.dumps({"five_frame_error": 0.5}))
    assert markdown_table(["a"], [1], tmp_path, []).endswith("09, m |\n| --- | --- | --- |\n"
                                                             "| a | 1 | 0.5000 |")


@pytest.mark.parametrize(("line", "message"), [
    ("python train.py --model_name a", "line 1: found 'python train.py"),
    ("rm -r $OUT/a_$SEED", "line 1: found 'rm -r .*expected `python train.py"),
    ("python train.py --log_dir $OUT/a_$SEED && rm $OUT/a_$SEED", "line 1: found 'rm "),
    ("python train.py --log_dir $OUT/a_$SEED && ", "line 1: found 'python train.py"),
    ("python train.py --log_dir '$OUT/a_$SEED", "line 1: found 'python train.py|line 1: found \""),
    ("python train.py --log_dir $OUT/a_$SEED\npython train.py --log_dir $OUT/a_$SEED",
     "line 2: an earlier line has the folder a, too; rename"),
    ("python train.py --split $NOWHERE --log_dir $OUT/a_$SEED", r"line 1: found \$NOWHERE; lines"),
    ("# a comment\n\n", r"list\.sh has no experiments; expected `python train.py")])
def test_a_list_that_is_not_one_is_refused(line, message, tmp_path):
    (tmp_path / "list.sh").write_text(line)
    with pytest.raises(DataError, match=message):
        read_experiments(tmp_path / "list.sh")


def test_a_wrong_flag_is_named_with_its_file_and_line(tmp_path, capsys):
    path = tmp_path / "list.sh"
    path.write_text("# a comment\npython train.py --heigth 64 --log_dir $OUT/a_$SEED")
    with pytest.raises(SystemExit):
        read_experiments(path)
    assert capsys.readouterr().err.startswith(
        f"{path}, line 2: train.py: error: unrecognized arguments: --heigth 64")


@pytest.mark.parametrize(("words", "message"), [
    (["--only", "M_bo"], r"error: --only M_bo: the list has M_no_pt M "),
    (["--data_path", "nowhere"], "error: --data_path .*nowhere does not exist; give the folder"),
    (["--seeds", "-1"], "error: argument --seeds: -1 is below 0")])
def test_a_wrong_folder_or_flag_is_one_line(words, message, tmp_path):
    status, _, err = call("experiments/table_1.sh", "--data_path", tmp_path, "--out", tmp_path,
                          *words)
    assert status != 0
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    status, _, err = call("experiments/table_1.sh", "--data_path", tmp_path, "--only", "M",
                          "--out", tmp_path / "file")
    assert status == 1
    assert re.search("--out .*/file cannot be made: File exists; choose another folder", err)
