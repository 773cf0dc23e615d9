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

from datasets.ground_truth import export_gt_depths
from evaluation.report import CORRUPTIONS, leak_line, write_report

HOSTILE = """<script>alert(1)</script> "it's" & <img src=x>""".replace("/", "|")


def report(script, drive, split, *flags, alignment="median"):
    """Evaluate made disparities on a split with --report; return the page and the outcome."""
    if not (split / "gt_depths.npz").exists():
        export_gt_depths(drive, split)
    np.save(split / "disps.npy", np.geomspace(0.02, 0.2, 4 * 8 * 12).reshape(4, 8, 12)
            .astype(np.float32))
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split", split,
                     "--ext_disp_to_eval", split / "disps.npy", "--alignment", alignment,
                     "--num_workers", 0, "--report", *flags)
    assert outcome.status == 0, outcome.err
    return split / f"report_{split.name}_{alignment}.html", outcome


@pytest.fixture
def split(drive, tmp_path):
    """Copy the split of the drive into a folder that is written to."""
    shutil.copytree(drive / "splits/tiny", tmp_path / "tiny")
    return tmp_path / "tiny"


def text_of(page):
    """Return the words that a reader sees."""
    body = page.read_text().partition("<body>")[2]
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def test_the_page_shows_the_values_of_the_results_file(script, drive, split):
    page, outcome = report(script, drive, split)
    assert f"wrote {page} (0." in outcome.out
    found, text = read_results(split), text_of(page)
    for name, interval in found["metrics"].items():
        mean, low, high = (f"{interval[key]:.4f}" if interval[key] is not None else "-"
                           for key in ("mean", "low", "high"))
        assert re.search(rf"\b{name} [↑↓] +{mean} +{low} to {high} +{interval['images']}\b", text)
    for words in (found["date"], found["commit"] or "unknown", found["lists"]["test"]["sha256"],
                  found["weights"]["folder"], found["weights"]["sha256"]["disps.npy"],
                  found["ground_truth"]["kind"], found["ground_truth"]["source"],
                  "4 images", "unknown whether any of the 4 test images was seen in training",
                  "median (each prediction is scaled to the median of its ground truth)",
                  "bootstrap over 4 images (10,000 resamples, seed 0)"):
        assert words in text
    assert page.read_text().count("<img ") == 2


def test_the_command_on_the_page_repeats_the_evaluation(script, drive, split, tmp_path):
    page, _ = report(script, drive, split, "--pred_depth_scale_factor", 1.5, alignment="none")
    (command,) = re.findall("<pre>(.*)</pre>", page.read_text())
    program, name, *flags = shlex.split(html.unescape(command))
    assert [program, name] == ["python", "evaluate_depth.py"]
    assert flags[flags.index("--pred_depth_scale_factor") + 1] == "1.5"
    assert "--no_cuda" not in flags
    outcome = script("evaluate_depth", *flags, "--eval_out_dir", tmp_path / "again")
    assert outcome.status == 0, outcome.err
    assert read_results(tmp_path / "again")["images"] == read_results(split)["images"]


def test_the_name_of_a_folder_does_not_become_markup(script, drive, split, tmp_path):
    page, _ = report(script, drive, split.rename(tmp_path / HOSTILE))
    content = page.read_text()
    assert "<script" not in content
    assert "<img src=x" not in content
    assert f"<h1>Depth on {html.escape(HOSTILE)}, alignment median</h1>" in content
    assert re.findall(r"<title>(.*)</title>", content) == [
        html.escape(f"Depth on {HOSTILE}, alignment median")]


def test_the_page_loads_nothing_and_can_be_mailed(script, drive, split):
    page, _ = report(script, drive, split)
    content = page.read_text()
    assert "default-src 'none'" in content
    assert set(re.findall(r'(?:src|href)="(.{10})', content)) == {"data:image"}
    assert not re.search(r"https?:|url\(|@import|<link|<script", content)
    assert page.stat().st_size < 1_000_000


@pytest.mark.parametrize(("seen", "drives", "kind", "words"), [
    (0, [], "good", "0 of 9 test images were seen in training"),
    (3, ["a<b"], "bad", "warning: 3 of 9 test images were seen in training, in 1 drive (a&lt;b)"),
    (None, [], "unknown", "unknown whether any of the 9 test images was seen")])
def test_the_leak_line_has_the_colour_of_its_meaning(seen, drives, kind, words):
    line = leak_line({"seen_in_training": {"seen": seen, "images": 9, "drives": drives}})
    assert line.startswith(f'<p class="leak {kind}">{words}')


def test_the_sheet_of_corruptions_is_shown_if_it_is_there(script, drive, split):
    page, _ = report(script, drive, split)
    assert "Corruptions" not in page.read_text()
    cv2.imwrite(str(split / CORRUPTIONS.format("tiny_median")), np.zeros((60, 90, 3), np.uint8))
    write_report(split, "tiny_median")
    assert "<h2>Corruptions</h2>" in page.read_text()
    assert page.read_text().count("<img ") == 3


@needs_chromium
def test_a_browser_draws_the_page_without_a_complaint(script, drive, split, tmp_path):
    page, _ = report(script, drive, split.rename(tmp_path / HOSTILE))
    shown = open_page(page, 1200, 2400)
    assert shown.console == []
    assert "<h1>Depth on &lt;script&gt;" in shown.dom
    assert "<script" not in shown.dom
    found = json.loads((tmp_path / HOSTILE / f"results_{HOSTILE}_median.json").read_text())
    assert f"<td>{found['metrics']['abs_rel']['mean']:.4f}</td>" in shown.dom
    assert shown.picture.shape == (2400, 1200, 3)
    colours = {tuple(colour) for colour in shown.picture[::8, ::8].reshape(-1, 3).tolist()}
    assert len(colours) > 200  # the pictures are drawn, not only text
    narrow = open_page(page, 500, 1200).picture
    assert (narrow[:, -8:] == narrow[0, 0]).all()  # the margin: nothing is wider than the window
    dark = open_page(page, 600, 600, dark=True).picture
    assert dark[0, 0].max() < 64 < 200 < narrow[0, 0].min()
