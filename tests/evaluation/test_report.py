"""--report: the page shows what the results file holds, loads nothing, and a browser draws it."""
import html
import json
import re
import shlex
import shutil

import cv2
import numpy as np
import pytest
from chromium import needs_chromium, open_page
from conftest import read_results

import evaluate_depth
from datasets.ground_truth import export_gt_depths
from evaluation.corruption_figures import SHEET
from evaluation.report import PAGE_NAME, leak_line, write_report
from evaluation.robustness_file import ROBUSTNESS

HOSTILE = """<script>alert("it's") & <img src=x>"""  # the name of a split
NAME = f"{HOSTILE}_median"
PAGE = PAGE_NAME.format(NAME)


@pytest.fixture(scope="module")
def split(drive, tmp_path_factory):
    """Evaluate made disparities with --report; return the split, which has the results too."""
    folder = tmp_path_factory.mktemp("report") / HOSTILE
    shutil.copytree(drive / "splits/tiny", folder)
    export_gt_depths(drive, folder)
    np.save(folder / "disps.npy", np.geomspace(0.02, 0.2, 4 * 8 * 12).reshape(4, 8, 12)
            .astype(np.float32))
    evaluate_depth.evaluate(evaluate_depth.parse([
        "--data_path", str(drive), "--eval_split", str(folder), "--alignment", "median", "--report",
        "--ext_disp_to_eval", str(folder / "disps.npy"), "--pred_depth_scale_factor", "1.5"]))
    return folder


def text_of(page):
    """Return the words that a reader sees."""
    body = page.read_text().partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_shows_the_values_of_the_results_file(split):
    found, text = read_results(split), text_of(split / PAGE)
    for name, interval in found["metrics"].items():
        mean, low, high = (f"{interval[key]:.4f}" if interval[key] is not None else "-"
                           for key in ("mean", "low", "high"))
        fewer = "" if interval["images"] == 4 else rf" {interval['images']} image"
        assert re.search(rf"\b{name} [↑↓] {mean} {low} to {high}{fewer}", text)
    assert "abs_rel ↓" in text
    assert "a1_0_20 ↑" in text
    for words in (found["date"], found["commit"] or "unknown", found["lists"]["test"]["sha256"],
                  found["weights"]["folder"], found["weights"]["sha256"]["disps.npy"],
                  found["ground_truth"]["kind"], found["ground_truth"]["source"],
                  "4 images", "unknown whether any of the 4 test images was seen in training",
                  "median (each prediction is scaled to the median of its ground truth; before, "
                  "all are multiplied by 1.5)",
                  "95% intervals by bootstrap over 4 images (10,000 resamples, seed 0); of fewer "
                  "than 20 images they are too narrow"):
        assert words in text
    assert (split / PAGE).read_text().count("<img ") == 2


def test_the_command_on_the_page_repeats_the_evaluation(script, split, tmp_path):
    (command,) = re.findall("<pre>(.*)</pre>", (split / PAGE).read_text())
    program, name, *flags = shlex.split(html.unescape(command))
    assert [program, name] == ["python", "evaluate_depth.py"]
    assert flags[flags.index("--pred_depth_scale_factor") + 1] == "1.5"
    assert "--batch_size" not in flags
    outcome = script("evaluate_depth", *flags, "--eval_out_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert re.search(rf"\nwrote {re.escape(str(tmp_path / PAGE))} \(0\.\d\d MB\)$",
                     outcome.out.rstrip())
    assert read_results(tmp_path)["images"] == read_results(split)["images"]


def test_the_name_of_a_folder_does_not_become_markup(split):
    content = (split / PAGE).read_text()
    assert "<script" not in content
    assert "<img src=x" not in content
    title = html.escape(f"Depth on {HOSTILE}, alignment median")
    assert f"<title>{title}</title>" in content
    assert f"<h1>{title}</h1>" in content


def test_the_page_loads_nothing_and_can_be_mailed(split):
    content = (split / PAGE).read_text()
    assert "default-src 'none'" in content
    assert set(re.findall(r'(?:src|href)="(.{10})', content)) == {"data:image"}
    assert not re.search(r"https?:|url\(|@import|<link|<script", content)
    assert len(content) < 1_000_000


@pytest.mark.parametrize(("seen", "drives", "kind", "words"), [
    (0, [], "good", "0 of 9 test images were seen in training"),
    (3, ["a<b"], "bad", "warning: 3 of 9 test images were seen in training, in 1 drive (a&lt;b)"),
    (None, [], "unknown", "unknown whether any of the 9 test images was seen")])
def test_the_leak_line_has_the_colour_of_its_meaning(seen, drives, kind, words):
    line = leak_line({"seen_in_training": {"seen": seen, "images": 9, "drives": drives}})
    assert line.startswith(f'<p class="leak {kind}">{words}')


def test_a_name_that_is_no_text_is_written_with_escapes(split, tmp_path):
    shutil.copytree(split, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"results_{NAME}.json"
    path.write_text(path.read_text().replace('"commit": ', '"commit": "\\udcff", "was": '))
    write_report(tmp_path, NAME)
    assert "commit \\udcff" in text_of(tmp_path / PAGE)


def with_robustness(split, folder, **other):
    """Copy results and add errors under corruptions; return the page of both."""
    shutil.copytree(split, folder, dirs_exist_ok=True)
    found = read_results(split)
    scores = {"corruptions": ["dark", "fog"], "severities": [1, 3], "baseline": None, "mrr": 81.234,
              "rr": {"fog": 70.5, "dark": 91.968}} | other.pop("scores", {})
    (folder / ROBUSTNESS.format(NAME)).write_text(json.dumps(found | {
        "clean": {"dee": 0.119}, "scores": scores,
        "corrupted": {"fog": {"1": {"dee": 0.25}, "3": {"dee": 0.5}}, "dark": {"1": {"dee": 0.3}}}}
        | other))
    sheet = cv2.imencode(".png", np.zeros((60, 90, 3), np.uint8))[1]
    (folder / SHEET.format(NAME)).write_bytes(sheet.tobytes())
    write_report(folder, NAME)
    return folder / PAGE


def test_errors_under_corruptions_are_shown_if_measured(split, tmp_path):
    assert "orruption" not in (split / PAGE).read_text()
    page = with_robustness(split, tmp_path)
    assert page.read_text().count("<img ") == 3
    text = text_of(page)
    assert "DEE at severity 1 3 RR fog 0.250 0.500 70.50 dark 0.300 - 91.97" in text
    assert ("0.119 without corruption. In percent: mRR 81.23, over 2 of 18 corruptions and 2 of 5 "
            "severities. Baseline: -.") in text
    text = text_of(with_robustness(split, tmp_path, scores={
        "mce": 100, "ce": {"fog": 100, "dark": 100}, "baseline": "r18.json"}))
    assert "fog 0.250 0.500 100.00 70.50" in text
    assert "mCE 100.00, mRR 81.23, over 2 of 18" in text
    assert "Baseline: r18.json." in text


@pytest.mark.parametrize(("other", "words"), [
    ({"weights": {"sha256": {"depth.pth": "0"}}}, "differs in weights"),
    ({"flags": {"post_process": True}}, "--post_process"),
    ({"lists": []}, "is broken")])
def test_errors_under_corruptions_of_others_are_left_out(split, tmp_path, other, words):
    page = with_robustness(split, tmp_path, **other)
    assert page.read_text().count("<img ") == 2
    assert re.search(rf"Left out: \S+ .*{words}", text_of(page).replace(HOSTILE, ""))


@needs_chromium
def test_a_browser_draws_the_page_without_a_complaint(split):
    shown = open_page(split / PAGE, 1200, 2400)
    assert shown.console == []
    assert "<h1>Depth on &lt;script&gt;" in shown.dom
    assert "<script" not in shown.dom
    mean = read_results(split)["metrics"]["abs_rel"]["mean"]
    assert f"<td>{mean:.4f}</td>" in shown.dom
    assert shown.picture.shape == (2400, 1200, 3)
    colours = {tuple(colour) for colour in shown.picture[::8, ::8].reshape(-1, 3).tolist()}
    assert len(colours) > 200  # the pictures are drawn, not only text
    narrow = open_page(split / PAGE, 500, 1200).picture
    assert (narrow[:, -8:] == narrow[0, 0]).all()  # the margin: nothing is wider than the window
    dark = open_page(split / PAGE, 600, 600, dark=True).picture
    assert dark[0, 0].max() < 64 < 200 < narrow[0, 0].min()


@needs_chromium
def test_the_browser_runs_scripts_and_hears_their_errors(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<body><p>before</p><script>setTimeout(() => {"
                    "document.body.innerHTML = '<p>af' + 'ter</p>'; undefined.name }, 500)"
                    "</script></body>")
    shown = open_page(page, 500, 300)
    assert "<p>after</p>" in shown.dom
    assert "<p>before</p>" not in shown.dom
    assert "TypeError" in "".join(shown.console)
