"""Test options.py: Monodepth2's flags and defaults, -h of each script, usage errors."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, one_line

import test_simple
from options import DEPTH, POSE, TRAIN, MonodepthOptions
from preparation import command_line

DEFAULTS = {
    "data_path": str(ROOT / "kitti_data"), "log_dir": str(Path.home() / "tmp"), "model_name": "mdp",
    "split": "eigen_zhou", "num_layers": 18, "dataset": "kitti", "png": False, "height": 192,
    "width": 640, "disparity_smoothness": 1e-3, "scales": [0, 1, 2, 3], "min_depth": 0.1,
    "max_depth": 100.0, "use_stereo": False, "frame_ids": [0, -1, 1], "batch_size": 12,
    "learning_rate": 1e-4, "num_epochs": 20, "scheduler_step_size": 15, "v1_multiscale": False,
    "avg_reprojection": False, "disable_automasking": False, "predictive_mask": False,
    "no_ssim": False, "weights_init": "pretrained", "pose_model_input": "pairs",
    "pose_model_type": "separate_resnet", "no_cuda": False, "num_workers": min(12, os.cpu_count()),
    "load_weights_folder": None, "models_to_load": ["encoder", "depth", "pose_encoder", "pose"],
    "log_frequency": 250, "save_frequency": 1, "eval_stereo": False, "eval_mono": False,
    "disable_median_scaling": False, "pred_depth_scale_factor": 1.0, "ext_disp_to_eval": None,
    "eval_split": "eigen", "save_pred_disps": False, "no_eval": False,
    "eval_eigen_to_benchmark": False, "eval_out_dir": None, "post_process": False,
    # flags that Monodepth2 does not have
    "precision": "fp32", "compile": "auto", "cache_dir": None, "accumulate": 1,
    "sync_batchnorm": False, "profile": 0, "seed": None, "deterministic": False, "resume": None,
    "overwrite": False, "save_every": None, "keep": 2, "max_bad_samples": 0, "save_figures": False,
    "sequences": None, "ext_poses_to_eval": None, "alignment": None, "report": False,
    "mask_dir": None, "velocity_weight": 0.0, "edges": False, "clouds": False, "gt_disparity": None,
    "eval_all": None, "compare": None, "check_leak": None, "temporal": None,
    "encoder": None, "pose_encoder": None, "encoder_weights": None,
    "learn_intrinsics": False,
    "corruptions": None, "severities": None, "robustness_baseline": None,
}


def test_flags_and_defaults_are_those_of_monodepth2():
    assert vars(MonodepthOptions().parse([])) == DEFAULTS


GROUPS = {
    TRAIN: {"options", "data", "layout", "model", "optimization", "checkpointing and bad data",
            "depth range", "ablations", "system", "speed", "loading", "fine-tuning", "logging"},
    DEPTH: {"options", "data", "layout", "depth range", "system", "loading", "evaluation",
            "depth evaluation"},
    POSE: {"options", "data", "system", "loading", "evaluation", "odometry"},
}


@pytest.mark.parametrize(("script", "shown", "hidden"), [
    (TRAIN, "--frame_ids --learning_rate --v1_multiscale --models_to_load --data_path",
     "--eval_mono --eval_split --post_process"),
    (DEPTH, "--eval_mono --post_process --data_path --png --min_depth --batch_size",
     "--frame_ids --learning_rate --v1_multiscale --models_to_load"),
    (POSE, "--eval_split --load_weights_folder --num_workers --eval_out_dir",
     "--eval_mono --learning_rate --post_process --split --dataset --min_depth")])
def test_help_shows_only_the_groups_a_script_uses(script, shown, hidden):
    words = MonodepthOptions(script).parser.format_help()
    def is_shown(flag):
        return re.search(rf"{flag}(?![_\w])", words)
    assert [flag for flag in shown.split() if not is_shown(flag)] == []
    assert [flag for flag in hidden.split() if is_shown(flag)] == []
    titles = re.findall(r"^(\w[\w -]+):$", words, re.MULTILINE)
    assert set(titles) == GROUPS[script]


WEIGHTS = ["--load_weights_folder", "somewhere"]


@pytest.mark.parametrize(("name", "words", "found"), [
    ("train", ["--height", "190"], "--height is 190; it must be a multiple of 32"),
    ("train", ["--width", "32"], "a multiple of 32, from 64 on, for example --width 64"),
    ("train", ["--width", "0"], "--width is 0"),
    ("train", ["--frame_ids", "-1", "0", "1"], "--frame_ids is -1 0 1; it must start with 0"),
    ("train", ["--frame_ids", "0", "1", "1"], "--frame_ids is 0 1 1"),
    ("train", ["--frame_ids", "0"], "add --use_stereo"),
    ("train", ["--scales", "1", "2"], "--scales is 1 2; it must have 0"),
    ("train", ["--scales", "0", "7"], "--scales is 0 7"),
    ("train", ["--predictive_mask"], "add --disable_automasking"),
    ("train", ["--batch_size", "0"], "0 is not larger than 0, as it must be"),
    ("train", ["--learning_rate", "-1"], "--learning_rate"),
    ("train", ["--num_workers", "-1"], "it must be 0 or more"),
    ("train", ["--min_depth", "100"], "--min_depth 100.0 is not below"),
    ("train", ["--num_layers", "18.5"], "invalid int value"),
    ("train", ["--dataset", "kitti_test"], "no neighbouring frames"),
    ("train", ["--dataset", "kitti_2015"], "no neighbouring frames"),
    ("train", ["--dataset", "make3d"], "no neighbouring frames"),
    ("evaluate_depth", ["--eval_mono", "--load_weights_folder", "x", "--eval_split", "make3d",
                        "--gt_disparity", "x"], "55 points high; leave out --gt_disparity"),
    ("train", ["--profile", "-1"], "--profile is -1"),
    ("train", ["--accumulate", "0"], "0 is not larger than 0"),
    ("train", ["--precision", "half"], "invalid choice: 'half'"),
    ("train", ["--seed", "-1"], "-1 is below 0"),
    ("train", ["--seed", "one"], "invalid whole number value: 'one'"),
    ("train", ["--keep", "0"], "0 is not larger than 0"),
    ("train", ["--max_bad_samples", "-2"], "-2 is below 0"),
    ("train", ["--resume", "later"], "invalid choice: 'later'"),
    ("train", ["--resume", "--overwrite"], "leave one out"),
    ("train", ["--no_such_flag"], "--no_such_flag"),
    ("evaluate_depth", WEIGHTS, "neither of --eval_mono and --eval_stereo"),
    ("evaluate_depth", [*WEIGHTS, "--eval_mono", "--eval_stereo"], "both of --eval_mono"),
    ("evaluate_depth", [*WEIGHTS, "--eval_mono", "--alignment", "scale"],
     "--alignment scale replaces --eval_mono (--alignment median), --disable_median_scaling"),
    ("evaluate_depth", [*WEIGHTS, "--disable_median_scaling", "--alignment", "median"],
     "--alignment median replaces"),
    ("evaluate_depth", [*WEIGHTS, "--alignment", "7dof"], "invalid choice: '7dof'"),
    ("evaluate_pose", [*WEIGHTS, "--alignment", "median"], "invalid choice: 'median'"),
    ("evaluate_depth", ["--eval_mono"], "give one of --load_weights_folder"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--ext_disp_to_eval", "x.npy"], "give one of"),
    ("evaluate_depth", ["--eval_mono", "--ext_disp_to_eval", "x.npy", "--save_pred_disps"],
     "--save_pred_disps saves predictions"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--no_eval"], "add --save_pred_disps"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--no_eval", "--save_pred_disps",
                        "--save_figures"], "leave out --no_eval"),
    ("evaluate_depth", ["--eval_stereo", *WEIGHTS, "--eval_split", "benchmark", "--save_figures"],
     "choose an --eval_split that has ground truth here"),
    ("evaluate_depth", ["--eval_stereo", *WEIGHTS, "--eval_split", "benchmark", "--report"],
     "--report asks for errors; leave out --no_eval"),
    ("evaluate_depth", ["--eval_stereo", *WEIGHTS, "--eval_split", "benchmark", "--clouds"],
     "--clouds asks for errors"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--no_eval", "--save_pred_disps", "--mask_dir",
                        "x"], "--mask_dir asks for errors"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--eval_split", "odom_9"], "evaluate_pose.py"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--eval_eigen_to_benchmark"],
     "--eval_eigen_to_benchmark goes with"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--eval_all", "run"], "give one of"),
    ("evaluate_depth", ["--eval_mono", "--eval_all", "run", "--no_eval", "--save_pred_disps"],
     "--eval_all asks for errors; leave out --no_eval"),
    ("evaluate_depth", ["--eval_stereo", *WEIGHTS, "--eval_split", "benchmark", "--gt_disparity",
                        "folder"], "--gt_disparity asks for errors"),
    ("evaluate_depth", ["--eval_mono", *WEIGHTS, "--eval_split", "benchmark", "--temporal", "x"],
     "--temporal asks for errors"),
    ("evaluate_depth", ["--eval_mono", "--ext_disp_to_eval", "x", "--temporal", "predicted"],
     "give true poses, --temporal FILE"),
    ("evaluate_depth", ["--compare", "one.json"], "expected 2 arguments"),
    ("evaluate_depth", ["--compare", "a.json", "b.json", "--report"], "--report goes with a pred"),
    ("evaluate_pose", ["--eval_split", "odom_9"], "--load_weights_folder is missing"),
    ("evaluate_pose", WEIGHTS,
     "error: no sequence of odometry is named; give odom_9, odom_10, or a path"),
    ("evaluate_pose", [*WEIGHTS, "--ext_poses_to_eval", "x"], "leave one out"),
    ("evaluate_pose", [*WEIGHTS, "--sequences", "9", "--eval_split", "odom_9"], "leave one out"),
    ("evaluate_pose", ["--sequences", "9", "10", "--ext_poses_to_eval", "x"], "of one sequence"),
    ("evaluate_pose", [*WEIGHTS, "--sequences", "-1"], "-1"),
    ("test_simple", ["--image_path", "x.jpg"], "--model_name"),
    ("test_simple", ["--image_path", "x", *WEIGHTS, "--min_depth", "0"], "0 is not larger than 0"),
    ("test_simple", ["--image_path", "x", *WEIGHTS, "--min_depth", "1", "--max_depth", "0.01"],
     "is not below"),
    ("export_gt_depth", ["--split", "eigen"], "--data_path")])
def test_a_wrong_command_line_gets_one_line_and_status_2(script, name, words, found):
    assert found in one_line(script(name, *words), status=2)


def test_the_two_scripts_have_an_alignment_of_their_own():
    shown = {script: MonodepthOptions(script).parser.format_help() for script in (DEPTH, POSE)}
    for script, word in ((DEPTH, "affine_disparity"), (POSE, "7dof")):
        assert "--alignment {" in shown[script]
        assert [word in words for words in shown.values()] == [script == DEPTH, script == POSE]


def test_an_alignment_of_the_other_script_is_refused(script, capsys):
    opts = MonodepthOptions().parser.parse_args(["--alignment", "7dof", *WEIGHTS])
    with pytest.raises(SystemExit):
        MonodepthOptions(DEPTH).complete(opts)
    assert "--alignment is 7dof, of another script; choose from median none" in (
        capsys.readouterr().err)


def test_the_former_default_of_odometry_does_not_align_depth():
    opts = MonodepthOptions().parser.parse_args(["--alignment", "7dof", "--eval_mono", *WEIGHTS])
    assert MonodepthOptions(DEPTH).complete(opts).alignment is None
    assert opts.alignment == "7dof"


PATHS = {
    TRAIN: "data_path mask_dir log_dir model_name split cache_dir load_weights_folder",
    DEPTH: "data_path load_weights_folder eval_split eval_out_dir ext_disp_to_eval gt_disparity "
           "eval_all compare robustness_baseline temporal",
    POSE: "data_path load_weights_folder eval_split eval_out_dir ext_poses_to_eval"}


@pytest.mark.parametrize("script", PATHS)
def test_a_tilde_in_any_path_flag_is_the_home_folder(script, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = MonodepthOptions(script)
    shown = vars(options.parser.parse_args([]))
    for name in PATHS[script].split():
        assert name in shown
        words = [f"--{name}=~/x"] if name != "compare" else ["--compare", "~/x", "~"]
        value = getattr(options.parser.parse_args(words), name)
        assert value == (["/home/me/x", "/home/me"] if name == "compare" else "/home/me/x")


@pytest.mark.parametrize("words", [
    ["--image_path=~/x", "--load_weights_folder=~/x", "--output_dir=~/x", "--scale_from=~/x"]])
def test_a_tilde_in_prediction_is_the_home_folder(words, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    args = vars(test_simple.parse_args(words))
    for word in words:
        assert str(args[word[2:].partition("=")[0]]) == "/home/me/x"


@pytest.mark.parametrize(("command", "words"), [
    ("video", ["--left=~/x", "--right=~/x", "--out=~/x", "--baseline=1"]),
    ("check", ["--data_path=~/x", "--split=~/x", "--load_weights_folder=~/x", "--out=~/x"]),
    ("kitti", ["--data_path=~/x"])])
def test_a_tilde_in_preparation_is_the_home_folder(command, words, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    args = vars(command_line.parse_args([command, *words]))
    for name in (word[2:].partition("=")[0] for word in words if "~" in word):
        assert str(args[name]) == "/home/me/x"


def test_a_tilde_that_a_notebook_sets_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    opts = MonodepthOptions(TRAIN).parse(["--load_weights_folder", "w"])
    opts.log_dir, opts.cache_dir = Path("~/log"), "~"
    found = MonodepthOptions(TRAIN).complete(opts)
    assert (found.log_dir, found.cache_dir, found.load_weights_folder) == (
        "/home/me/log", "/home/me", "w")


def without_home(*words):
    """Run a script as a user whom the system does not know, without HOME."""
    try:
        return subprocess.run(["unshare", "--user", "--map-user=12345", sys.executable, *words],
                              cwd=ROOT, capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"]})
    except OSError:
        pytest.skip("needs unshare")


@pytest.fixture
def unknown_user():
    """Skip where this machine has no user namespaces."""
    if without_home("-c", "import pwd, os\ntry: pwd.getpwuid(os.getuid())\n"
                    "except KeyError: print('unknown')").stdout != "unknown\n":
        pytest.skip("needs user namespaces")


@pytest.mark.parametrize("name", [
    "train", "evaluate_depth", "evaluate_pose", "test_simple", "export_gt_depth", "export_onnx",
    "prepare_data"])
def test_help_needs_no_home_folder(name, unknown_user):
    done = without_home(f"{name}.py", "-h")
    assert (done.returncode, done.stderr) == (0, "")


def test_only_a_default_that_needs_a_home_asks_for_the_flag(unknown_user):
    lines = ("from options import *; MonodepthOptions({!r}).parse({!r})")
    def parse(script, *words):
        return without_home("-c", lines.format(script, list(words)))
    assert parse(TRAIN, "--log_dir", "x").returncode == 0
    assert parse(DEPTH, "--eval_mono", "--load_weights_folder", "x").returncode == 0
    for done, flag in ((parse(TRAIN), "--log_dir: ~/tmp"),
                       (parse(TRAIN, "--log_dir", "x", "--cache_dir=~"), "--cache_dir: ~")):
        assert done.returncode == 2
        assert done.stderr == (f"-c: error: argument {flag} needs the home folder, which is "
                               "unknown; set HOME, or give another path (-h shows the flags)\n")
