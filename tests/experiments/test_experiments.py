"""experiments: every line of the lists is parsed, and run.py runs lists of its own."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import HEIGHT, ROOT, WIDTH

from experiments.run import choose, mean_and_spread, read_rows
from options import MonodepthOptions
from runtime.errors import DataError

LISTS = sorted((ROOT / "experiments").glob("*.sh"))
ROWS = [(path, row) for path in LISTS for row in read_rows(path)]
NAMES = [row.name for _, row in ROWS]


def parsed(row, folder):
    """Return the script and the options of each of a row's commands."""
    return [(script, MonodepthOptions(script.removesuffix(".py")).parse(words))
            for script, *words in row.commands("data", folder, 7)]


def trainings(folder):
    """Return the options of each training by the weights that it ends with."""
    return {f"{opts.log_dir}/{opts.model_name}/models/weights_{opts.num_epochs - 1}": opts
            for _, row in ROWS for script, opts in parsed(row, folder) if script == "train.py"}


@pytest.mark.parametrize(("path", "row"), ROWS, ids=[f"{path.stem}-{row.name}"
                                                     for path, row in ROWS])
def test_each_line_is_parsed_and_reads_weights_that_a_line_trains(path, row, tmp_path):
    trained = trainings(tmp_path)
    for script, opts in parsed(row, tmp_path):
        assert (ROOT / script).is_file()
        if script == "train.py":
            assert (opts.seed, opts.resume, opts.model_name) == (7, "auto", f"{row.name}_7")
            assert opts.load_weights_folder is None or opts.load_weights_folder in trained
            continue
        assert opts.eval_out_dir == str(tmp_path / f"{row.name}_7")
        source = trained[opts.load_weights_folder]
        if script == "evaluate_depth.py" and path.stem != "street":  # where all are scaled alike
            assert opts.eval_stereo == source.use_stereo
        if script == "evaluate_depth.py":
            assert opts.min_depth is None


def test_no_two_rows_share_a_folder():
    assert len(set(NAMES)) == len(NAMES)


def test_what_a_row_needs_is_a_row_of_its_own_list_or_of_table_1():
    needs = {path.stem: set().union(*(row.needs for other, row in ROWS if other == path))
             for path in LISTS}
    assert needs["table_1"] == {"M", "S", "MS"}
    assert needs["street"] == {"start"}
    assert needs["supplement"] <= {row.name for path, row in ROWS if path.stem == "table_1"}
    assert needs["table_2"] == needs["odometry"] == set()


def test_the_readme_has_each_row_and_its_marks_are_the_rows_flags():
    text = (ROOT / "experiments/README.md").read_text()
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert sorted(named) == sorted(NAMES)
    for path, row in ROWS:
        if path.stem == "table_2":
            _, opts = parsed(row, ROOT)[0]
            marks = re.search(rf"^\| `{row.name}`[^|]*\|(.*?)\|(.*?)\|(.*?)\|", text, re.MULTILINE)
            assert [mark.strip() == "x" for mark in marks.groups()] == [
                not opts.avg_reprojection, not opts.disable_automasking, not opts.v1_multiscale]


LIST = """# two rows; the second one evaluates the first again
python train.py {flags} --data_path "$DATA" --log_dir "$OUT" --model_name one_$SEED --seed $SEED \
--resume auto && python evaluate_depth.py --data_path "$DATA" --eval_split "$DATA"/splits/tiny \
--eval_stereo --num_workers 0 --no_cuda --load_weights_folder "$OUT"/one_$SEED/models/weights_0 \
--eval_out_dir "$OUT"/one_$SEED && python evaluate_pose.py --data_path "$DATA" --sequences 9 \
--num_workers 0 --no_cuda --load_weights_folder "$OUT"/one_$SEED/models/weights_0 --eval_out_dir \
"$OUT"/one_$SEED

python evaluate_depth.py --data_path "$DATA" --eval_split "$DATA"/splits/tiny --eval_mono \
--num_workers 0 --no_cuda --load_weights_folder "$OUT"/one_$SEED/models/weights_0 \
--eval_out_dir "$OUT"/scaled_$SEED
"""
TRAINING = (f'--split "$DATA"/splits/tiny --height {HEIGHT} --width {WIDTH} --batch_size 2 '
            "--num_workers 0 --weights_init scratch --no_cuda --use_stereo")


def start(*words):
    return subprocess.Popen([sys.executable, "-m", "experiments.run", *map(str, words)], cwd=ROOT,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def call(*words):
    """Return how experiments.run ended: status, stdout, stderr."""
    run = start(*words)
    out, err = run.communicate()
    return run.returncode, out, err


def test_a_list_is_run_for_each_seed_and_its_means_and_spreads_printed(drive, tmp_path):
    (tmp_path / "list.sh").write_text(LIST.format(flags=f"{TRAINING} --num_epochs 1"))
    out = tmp_path / "with a space"
    words = tmp_path / "list.sh", "--data_path", drive, "--out", out, "--seeds", 1, 2
    status, printed, err = call(*words, "--jobs", 2)  # each scaled_* waits for its one_*
    assert status == 0, printed + err
    files = [(json.loads((out / f"one_{seed}/results.json").read_text())["metrics"],
              json.loads((out / f"one_{seed}/trajectory_09.json").read_text())) for seed in (1, 2)]
    columns = [[depth["abs_rel"]["mean"] for depth, _ in files],
               [depth["a1"]["mean"] for depth, _ in files],
               [pose["five_frame_error"] for _, pose in files]]
    assert columns[0][0] != columns[0][1]
    cells = " | ".join(mean_and_spread(values, 2) for values in columns)
    assert "| row | seeds | abs_rel | a1 | 5-frame 09, m |\n" in printed
    assert f"| one | 2 | {cells} |\n" in printed
    assert re.search(r"\| scaled \| 2 \| \S+ ± \S+ \| \S+ ± \S+ \| - \|\n", printed)
    # what is finished is not trained again, and the table alone runs nothing
    again = call(*words, "--only", "one")
    log = (out / "one_1.log").read_text()
    assert log.count("$ python train.py ") == 2
    assert log.count("nothing is left to do") == 1
    alone = call(*words, "--only", "one", "--table")
    assert again[1].splitlines()[-3:] == alone[1].splitlines()[-3:]
    assert (out / "one_1.log").read_text() == log
    rmse = call(*words, "--only", "scaled", "--table", "--metrics", "rmse")
    assert "| row | seeds | rmse |\n" in rmse[1]


def test_stopped_all_that_runs_saves_and_the_same_command_goes_on(drive, tmp_path):
    (tmp_path / "list.sh").write_text(LIST.format(flags=f"{TRAINING} --num_epochs 300").replace(
        "weights_0", "weights_299"))
    words = tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path / "out"
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        run = start(*words)
        log = tmp_path / "out/one_1.log"
        before = log.read_text() if log.exists() else ""
        while not log.exists() or log.read_text().removeprefix(before).count("epoch ") < 3:
            assert run.poll() is None
            time.sleep(0.1)
        second = call(*words)
        assert second[0] == 1
        assert "one_1: another process runs it already; wait, or end that" in second[1]
        assert "scaled_1: not run, for it needs one, which failed" in second[1]
        os.kill(run.pid, number)
        out, err = run.communicate(timeout=60)
        assert run.returncode == status, err
        assert "Traceback" not in err
        assert log.read_text().removeprefix(before).count("stopped after step") == 1
        assert "scaled_1" not in out
        assert "stopping what runs; the same command goes on\n" in out
        assert "one_1: train.py stopped; see " in out
    assert "going on after step" in log.read_text()


def test_a_row_that_fails_is_named_and_the_others_still_run(drive, weights, tmp_path):
    good = ('python evaluate_depth.py --data_path "$DATA" --eval_split "$DATA"/splits/tiny '
            f"--eval_mono --num_workers 0 --no_cuda --load_weights_folder {weights} "
            '--eval_out_dir "$OUT"/good_$SEED')
    bad = good.replace(str(weights), "nowhere").replace("good", "bad")
    (tmp_path / "list.sh").write_text(f"{bad}\n{good}\n")
    status, out, err = call(tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path / "out")
    assert status == 1
    assert "bad_1: evaluate_depth.py ended with status 1; see " in out
    assert "nowhere" in (tmp_path / "out/bad_1.log").read_text()
    assert re.search(r"\| bad \| 0 \| - \| - \|\n\| good \| 1 \| 0\.\d{4} \| 0\.\d{4} \|\n", out)
    assert err == ("error: 1 of 2 runs failed; see above, and run the same command again: "
                   "what is finished is not trained again\n")


def test_mean_and_spread_are_those_of_a_sample():
    assert mean_and_spread([1, 2, 3], 3) == "2.0000 ± 1.0000"
    assert mean_and_spread([1, 2, 3], 4) == "2.0000 ± 1.0000 (of 3)"
    assert mean_and_spread([0.5], 1) == "0.5000"
    assert mean_and_spread([], 1) == "-"


@pytest.mark.parametrize(("line", "message"), [
    ("python train.py --model_name a", "line 1: found 'python train.py"),
    ("rm -r $OUT/a_$SEED", "found 'rm -r .*expected `python train.py"),
    ("python train.py --log_dir $OUT/a_$SEED && rm $OUT/a_$SEED", "found 'python train.py"),
    ("python train.py --log_dir $OUT/a_$SEED && ", "found 'python train.py"),
    ("python train.py --model_name $HOME --log_dir $OUT/a_$SEED", r"none of \$DATA.*'HOME'"),
    ("python train.py --model_name $ --log_dir $OUT/a_$SEED", r"none of \$DATA.*Invalid place"),
    ("python train.py --heigth 64 --log_dir $OUT/a_$SEED",
     "line 1: train.py: unrecognized arguments: --heigth 64"),
    ("python train.py --log_dir $OUT/a_$SEED\npython train.py --log_dir $OUT/a_$SEED",
     "line 2 is another row a"),
    ("python train.py --load_weights_folder $OUT/b_$SEED --log_dir $OUT/a_$SEED\n"
     "python train.py --log_dir $OUT/b_$SEED", "the row a needs b, which comes after it"),
    ("python train.py --log_dir '$OUT/a_$SEED", "line 1: No closing quotation; expected")])
def test_a_line_that_is_no_row_is_refused(line, message, tmp_path):
    (tmp_path / "list.sh").write_text(line)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "list.sh")


def test_a_list_without_rows_is_refused(tmp_path):
    (tmp_path / "list.sh").write_text("# no row\n\n")
    with pytest.raises(DataError, match=r"list\.sh has no rows; expected `python train.py"):
        read_rows(tmp_path / "list.sh")


def test_the_readmes_list_is_one(tmp_path):
    blocks = re.findall("```shell\n(.*?)```", (ROOT / "experiments/README.md").read_text(), re.S)
    (block,) = [block for block in blocks if block.startswith("# two rows")]
    (tmp_path / "list.sh").write_text(block)
    assert [(row.name, row.needs) for row in read_rows(tmp_path / "list.sh")] == [
        ("mine", set()), ("mine_pp", {"mine"})]


def test_a_row_that_is_not_in_the_list_is_named():
    with pytest.raises(DataError, match="--only M_bo is no row of the list; it has M_no_pt M "):
        choose(read_rows(ROOT / "experiments/table_1.sh"), ["M_bo"])


@pytest.mark.parametrize(("words", "message"), [
    (["--out", "FILE"], "error: --out .*file cannot be written: File exists; choose another"),
    (["--data_path", "nowhere"], "error: --data_path .*nowhere does not exist; give the folder"),
    (["--jobs", "0"], "error: argument --jobs: 0 is not larger than 0")])
def test_a_wrong_folder_or_flag_is_one_line(words, message, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = call("experiments/table_1.sh", "--data_path", tmp_path,
                          *[str(tmp_path / "file") if word == "FILE" else word for word in words])
    assert status != 0
    assert len(err.splitlines()) == 1
    assert re.search(message, err)
