"""--save_figures: what the figures show, whether their text can be read, missing images."""
import subprocess
import sys
from itertools import combinations

import cv2
import numpy as np
import pytest
from conftest import HEIGHT, ROOT, WIDTH
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from datasets.ground_truth import export_gt_depths
from evaluation.depth_errors import measure_errors
from evaluation.depth_figures import (
    POINT,
    Example,
    choose_examples,
    draw_by_distance,
    draw_epochs,
    draw_examples,
    enlarge_points,
    error_map,
    measured_disparity,
)
from metrics.alignment import ALIGNMENTS
from metrics.intervals import Interval


def test_the_best_the_median_and_the_worst_image_are_chosen():
    assert choose_examples(np.array([0.3, 0.1, 0.2, 0.5, 0.4])) == {
        "best": 1, "median": 0, "worst": 3}
    assert choose_examples(np.array([0.3, 0.1])) == {"best": 1, "worst": 0}
    assert choose_examples(np.array([0.3])) == {"best": 0}


@pytest.mark.parametrize("size", [(375, 1242), (40, 30), (3000, 9000)])
def test_a_point_is_visible_in_maps_of_every_size(size):
    gt = np.zeros(size)
    gt[size[0] // 2, size[1] // 3] = 7
    shown = enlarge_points(gt, np.where(gt > 0, 0.25, np.nan), 120, 400)
    rows, columns = np.nonzero(shown == 0.25)
    assert min(np.ptp(rows), np.ptp(columns)) + 1 >= POINT
    assert abs(rows.mean() - 120 * (size[0] // 2 + 0.5) / size[0]) <= 1
    assert abs(columns.mean() - 400 * (size[1] // 3 + 0.5) / size[1]) <= 1
    assert np.isnan(shown).sum() == shown.size - len(rows)


def test_the_nearer_of_two_overlapping_points_is_shown():
    gt = np.zeros((100, 100))
    gt[50, 49:52] = 30, 10, 20
    shown = enlarge_points(gt, np.where(gt > 0, gt, np.nan), 100, 100)
    assert (shown[50, 50 - POINT // 2:51 + POINT // 2] == 10).all()
    assert shown[50, 50 - POINT // 2 - 1] == 30
    assert shown[50, 50 + POINT // 2 + 1] == 20


def test_a_dense_map_leaves_no_gap():
    gt = np.full((4, 6), 5.0)
    assert (enlarge_points(gt, gt, 400, 600) == 5).all()
    assert (enlarge_points(gt, gt, 7, 11) == 5).all()


def test_the_error_is_relative_and_only_where_it_is_evaluated():
    gt = np.array([[4.0, 8.0, 0.0, 2.0]])
    errors = error_map(gt, np.full((1, 4), 0.2, np.float32), np.array([[1, 1, 0, 0]], bool))
    np.testing.assert_allclose(errors, [[0.25, 0.375, np.nan, np.nan]])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_figure_shows_what_was_measured(alignment):
    rng = np.random.default_rng(0)
    gt = rng.uniform(2, 60, (40, 70))
    disp = rng.uniform(0.01, 0.5, (8, 12)).astype(np.float32)  # resized fivefold
    mask = gt < 50
    gt[~mask] = 0
    columns = measure_errors(disp[None], [gt], eigen=False, scale_factor=1.5, alignment=alignment)
    shown = error_map(gt, measured_disparity(gt, disp, mask, 1.5, alignment), mask)
    assert np.nanmean(shown) == pytest.approx(columns["abs_rel"][0], rel=1e-5)


def example(height=60, width=200, line="drive 5 l", image=True):
    """Return an example: left half at 5 m, right half at 50 m and not evaluated."""
    gt = np.full((height, width), 5.0)
    gt[:, width // 2:] = 50
    error = np.where(gt == 5, 0.01, np.nan)
    red = np.full((height, width, 3), (255, 0, 0), np.uint8)
    return Example("best: abs_rel 0.010", line, red if image else None,
                   (1 / gt[::2, ::2]).astype(np.float32), gt, error)


def drawn(figure):
    """Return the pixels of a figure and the boxes (x0, y0, x1, y1) of its panels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    boxes = [ax.get_window_extent() for ax in figure.axes]
    return pixels, [(box.x0, len(pixels) - box.y1, box.x1, len(pixels) - box.y0) for box in boxes]


def colour(pixels, box, along):
    x0, y0, x1, y1 = box
    return pixels[int((y0 + y1) / 2), int(x0 + along * (x1 - x0))]


def test_near_is_bright_right_is_blue_unevaluated_is_grey():
    pixels, boxes = drawn(draw_examples([example()]))
    image, prediction, truth, error = boxes[:4]
    assert colour(pixels, image, 0.25).tolist() == [255, 0, 0]
    for box in (prediction, truth):
        assert colour(pixels, box, 0.25).min() > 180
        assert colour(pixels, box, 0.75).max() < 60
    assert np.abs(colour(pixels, prediction, 0.25) - colour(pixels, truth, 0.25)).max() < 10
    red, _, blue = colour(pixels, error, 0.25)
    assert blue > 2 * red
    assert colour(pixels, error, 0.75).tolist() == [128, 128, 128]


def overlaps(figure):
    """Return the texts of a figure that overlap or leave the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    beyond = {label for ax in figure.axes for axis, i in ((ax.xaxis, 0), (ax.yaxis, 1))
              for label in axis.get_ticklabels(which="both")  # some are not drawn
              if not np.ptp([*axis.get_view_interval(), label.get_position()[i]]) <= np.ptp(
                  axis.get_view_interval())}
    texts = [text for text in figure.findobj(Text)
             if text.get_visible() and text.get_text().strip() and text not in beyond]
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts}
    width, height = canvas.get_width_height()
    outside = [text.get_text() for text, box in boxes.items()
               if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    return outside + [(one.get_text(), two.get_text()) for one, two in combinations(texts, 2)
                      if boxes[one].overlaps(boxes[two])]


@pytest.mark.parametrize("examples", [
    [example()], [example(375, 1242, f"{'2011_09_26' * 20} 12 l")] * 3,
    [example(1920, 1080), example(60, 200, "a/" * 60), example(50, 50, image=False)],
    [example(20, 400)] * 2])
def test_the_texts_of_the_examples_do_not_overlap(examples):
    assert overlaps(draw_examples(examples)) == []


@pytest.mark.parametrize("counts", [
    [12_345_678, 9_876_543, 3_210_987, 1_000_000, 800_000, 500_000, 30_000, 7, 1],
    [12, 0, 3, 0, 0, 0, 0, 0, 0]])
def test_the_bars_by_distance_show_their_numbers(counts):
    counts = np.array(counts)
    abs_rel = np.where(counts > 0, np.linspace(0.05, 0.4, 9), np.nan)
    figure = draw_by_distance(abs_rel, counts)
    assert overlaps(figure) == []
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {f"{count:,}" for count in counts[:-1]} <= words
    assert {f"{one:.3f}" for one in abs_rel[:-1] if not np.isnan(one)} <= words
    assert {"0-10", "70-80"} <= words
    assert ("farther" in words) == bool(counts[-1])


@pytest.mark.parametrize("epochs", [[0], [0, 1, 5], list(range(20))])
def test_the_figure_of_epochs_warns_of_choosing_by_test_error(epochs):
    figure = draw_epochs({epoch: {name: Interval(0.1 + epoch / 100, 0.1, 0.4, 9)
                                  for name in ("abs_rel", "a1")} for epoch in epochs})
    assert overlaps(figure) == []
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "Choosing an epoch by its test error is not a result" in words
    for ax in figure.axes:
        (line,) = ax.lines
        assert line.get_xdata().tolist() == epochs
        assert line.get_ydata() == pytest.approx([0.1 + epoch / 100 for epoch in epochs])


def evaluate(script, drive, folder, *flags):
    np.save(folder / "disps.npy", np.geomspace(0.02, 0.2, 4 * 8 * 12).reshape(4, 8, 12)
            .astype(np.float32))
    return script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                  "--ext_disp_to_eval", folder / "disps.npy", "--eval_mono", "--num_workers", 0,
                  *flags)


def test_both_figures_go_to_the_folder_of_the_outputs(drive, tmp_path, script):
    export_gt_depths(drive, drive / "splits/tiny")
    out = tmp_path / "out"
    plain = evaluate(script, drive, tmp_path)
    outcome = evaluate(script, drive, tmp_path, "--save_figures", "--eval_out_dir", out)
    assert outcome.status == 0, outcome.err
    names = ["figure_error_by_distance_tiny_median.png", "figure_images_tiny_median.png"]
    assert sorted(path.name for path in out.iterdir()) == [
        *names, "results_tiny_median.csv", "results_tiny_median.json"]
    assert outcome.out == plain.out.replace(f"wrote {tmp_path}", f"wrote {out}") + "".join(
        f"wrote {out / name}\n" for name in names)
    for name in names:
        assert min(cv2.imread(str(out / name)).shape[:2]) > 500


def test_missing_images_give_one_warning_and_the_rest_is_drawn(tmp_path, script):
    split = tmp_path / "split"
    split.mkdir()
    (split / "test_files.txt").write_text("drive l: 0-3\n")
    sizes = (HEIGHT, WIDTH), (40, 30), (100, 333), (HEIGHT, WIDTH)
    np.savez(split / "gt_depths.npz", **{
        f"depth_{i:06d}": np.full(size, 5 + i, np.float32) for i, size in enumerate(sizes)})
    outcome = evaluate(script, tmp_path, tmp_path, "--eval_split", split, "--save_figures")
    assert outcome.status == 0, outcome.err
    (warning,) = [line for line in outcome.out.splitlines() if line.startswith("warning: ")]
    assert "figure_images_split_median.png is without 3 of 3 input images: " in warning
    assert ".jpg is missing" in warning
    assert (tmp_path / "figure_images_split_median.png").is_file()


def test_matplotlib_is_not_imported_without_the_flag(drive, tmp_path, script):
    export_gt_depths(drive, drive / "splits/tiny")
    evaluate(script, drive, tmp_path)
    code = ("import sys, evaluate_depth; evaluate_depth.main(); "
            "assert 'torch' in sys.modules and 'matplotlib' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code, "--eval_mono", "--eval_split",
                           drive / "splits/tiny", "--ext_disp_to_eval", tmp_path / "disps.npy"],
                          cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "abs_rel" in done.stdout
