"""experiments: every line of the lists is parsed, and run.py runs lists of its own."""
import re
import subprocess
import sys
from collections import Counter

import pytest
from conftest import HEIGHT, ROOT, WIDTH

from experiments.run import choose, mean_and_spread, read_rows
from options import MonodepthOptions
from results import read_means
from trajectories import read_five_frame_error
from utils import DataError

LISTS = sorted((ROOT / "experiments").glob("*.sh"))
ROWS = [pytest.param(row, id=f"{path.stem}-{row.name}") for path in LISTS
        for row in read_rows(path)]


@pytest.mark.parametrize("row", ROWS)
def test_each_line_is_parsed_and_evaluates_what_it_trains(row, tmp_path):
    trained = None
    for script, *words in row.commands("data", tmp_path, 7):
        assert (ROOT / script).is_file()
        opts = MonodepthOptions(script.removesuffix(".py")).parse(words)
        assert opts.data_path.startswith("data")
        if script == "train.py":
            assert (opts.seed, opts.resume) == (7, "auto")
            trained = opts
            folder = tmp_path / opts.model_name / f"models/weights_{opts.num_epochs - 1}"
        elif trained is not None:
            assert opts.load_weights_folder == str(folder)
            assert script == "evaluate_pose.py" or opts.eval_stereo == trained.use_stereo


def test_rows_are_named_once_and_what_they_need_comes_before():
    for path in LISTS:
        found = read_rows(path)
        earlier = {row.name for row in read_rows(ROOT / "experiments/table_1.sh")}
        for row in found:
            own = earlier if path.stem in ("table_1", "supplement") else set()
            assert row.needs <= own | {other.name for other in found[:found.index(row)]}
    names = Counter(row.values[0].name for row in ROWS)
    assert max(names.values()) == 1


def test_the_readme_has_each_row_and_no_other():
    text = (ROOT / "experiments/README.md").read_text()
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert sorted(named) == sorted(row.values[0].name for row in ROWS)


LIST = """# two rows; the second one evaluates the first again
python train.py {flags} --data_path $DATA --log_dir $OUT --model_name one_$SEED --seed $SEED \
--resume auto && python evaluate_depth.py --data_path $DATA --eval_split $DATA/splits/tiny \
--eval_stereo --num_workers 0 --no_cuda --load_weights_folder $OUT/one_$SEED/models/weights_0 && \
python evaluate_pose.py --data_path $DATA --sequences 9 --num_workers 0 --no_cuda \
--load_weights_folder $OUT/one_$SEED/models/weights_0

python evaluate_depth.py --data_path $DATA --eval_split $DATA/splits/tiny --eval_mono \
--num_workers 0 --no_cuda --load_weights_folder $OUT/one_$SEED/models/weights_0 \
--eval_out_dir $OUT/scaled_$SEED
"""


def call(*words):
    return subprocess.run([sys.executable, "-m", "experiments.run", *map(str, words)], cwd=ROOT,
                          text=True, capture_output=True)


def test_a_list_is_run_for_each_seed_and_its_means_and_spreads_printed(drive, tmp_path):
    flags = (f"--split $DATA/splits/tiny --height {HEIGHT} --width {WIDTH} --batch_size 2 "
             "--num_workers 0 --num_epochs 1 --weights_init scratch --no_cuda --use_stereo")
    (tmp_path / "list.sh").write_text(LIST.format(flags=flags))
    words = tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path / "out", "--seeds", 1, 2
    done = call(*words, "--jobs", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [tmp_path / f"out/one_{seed}/models/weights_0" for seed in (1, 2)]
    means = [read_means(folder / "results.json") for folder in folders]
    assert means[0] != means[1]
    cells = [mean_and_spread([one[name] for one in means]) for name in ("abs_rel", "a1")]
    cells.append(mean_and_spread([read_five_frame_error(folder / "trajectory_09.json")
                                  for folder in folders]))
    assert "| row | seeds | abs_rel | a1 | 5-frame 09 |\n" in done.stdout
    assert f"| one | 2 | {' | '.join(cells)} |\n" in done.stdout
    assert re.search(r"\| scaled \| 2 \| \S+ ± \S+ \| \S+ ± \S+ \| - \|\n", done.stdout)
    # what is finished is not trained again, and the table alone runs nothing
    again = call(*words, "--only", "one")
    assert "nothing is left to do" in (tmp_path / "out/one_1.log").read_text()
    (tmp_path / "out/one_1.log").unlink()
    alone = call(*words, "--only", "one", "--table")
    assert again.stdout.splitlines()[-3:] == alone.stdout.splitlines()[-3:]
    assert not (tmp_path / "out/one_1.log").exists()


def test_a_row_that_fails_is_named_and_the_others_still_run(drive, weights, tmp_path):
    good = ("python evaluate_depth.py --data_path $DATA --eval_split $DATA/splits/tiny --eval_mono "
            f"--num_workers 0 --no_cuda --load_weights_folder {weights} "
            "--eval_out_dir $OUT/good_$SEED")
    bad = good.replace(str(weights), "nowhere").replace("good", "bad")
    (tmp_path / "list.sh").write_text(f"{bad}\n{good}\n")
    done = call(tmp_path / "list.sh", "--data_path", drive, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "bad_1: evaluate_depth.py ended with status 1; see " in done.stdout
    assert "nowhere" in (tmp_path / "out/bad_1.log").read_text()
    assert re.search(r"\| bad \| 0 \| - \| - \|\n"
                     r"\| good \| 1 \| 0\.\d+ \| 0\.\d+ \|\n", done.stdout)
    assert done.stderr == ("error: 1 of 2 runs failed; see above, and run the same command again: "
                           "what is finished is not trained again\n")


def test_mean_and_spread_are_those_of_a_sample():
    assert mean_and_spread([1, 2, 3]) == "2.000 ± 1.000"
    assert mean_and_spread([0.5]) == "0.500"
    assert mean_and_spread([]) == "-"


@pytest.mark.parametrize(("line", "message"), [
    ("python train.py --model_name a", "line 1: found 'python train.py"),
    ("rm -r $OUT/a_$SEED", "expected commands such as"),
    ("python train.py --log_dir $OUT/a_$SEED && rm x", "expected commands such as"),
    ("python a.py $OUT/a_$SEED $HOME", r"line 1: found \$HOME; a line knows \$DATA"),
    ("python a.py $OUT/a_$SEED\npython b.py $OUT/a_$SEED", "line 2 is another row a"),
    ("python a.py '$OUT/a_$SEED", "No closing quotation")])
def test_a_line_that_is_no_row_is_refused(line, message, tmp_path):
    (tmp_path / "list.sh").write_text(line)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "list.sh")


def test_a_row_that_is_not_in_the_list_is_named():
    with pytest.raises(DataError, match="--only M_bo is no row of the list; it has M_no_pt M "):
        choose(read_rows(ROOT / "experiments/table_1.sh"), ["M_bo"])
