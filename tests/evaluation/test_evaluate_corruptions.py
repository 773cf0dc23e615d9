"""evaluate_depth.py --corruptions: errors, continuation, mCE and mRR, figures, refusals."""
import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest
from conftest import ROOT, one_line, read_results
from matplotlib.text import Text
from test_depth_figures import drawn, overlaps

import evaluate_depth
from datasets.corruptions import CORRUPTIONS, corrupt_image
from evaluation.corruption_figures import draw_plot, draw_sheet
from synthetic.render import HELD_OUT

OWN = ["dark", "color_quant", "iso_noise"]
NAME = "robustness_tiny_median.json"


def flags_of(drive, weights, out, *flags):
    return ["--data_path", drive, "--eval_split", drive / "splits/tiny", "--eval_mono",
            "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda", "--eval_out_dir",
            out, *flags]


def corruption_flags(drive, weights, out, *flags):
    return [*flags_of(drive, weights, out), "--corruptions", *OWN, "--severities", 2, 5, *flags]


@pytest.fixture(scope="module")
def first(drive, weights, tmp_path_factory):
    """Evaluate three corruptions once; return the folder and what was printed."""
    out, printed = tmp_path_factory.mktemp("first"), io.StringIO()
    words = map(str, corruption_flags(drive, weights, out))
    with redirect_stdout(printed):
        evaluate_depth.evaluate(evaluate_depth.parse([*words]))
    return out, printed.getvalue()


@pytest.fixture
def run(drive, weights, script):
    """Run evaluate_depth.py with the three corruptions."""
    return lambda out, *flags: script(
        "evaluate_depth", *corruption_flags(drive, weights, out, *flags))


def read(folder):
    return json.loads((folder / NAME).read_text())


def test_errors_are_those_of_corrupted_image_files(drive, weights, tmp_path, script):
    copy = tmp_path / "data"
    shutil.copytree(drive, copy)
    for frame in range(5, 9):
        (path,) = (copy / HELD_OUT).glob(f"image_02/data/{frame:010d}.*")
        image = cv2.imread(str(path))[..., ::-1]
        path.unlink()
        noisy = corrupt_image(image, "iso_noise", 4, f"{HELD_OUT} {frame} l")
        cv2.imwrite(str(path.with_suffix(".png")), noisy[..., ::-1])
    outcome = script("evaluate_depth", *flags_of(copy, weights, tmp_path, "--png"))
    assert outcome.status == 0, outcome.err
    outcome = script("evaluate_depth", *flags_of(drive, weights, tmp_path), "--corruptions",
                     "iso_noise", "--severities", 4)
    assert outcome.status == 0, outcome.err
    files, found = read_results(tmp_path)["metrics"], read(tmp_path)["corrupted"]["iso_noise"]["4"]
    for name in ("abs_rel", "rmse", "a1"):
        assert found[name] == pytest.approx(files[name]["mean"], rel=1e-6)


def test_a_run_writes_its_scores_and_two_figures(drive, weights, first, tmp_path, script):
    out, printed = first
    report = read(out)
    assert list(report["corrupted"]) == OWN
    assert all(list(each) == ["2", "5"] for each in report["corrupted"].values())
    clean = report["clean"]
    assert clean["dee"] == pytest.approx((clean["abs_rel"] - clean["a1"] + 1) / 2)
    dee = [[report["corrupted"][name][s]["dee"] for s in "25"] for name in OWN]
    mrr = 100 * np.mean((1 - np.array(dee)) / (1 - clean["dee"]))
    assert report["scores"]["mrr"] == pytest.approx(mrr)
    assert "mce" not in report["scores"]
    assert f"mCE needs --robustness_baseline; mRR {mrr:.2f}\n" in printed
    assert "means over 3 of 18 corruptions and 2 of 5 severities" in printed
    assert re.search(rf"color_quant +{dee[1][0]:.3f}  {dee[1][1]:.3f}  ", printed)
    assert sorted(path.name for path in out.iterdir()) == [
        "figure_corruptions_tiny_median.png", "figure_robustness_tiny_median.png", NAME]
    script("evaluate_depth", *flags_of(drive, weights, tmp_path))
    plain = read_results(tmp_path)
    assert plain["metrics"]["abs_rel"]["mean"] == pytest.approx(clean["abs_rel"])
    for field in ("weights", "lists", "ground_truth", "alignment", "scale_factor",
                  "seen_in_training", "commit"):
        assert report[field] == plain[field]


def test_an_interrupted_run_continues_with_what_is_missing(run, first, tmp_path):
    whole, part = read(first[0]), read(first[0])
    del part["scores"], part["corrupted"]["iso_noise"], part["corrupted"]["dark"]["5"]
    part["corrupted"]["color_quant"]["2"]["dee"] = 0.123  # is kept, so it is not measured again
    (tmp_path / NAME).write_text(json.dumps(part))
    outcome = run(tmp_path)
    assert f"{tmp_path / NAME} has 3 of 6 pairs" in outcome.out
    assert re.findall(r"(\w+ \d): DEE", outcome.out) == ["dark 5", "iso_noise 2", "iso_noise 5"]
    found = read(tmp_path)["corrupted"]
    assert found["color_quant"].pop("2")["dee"] == 0.123
    del whole["corrupted"]["color_quant"]["2"]
    assert found == whole["corrupted"]


def test_errors_of_another_evaluation_are_kept_and_refused(run, first, tmp_path):
    shutil.copy(first[0] / NAME, tmp_path)
    before = read(tmp_path)
    line = one_line(run(tmp_path, "--post_process"), status=1)
    assert f"{tmp_path / NAME} holds an evaluation that differs in --post_process; give" in line
    assert read(tmp_path) == before


def test_two_processes_measure_what_one_does(drive, weights, first, tmp_path):
    words = [*flags_of(drive, weights, tmp_path), "--corruptions", "iso_noise", "--severities", 5]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "evaluate_depth.py", *map(str, words)], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mRR") == 1
    alone, both = (read(folder) for folder in (first[0], tmp_path))
    assert both["clean"] == pytest.approx(alone["clean"], rel=1e-5)
    assert both["corrupted"].keys() == {"iso_noise"}
    assert both["corrupted"]["iso_noise"]["5"] == pytest.approx(
        alone["corrupted"]["iso_noise"]["5"], rel=1e-5)


def test_a_network_is_its_own_baseline_with_100(run, first, tmp_path):
    shutil.copy(first[0] / NAME, tmp_path)
    outcome = run(tmp_path, "--robustness_baseline", tmp_path / NAME)
    assert outcome.status == 0, outcome.err
    assert f"mCE 100.00 (100 = {tmp_path / NAME}); mRR " in outcome.out
    assert read(tmp_path)["scores"]["mce"] == pytest.approx(100)


def test_twice_the_error_of_the_baseline_halves_the_ce(run, first, tmp_path):
    shutil.copy(first[0] / NAME, tmp_path)
    other = read(tmp_path)
    for errors in other["corrupted"]["dark"].values():
        errors["dee"] *= 2
    (tmp_path / "other.json").write_text(json.dumps(other))
    run(tmp_path, "--robustness_baseline", tmp_path / "other.json")
    scores = read(tmp_path)["scores"]
    assert scores["ce"] == pytest.approx({"dark": 50, "color_quant": 100, "iso_noise": 100})
    assert scores["mce"] == pytest.approx(250 / 3)


def spoil(report, fault):
    """Return the text of a robustness file with a fault."""
    if fault == "ground truth":
        report["ground_truth"]["count"] -= 1  # as with masks
    elif fault == "test list":
        report["lists"]["test"]["sha256"] = "0"
    elif fault == "alignment":
        report["alignment"] = "scale"
    elif fault == "lacks dark at severities 2 5":
        del report["corrupted"]["dark"]["5"]
    elif fault == "has schema 2":
        report["schema"] = 2
    elif fault == "is broken":
        report["corrupted"]["dark"]["5"] = {"dee": None}
    return "{" if fault == "another kind of file" else json.dumps(report)


@pytest.mark.parametrize("fault", [
    "ground truth", "test list", "alignment", "lacks dark at severities 2 5", "has schema 2",
    "is broken", "another kind of file", "cannot be read"])
def test_an_unfit_baseline_is_refused_before_predicting(run, first, tmp_path, fault):
    text, path = spoil(read(first[0]), fault), tmp_path / "other.json"
    if fault != "cannot be read":
        path.write_text(text)
    outcome = run(tmp_path / "new", "--robustness_baseline", path)
    line = one_line(outcome, status=1)
    assert str(path) in line
    assert fault in line
    assert "predicting" not in outcome.err


@pytest.mark.parametrize(("words", "found"), [
    (["--corruptions", "hail"], "--corruptions hail does not exist; choose from brightness dark"),
    (["--corruptions", "--severities", "6"], "--severities: invalid choice: 6"),
    (["--corruptions", "--edges", "--clouds"], "leave out --edges, --clouds"),
    (["--corruptions", "--no_eval", "--save_pred_disps"], "--no_eval, --save_pred_disps"),
    (["--corruptions", "--eval_split", "benchmark"], "choose an --eval_split that has ground"),
    (["--severities", "3"], "--severities goes with --corruptions"),
    (["--robustness_baseline", "x"], "--robustness_baseline goes with --corruptions")])
def test_flags_that_exclude_corruptions_are_refused(script, words, found):
    outcome = script("evaluate_depth", "--load_weights_folder", "absent", "--eval_mono", *words)
    assert found in one_line(outcome, status=2)


@pytest.mark.parametrize("size", [(375, 1242), (64, 96), (300, 200)])
@pytest.mark.parametrize("count", [1, 4, 19])
def test_a_sheet_has_all_images_undistorted_and_readable_names(size, count):
    images = {name: np.full((*size, 3), 10 * i, np.uint8)
              for i, name in enumerate(["as it is", *CORRUPTIONS][:count])}
    figure = draw_sheet(images, "2011_09_26/2011_09_26_drive_0052_sync 46 l, severity 3")
    assert overlaps(figure) == []
    assert {*images} <= {text.get_text() for text in figure.findobj(Text)}
    pixels, boxes = drawn(figure)
    assert len(boxes) == count
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        assert (y1 - y0) / (x1 - x0) == pytest.approx(size[0] / size[1], rel=0.02)
        assert pixels[int((y0 + y1) / 2), int((x0 + x1) / 2)].tolist() == [10 * i] * 3


@pytest.mark.parametrize(("names", "severities"), [
    (CORRUPTIONS, [1, 2, 3, 4, 5]), (["fog"], [3]), (["fog", "pixelate"], [1, 5])])
def test_the_plot_has_a_line_for_each_corruption_and_clean(names, severities):
    dee = {name: np.linspace(0.1, 0.2 + 0.01 * i, len(severities)) for i, name in enumerate(names)}
    figure = draw_plot(dee, severities, clean=0.08)
    assert overlaps(figure) == []
    lines = {line.get_label(): line.get_ydata() for ax in figure.axes for line in ax.lines}
    assert lines.keys() == {*names, "as it is"}
    for name in names:
        np.testing.assert_array_equal(lines[name], dee[name])
    assert set(lines["as it is"]) == {0.08}
