"""The results files, their intervals, and --compare."""
import csv
import hashlib
import json
import re
import subprocess

import cv2
import numpy as np
import pytest
from conftest import ROOT, one_line, read_results

from metrics.depth import DEPTH_METRICS
from metrics.intervals import bootstrap


def evaluate(script, folder, disps, *flags, alignment=("--eval_mono", "--disable_median_scaling")):
    """Evaluate images of one disparity each; the ground truth is 10 m at every pixel."""
    folder.mkdir(exist_ok=True)
    (folder / "test_files.txt").write_text(f"drive l: 0-{len(disps) - 1}\n")
    np.savez(folder / "gt_depths.npz", **{
        f"depth_{i:06d}": np.full((20, 30), 10, np.float32) for i in range(len(disps))})
    np.save(folder / "disps.npy", np.broadcast_to(
        np.array(disps, np.float32)[:, None, None], (len(disps), 4, 6)))
    return script("evaluate_depth", "--eval_split", folder, *alignment,
                  "--ext_disp_to_eval", folder / "disps.npy", *flags)


def test_results_hold_flags_weights_errors_and_intervals(tmp_path, script):
    outcome = evaluate(script, tmp_path, [1 / 10, 1 / 12])
    assert outcome.status == 0, outcome.err
    found = read_results(tmp_path)
    assert found["flags"]["eval_mono"] is True
    assert found["flags"]["eval_split"] == str(tmp_path)
    assert "num_layers" not in found["flags"]  # training's
    assert found["weights"]["sha256"] == {
        "disps.npy": hashlib.sha256((tmp_path / "disps.npy").read_bytes()).hexdigest()}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
    assert found["lines"] == ["drive 0 l", "drive 1 l"]
    assert found["images"]["abs_rel"] == pytest.approx([0, 0.2], abs=1e-6)
    assert found["images"]["a1"] == [1, 1]
    assert found["images"]["abs_rel_40_80"] == [None, None]
    assert found["metrics"]["abs_rel"]["mean"] == pytest.approx(0.1, abs=1e-6)
    assert found["metrics"]["abs_rel"]["images"] == 2
    assert found["bootstrap"] == {"level": 0.95, "resamples": 10000, "seed": 0, "over": "images"}
    assert [name for name in found["metrics"] if name in DEPTH_METRICS] == list(DEPTH_METRICS)


@pytest.mark.parametrize(("flags", "name", "words"), [
    (["--eval_mono"], "median", "each prediction is scaled to the median of its ground truth"),
    (["--eval_mono", "--disable_median_scaling"], "none", "predictions are not fitted"),
    (["--eval_stereo"], "fixed", "one known factor for all predictions; before, all are multiplied "
                                 "by 5.4)"),
    (["--alignment", "median"], "median", "each prediction is scaled to the median"),
    (["--alignment", "none"], "none", "predictions are not fitted"),
    (["--alignment", "scale"], "scale", "each prediction is scaled by least squares"),
    (["--alignment", "affine_depth"], "affine_depth", "each prediction is scaled and shifted"),
    (["--alignment", "affine_disparity"], "affine_disparity", "each 1 / prediction is scaled")])
def test_the_alignment_is_stated_beside_the_errors(tmp_path, script, flags, name, words):
    outcome = evaluate(script, tmp_path, [1 / 10, 1 / 12], alignment=flags)
    assert outcome.status == 0, outcome.err
    assert f"means over images, alignment {name}, 95% intervals" in outcome.out
    before_the_table = outcome.out[:outcome.out.index("\n\n   abs_rel |")].splitlines()[-2:]
    assert [f"alignment: {name} ({words}" in line for line in before_the_table].count(True) == 1
    assert ("Scaling ratios" in outcome.out) == (name == "median")
    found = read_results(tmp_path)
    assert found["alignment"] == name
    if name not in ("none", "fixed"):
        assert found["images"]["abs_rel"] == pytest.approx([0, 0], abs=1e-6)
    assert found["images"]["scaling_shift"] == pytest.approx(
        {"affine_depth": [10, 10], "affine_disparity": [0.1, 0.1]}.get(name, [0, 0]))


def test_the_alignments_of_an_evaluation_have_files_of_their_own(tmp_path, script):
    for name in ("median", "scale"):
        outcome = evaluate(script, tmp_path / "a", [1 / 10, 1 / 12],
                           "--eval_out_dir", tmp_path / "out", alignment=["--alignment", name])
        assert "replace" not in outcome.out
    evaluate(script, tmp_path / "b", [1 / 10], "--eval_out_dir", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"results_{name}.{kind}" for name in ("a_median", "a_scale", "b_none")
        for kind in ("csv", "json")]
    refused = one_line(script("evaluate_depth", "--compare", tmp_path / "out", tmp_path / "a"), 1)
    assert ("out has results_a_median.json and results_a_scale.json and results_b_none.json; name "
            "one of them, or move the others") in refused
    outcome = script("evaluate_depth", "--compare", tmp_path / "out/results_a_median.json",
                     tmp_path / "out/results_a_scale.json")
    assert "results_a_median.json, alignment median\n" in outcome.out
    assert "A / B differ in --alignment median / scale\n" in outcome.out


def test_a_folder_without_results_is_named(tmp_path, script):
    refused = one_line(script("evaluate_depth", "--compare", tmp_path, tmp_path), 1)
    assert f"{tmp_path} has no results; give a results_<split>_<alignment>.json" in refused


def test_results_of_an_earlier_version_are_read_if_alone(tmp_path, script):
    a, b = of_several_drives(tmp_path, list("abc"))
    assert "results.json, alignment unknown" in script("evaluate_depth", "--compare", a, b).out
    (b / "results_x_none.json").write_bytes((b / "results.json").read_bytes())
    assert "b/results_x_none.json" in script("evaluate_depth", "--compare", a, b).out


def test_results_of_a_newer_version_are_refused(tmp_path, script):
    evaluate(script, tmp_path, [1 / 10])
    path = tmp_path / f"results_{tmp_path.name}_none.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    refused = one_line(script("evaluate_depth", "--compare", tmp_path, tmp_path), 1)
    assert "has schema 2, and this version reads up to 1; update the project" in refused


def test_results_hold_the_hash_of_the_list_and_the_kind_of_truth(tmp_path, script):
    evaluate(script, tmp_path, [1 / 10, 1 / 12])
    found = read_results(tmp_path)
    assert found["schema"] == 1
    assert found["lists"] == {"test": {"split": str(tmp_path), "sha256": hashlib.sha256(
        b"drive 0 l\ndrive 1 l").hexdigest()}, "training": None}
    assert found["ground_truth"]["kind"] == "maps of gt_depths.npz"


def test_disparities_in_a_folder_have_one_hash(tmp_path, script):
    evaluate(script, tmp_path, [1 / 10, 1 / 12])
    pngs = tmp_path / "pngs"
    pngs.mkdir()
    for i in range(2):
        assert cv2.imwrite(str(pngs / f"{i}.png"), np.full((4, 6), 20 + i, np.uint16))
    evaluate(script, tmp_path, [1 / 10, 1 / 12], "--ext_disp_to_eval", pngs)
    assert read_results(tmp_path)["weights"]["sha256"] == {"pngs": hashlib.sha256(
        (pngs / "0.png").read_bytes() + (pngs / "1.png").read_bytes()).hexdigest()}


def test_many_errors_make_a_verdict_harder(tmp_path, script):
    # the level of `one` is about 2 %, of the twenty others 60 %
    lines, rng = [f"{i} 0 l" for i in range(100)], np.random.default_rng(0)
    noise = rng.normal(0, 1, 100)
    noise = (noise - noise.mean()) / noise.std() / 100
    one, others = 0.5 + noise - 0.00235, 0.5 + noise - 0.0005
    rows = {}
    for count in (0, 20):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "results.json").write_text(json.dumps({"lines": lines, "images": {
                "pixels": [9] * 100, "abs_rel": [0.5] * 100 if name == "a" else one.tolist()} | {
                f"x{i}": [0.5] * 100 if name == "a" else others.tolist() for i in range(count)}}))
        out = script("evaluate_depth", "--compare", tmp_path / "a", tmp_path / "b").out
        rows[count] = next(line for line in out.splitlines() if line.startswith("  abs_rel"))
        assert ("(Holm's correction)" in out) == (count > 0)
    assert rows[0].endswith("B is better")
    assert rows[20].endswith("noise among so many errors (Holm)")
    assert rows[0].split("   ")[:3] == rows[20].split("   ")[:3]


def test_results_name_the_commit_and_whether_files_differ(tmp_path, script):
    evaluate(script, tmp_path, [1 / 10, 1 / 12])
    found = read_results(tmp_path)["commit"]
    if not (ROOT / ".git").exists():
        assert found is None
        return
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.strip()
    assert found in (head, f"{head}-dirty")


def test_the_csv_has_the_values_of_the_json_one_row_per_image(tmp_path, script):
    evaluate(script, tmp_path, [1 / 10, 1 / 12, 1 / 15])
    found = read_results(tmp_path)
    with (tmp_path / f"results_{tmp_path.name}_none.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["line"] for row in rows] == found["lines"]
    for name, values in found["images"].items():
        assert [float(row[name]) if row[name] else None for row in rows] == values


def test_the_papers_table_is_printed_last(tmp_path, script):
    out = evaluate(script, tmp_path, [1 / 10, 1 / 12]).out
    assert out.endswith(
        "\n\n   abs_rel |   sq_rel |     rmse | rmse_log |       a1 |       a2 |       a3 | \n"
        "&   0.100  &   0.200  &   1.000  &   0.091  &   1.000  &   1.000  &   1.000  \\\\\n")


def test_the_table_is_printed_if_results_cannot_be_written(tmp_path, script):
    (tmp_path / "file").write_text("")
    outcome = evaluate(script, tmp_path / "split", [1 / 10], "--eval_out_dir", tmp_path / "file")
    assert "results_split_none.json cannot be written" in one_line(outcome, status=1)
    assert "&   0.000  &" in outcome.out


def test_changed_flags_are_reported_on_replacing_and_comparing(tmp_path, script):
    a, b = tmp_path / "a", tmp_path / "b"
    assert "replace" not in evaluate(script, a, [1 / 10, 1 / 12]).out
    evaluate(script, b, [1 / 10, 1 / 12])
    for flags in (["--eval_mono", "--disable_median_scaling"], ["--alignment", "none"]):
        assert "replace" not in evaluate(script, a, [1 / 10, 1 / 12], alignment=flags).out
    out = evaluate(script, a, [1 / 10, 1 / 12], "--pred_depth_scale_factor", 2).out
    assert ("they replace the results of another evaluation "
            "(then / now: --pred_depth_scale_factor 1.0 / 2.0); --eval_out_dir keeps both\n") in out
    other = a / "other.npy"
    np.save(other, np.load(b / "disps.npy"))
    out = evaluate(script, a, [1 / 10, 1 / 12], "--pred_depth_scale_factor", 2,
                   "--ext_disp_to_eval", other).out
    assert f"(then / now: --ext_disp_to_eval {a / 'disps.npy'} / {other}); " in out
    out = script("evaluate_depth", "--compare", b, a).out  # folders are accepted too
    assert "--ext_disp_to_eval" not in out  # differs by intention
    assert "A / B differ in --pred_depth_scale_factor 1.0 / 2.0\n" in out
    (a / "results_a_none.json").write_text("[]")
    assert "wrote" in evaluate(script, a, [1 / 10, 1 / 12]).out


def test_intervals_of_few_images_have_a_warning(tmp_path, script):
    words = "of fewer than 20 images they are too narrow"
    assert words in evaluate(script, tmp_path, [1 / 10] * 19).out
    assert words not in evaluate(script, tmp_path, [1 / 10] * 20).out


def test_an_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = bootstrap({"x": values})["x"]
    half = 1.96 * values.std() / 20  # standard error of a mean of 400
    assert found.mean == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(
        [found.mean - half, found.mean + half], abs=half / 10)
    assert bootstrap({"x": values})["x"] == found


def test_images_without_a_value_are_left_out():
    found = bootstrap({"x": np.array([1.0, 3.0, np.nan]), "none": np.full(3, np.nan),
                       "one": np.array([2.0, np.nan, np.nan])})
    assert found["x"][0::3] == (2, 2)
    assert found["x"][1:3] == (1, 3)
    assert np.isnan(found["none"][:3]).all()
    assert found["one"].mean == 2
    assert np.isnan(found["one"][1:3]).all()  # one image has no interval


def compared(script, tmp_path, a, b):
    """Evaluate and compare two lists of depths; return the rows by the name of the error."""
    for name, depths in (("a", a), ("b", b)):
        assert evaluate(script, tmp_path / name, [1 / depth for depth in depths]).status == 0
    outcome = script("evaluate_depth", "--compare", tmp_path / "a/results_a_none.json",
                     tmp_path / "b/results_b_none.json")
    assert outcome.status == 0, outcome.err
    return {line.split()[0]: line for line in outcome.out.splitlines()}


def test_a_difference_in_every_image_is_not_noise(tmp_path, script):
    # abs_rel of A is 0.1 to 0.28, that of B 0.05 less
    a = 11 + 0.2 * np.arange(10)
    rows = compared(script, tmp_path, a, a - 0.5)
    assert re.search(r"0\.1900 +0\.1400 +-0\.0500 +-0\.0500 to +-0\.0500   B is better",
                     rows["abs_rel"])
    rows = compared(script, tmp_path, a - 0.5, a)
    assert rows["abs_rel"].endswith("A is better")


def test_the_larger_accuracy_is_better(tmp_path, script):
    rows = compared(script, tmp_path, [13.0] * 8, [10.0] * 8)
    assert rows["a1"].endswith("B is better")
    assert rows["a1_0_20"].endswith("B is better")
    assert rows["abs_rel"].endswith("B is better")
    assert rows["a1_40_80"].endswith("too few images")


def test_a_difference_whose_interval_contains_0_is_called_noise(tmp_path, script):
    rows = compared(script, tmp_path, [11, 12, 11, 12, 11, 12], [12, 11, 12, 11, 12, 11.01])
    assert rows["abs_rel"].endswith("noise: the interval contains 0")
    rows = compared(script, tmp_path, [11, 12], [11, 12])
    assert rows["rmse"].endswith("equal")


def test_a_paired_difference_is_seen_where_intervals_overlap(tmp_path, script):
    a = np.linspace(11, 20, 12)
    rows = compared(script, tmp_path, a, a - 0.2)
    lows = {}
    for name in "ab":
        found = read_results(tmp_path / name)["metrics"]["abs_rel"]
        lows[name] = found["low"], found["high"]
    assert lows["a"][0] < lows["b"][1]
    assert rows["abs_rel"].endswith("B is better")


def test_results_of_other_images_are_not_compared(tmp_path, script):
    for name, disps in (("a", [0.1, 0.1]), ("b", [0.1])):
        assert evaluate(script, tmp_path / name, disps).status == 0
    pair = tmp_path / "a/results_a_none.json", tmp_path / "b/results_b_none.json"
    assert "has 2 images, " in one_line(script("evaluate_depth", "--compare", *pair), status=1)
    content = json.loads(pair[0].read_text())
    content["images"]["pixels"][1] += 1
    pair[1].write_text(json.dumps(content))
    assert "image 1 has other pixels" in one_line(
        script("evaluate_depth", "--compare", *pair), status=1)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"lines": [], "images": {}}',
                                     b'{"lines":["a"],"images":{"abs_rel":[1],"pixels":[1, 2]}}',
                                     b'{"lines":["a"],"images":{"abs_rel":[1],"pixels":[[1]]}}',
                                     b'{"lines":["a"],"images":{"abs_rel":[1],"pixels":["x"]}}',
                                     b"[" * 100_000])
def test_a_broken_results_json_is_refused(tmp_path, script, content):
    (tmp_path / "results.json").write_bytes(content)
    outcome = script("evaluate_depth", "--compare", *[tmp_path / "results.json"] * 2)
    assert "is not a results file of a depth evaluation" in one_line(outcome, status=1)


def test_a_missing_results_json_is_named(tmp_path, script):
    outcome = script("evaluate_depth", "--compare", *[tmp_path / "results.json"] * 2)
    assert "results.json cannot be read: No such file" in one_line(outcome, status=1)


def of_several_drives(split, lines):
    """Make two results.json, where B is much better on lines that start with a, else worse."""
    gain = np.array([0.3 if line.startswith("a") else -0.001 for line in lines])
    for name, abs_rel in (("a", np.full(len(lines), 0.5)), ("b", 0.5 - gain)):
        (split / name).mkdir(parents=True)
        (split / name / "results.json").write_text(json.dumps(
            {"lines": lines, "images": {"abs_rel": abs_rel.tolist(), "pixels": [9] * len(lines)}}))
    return split / "a", split / "b"


def test_results_of_several_drives_are_resampled_by_drive(tmp_path, script):
    (tmp_path / "test_files.txt").write_text("a l: 0-1\nb l: 0-1\nc r: 0-1\nc l: 0\n")
    np.savez(tmp_path / "gt_depths.npz", **{
        f"depth_{i:06d}": np.full((20, 30), 10, np.float32) for i in range(7)})
    disps = np.repeat(np.float32([1 / 10, 1 / 12, 1 / 14]), [2, 2, 3])
    np.save(tmp_path / "disps.npy", np.broadcast_to(disps[:, None, None], (7, 4, 6)))
    outcome = script("evaluate_depth", "--eval_split", tmp_path, "--eval_mono",
                     "--disable_median_scaling", "--ext_disp_to_eval", tmp_path / "disps.npy")
    assert outcome.status == 0, outcome.err
    assert ("95% intervals by bootstrap over 3 drives (10,000 resamples, seed 0); of fewer than 20 "
            "drives they are too narrow\n") in outcome.out
    found = read_results(tmp_path)
    assert found["bootstrap"]["over"] == "drives"
    abs_rel = found["metrics"]["abs_rel"]
    assert abs_rel["images"] == 7
    assert abs_rel["mean"] == pytest.approx((2 * 0 + 2 * 0.2 + 3 * 0.4) / 7)  # over images
    # 1 of 27 resamples is drive c alone, more than 2.5 %
    assert (abs_rel["low"], abs_rel["high"]) == pytest.approx((0, 0.4), abs=1e-6)


def test_a_difference_in_one_drive_only_is_noise(tmp_path, script):
    lines = [f"{drive} {frame} l" for drive in "abcdefghijklmnopqrstuvwxyz" for frame in range(20)]
    outcome = script("evaluate_depth", "--compare", *of_several_drives(tmp_path, lines))
    assert "paired, 95% intervals by bootstrap over 26 drives (10,000 resamples, " in outcome.out
    assert "noise: the interval contains 0" in outcome.out
    # as images of 520 drives, 20 are evidence
    outcome = script("evaluate_depth", "--compare", *of_several_drives(
        tmp_path / "images", [f"{line[0]}{i} 0 l" for i, line in enumerate(lines)]))
    assert "intervals by bootstrap over 520 images (" in outcome.out
    assert "B is better" in outcome.out


def test_lines_without_folders_are_compared_as_images(tmp_path, script):
    outcome = script("evaluate_depth", "--compare", *of_several_drives(tmp_path, list("abc")))
    assert outcome.status == 0, outcome.err
    assert "bootstrap over 3 images (10,000 resamples, seed 0); of fewer than 20 " in outcome.out


def test_an_error_known_in_one_drive_only_has_no_interval():
    found = bootstrap({"x": np.array([1.0, 3.0, np.nan])}, np.array([0, 0, 1]))["x"]
    assert found[0::3] == (2, 2)
    assert np.isnan(found[1:3]).all()
