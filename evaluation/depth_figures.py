"""Figures of a depth evaluation: examples, errors by distance, errors by epoch.

`save_figures` writes the figures; the other functions make them from arrays. A figure made without
pyplot is drawn in memory, so no display is needed.
"""
from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.test_set import TestSet
from metrics.depth import (
    DISTANCE_STEP,
    MAX_DEPTH,
    MIN_DEPTH,
    depths_at,
    errors_by_distance,
    evaluated_mask,
)
from metrics.intervals import LEVEL, Interval
from prediction.write import BRIGHTEST
from runtime.errors import DataError
from runtime.files import write_atomically

# file names; they take the name of the evaluation
IMAGES, BY_DISTANCE = "figure_images_{}.png", "figure_error_by_distance_{}.png"
EPOCHS = "figure_error_by_epoch_{}.png"
ROWS = ("input", "prediction", "ground truth", "error")
NEARNESS, ERROR = "magma", "RdYlBu_r"  # colour maps: near is bright; blue is right, red is wrong
NO_VALUE = "0.5"   # grey, which is in neither colour map
WORST_ERROR = 0.4  # |prediction - truth| / truth; larger errors have the same red
DPI = 150
POINT = 5          # width of a ground truth point, pixels of the figure
LETTERS = 10       # of a title, per inch
# Inches: width of a panel, gap between panels, margins, width of a colour bar
PANEL, GAP, LEFT, RIGHT, TOP, BOTTOM, BAR = 5.5, 0.1, 0.4, 1.1, 0.7, 0.2, 0.18
PANEL_SHAPES = 0.3, 0.8  # smallest and largest height / width of a panel


class Example(NamedTuple):
    """Hold an evaluated image for `draw_examples`.

    Attributes:
        title: why the image is shown.
        line: split line of the image.
        image: (H, W, 3) uint8 RGB; None if the file is missing.
        disp: (h, w) predicted disparity of any size, 1 / metres.
        gt: (H, W) metres, 0 = no ground truth.
        error: (H, W) |prediction - truth| / truth, NaN where it is not evaluated.
    """

    title: str
    line: str
    image: np.ndarray | None
    disp: np.ndarray
    gt: np.ndarray
    error: np.ndarray


def save_figures(folder: Path, name: str, test_set: TestSet, disps: np.ndarray,
                 abs_rel: np.ndarray, scale_factor: float, alignment: str) -> None:
    """Write the figures of an evaluation; warn about missing images and leave them out.

    Args:
        folder: where the figures go.
        name: of the evaluation, as in the file of its results.
        test_set: N test images with ground truth.
        disps: (N, h, w) scaled disparities.
        abs_rel: (N,) errors of the images.
        scale_factor: multiplies the predicted depth.
        alignment: of each predicted depth afterwards, one of `ALIGNMENTS`.

    Raises:
        DataError: a figure cannot be written.
    """
    gt_depths, eigen, *_ = test_set.truth
    settings = scale_factor, alignment, test_set.truth.max_depth
    depths = (depths_at(gt, disp, evaluated_mask(gt, eigen), *settings)[:2]
              for gt, disp in zip(gt_depths, disps, strict=True))
    save_figure(draw_by_distance(*errors_by_distance(depths)), folder / BY_DISTANCE.format(name))
    examples, missing = [], []
    for rank, i in choose_examples(abs_rel).items():
        gt, image = gt_depths[i], None
        mask = evaluated_mask(gt, eigen)
        disp = measured_disparity(gt, disps[i], mask, *settings)
        try:
            image = test_set.image(i, *gt.shape)
        except DataError as error:
            missing.append(error)
        examples.append(Example(f"{rank}: abs_rel {abs_rel[i]:.3f}", test_set.lines[i], image,
                                disp, gt, error_map(gt, disp, mask, settings[-1])))
    path = folder / IMAGES.format(name)
    if missing:
        print(f"warning: {path.name} is without {len(missing)} of {len(examples)} input images: "
              f"{missing[0]}")
    save_figure(draw_examples(examples), path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG and print its path.

    Raises:
        DataError: the file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi="figure")
    write_atomically(path, content.getvalue())
    print(f"wrote {path}")


def choose_examples(abs_rel: np.ndarray) -> dict[str, int]:
    """Choose the best, the median and the worst image; of two the best and worst, of one the best.

    Args:
        abs_rel: (N,) errors of the images.
    """
    names = ("best", "median", "worst") if len(abs_rel) > 2 else ("best", "worst")[:len(abs_rel)]
    ranks = np.linspace(0, len(abs_rel) - 1, len(names)).astype(int)
    return dict(zip(names, np.argsort(abs_rel, kind="stable")[ranks].tolist(), strict=True))


def measured_disparity(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray, scale_factor: float,
                       alignment: str, max_depth: float = MAX_DEPTH) -> np.ndarray:
    """Return a prediction as its errors are measured: resized, then aligned and limited.

    Args:
        gt, disp, mask, scale_factor, alignment, max_depth: as for `depths_at`.

    Returns:
        (H, W) disparity, 1 / metres.
    """
    *_, fit = depths_at(gt, disp, mask, scale_factor, alignment)
    depth = 1 / cv2.resize(disp, gt.shape[::-1]) * scale_factor
    return 1 / fit.apply(depth).clip(MIN_DEPTH, max_depth)


def error_map(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray,
              max_depth: float = MAX_DEPTH) -> np.ndarray:
    """Return |prediction - truth| / truth at each evaluated pixel.

    Args:
        gt: (H, W) metres.
        disp: (h, w) predicted disparity, 1 / metres.
        mask: (H, W) bool, the evaluated pixels; at least one.
        max_depth: metres that the prediction is limited to.

    Returns:
        (H, W), NaN where the mask is false.
    """
    true, predicted, _ = depths_at(gt, disp, mask, alignment="none", max_depth=max_depth)
    errors = np.full(gt.shape, np.nan)
    errors[mask] = abs(true - predicted) / true
    return errors


def enlarge_points(gt: np.ndarray, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw sparse points `POINT` pixels wide, the nearer point over the farther.

    Args:
        gt: (H, W) metres, the distances of the points.
        values: (H, W), NaN between the points.
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        (height, width), NaN between the points.
    """
    rows, columns = np.nonzero(~np.isnan(values))
    far_to_near = np.argsort(-gt[rows, columns], kind="stable")
    rows, columns = rows[far_to_near], columns[far_to_near]
    order = np.full((height, width), -1.0)  # index of the nearest point in each pixel; -1: no point
    order[_centres(rows, gt.shape[0], height), _centres(columns, gt.shape[1], width)] = np.arange(
        len(rows))
    size = max(POINT, -(-height // gt.shape[0]), -(-width // gt.shape[1])) | 1  # odd: centred
    order = cv2.dilate(order, np.ones((size, size), np.uint8))
    shown = np.append(values[rows, columns], np.nan)  # index -1 is the last value
    return shown[order.astype(int)]


def _centres(pixels: np.ndarray, size: int, new_size: int) -> np.ndarray:
    """Map pixels of a line of `size` pixels to a line of `new_size` pixels."""
    return ((pixels + 0.5) * new_size / size).astype(int)


def draw_examples(examples: Sequence[Example]) -> Figure:
    """Draw a column for each example: input, prediction, ground truth, error."""
    shape = np.clip(max(one.gt.shape[0] / one.gt.shape[1] for one in examples), *PANEL_SHAPES)
    figure, axes = _make_grid(len(examples), PANEL * shape)
    nearest = np.percentile(np.concatenate([1 / one.gt[one.gt > 0] for one in examples]), BRIGHTEST)
    colours = {NEARNESS: Normalize(0, nearest), ERROR: Normalize(0, WORST_ERROR)}
    for column, example in zip(axes.T, examples, strict=True):
        _draw_column(column, example, colours)
    for ax, name in zip(axes[:, 0], ROWS, strict=True):
        ax.set_ylabel(name, fontsize=13)
    bar = _add_bar(figure, axes[1:3, -1], ScalarMappable(colours[NEARNESS], NEARNESS), "depth (m)")
    ticks = np.linspace(0, nearest, 5)
    bar.set_ticks(ticks, labels=["∞", *(f"{1 / tick:.2g}" for tick in ticks[1:])])
    _add_bar(figure, axes[3:, -1], ScalarMappable(colours[ERROR], ERROR), "|error| / depth")
    return figure


def _make_grid(columns: int, panel_height: float) -> tuple[Figure, np.ndarray]:
    """Make a figure and its (4, columns) axes of fixed size in inches."""
    rows = len(ROWS)
    width = LEFT + columns * (PANEL + GAP) - GAP + RIGHT
    height = TOP + rows * (panel_height + GAP) - GAP + BOTTOM
    figure = Figure((width, height), dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw={
        "left": LEFT / width, "right": 1 - RIGHT / width, "wspace": GAP / PANEL,
        "bottom": BOTTOM / height, "top": 1 - TOP / height, "hspace": GAP / panel_height})


def _add_bar(figure: Figure, beside: Sequence[Axes], colours: ScalarMappable,
             label: str) -> Colorbar:
    """Add a colour bar to the right of axes in one column."""
    above, below = (ax.get_position(original=True) for ax in (beside[0], beside[-1]))
    width = figure.get_figwidth()
    cax = figure.add_axes((above.x1 + GAP / width, below.y0, BAR / width, above.y1 - below.y0))
    bar = figure.colorbar(colours, cax=cax, extend="max")
    bar.set_label(label, fontsize=13)
    return bar


def _draw_column(column: Sequence[Axes], example: Example, colours: dict[str, Normalize]) -> None:
    """Draw the title and the four pictures of an example."""
    height, width = example.gt.shape
    place = column[0].bbox  # in pixels
    scale = min(place.height / height, place.width / width)
    pixels = max(1, round(scale * height)), max(1, round(scale * width))
    depth = enlarge_points(example.gt, np.where(example.gt > 0, example.gt, np.nan), *pixels)
    pictures = ((example.image, None, "antialiased"), (example.disp, NEARNESS, "bilinear"),
                (1 / depth, NEARNESS, "nearest"),
                (enlarge_points(example.gt, example.error, *pixels), ERROR, "nearest"))
    for ax, (picture, colour, interpolation) in zip(column, pictures, strict=True):
        ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0), aspect="equal")
        ax.set_facecolor(NO_VALUE)
        if picture is None:
            ax.text(0.5, 0.5, "no image", ha="center", va="center", fontsize=13,
                    transform=ax.transAxes)
        else:
            ax.imshow(picture, cmap=colour, norm=colours.get(colour), interpolation=interpolation,
                      extent=(0, width, height, 0))
    room = int(LETTERS * PANEL)
    line = example.line if len(example.line) <= room else f"...{example.line[-room + 3:]}"
    column[0].set_title(f"{example.title}\n{line}", fontsize=12)


def draw_by_distance(abs_rel: np.ndarray, counts: np.ndarray) -> Figure:
    """Draw abs_rel and the number of pixels by true distance.

    Args:
        abs_rel: (9,) as `errors_by_distance` returns it, NaN in a bin without pixels.
        counts: (9,) numbers of pixels.
    """
    names = [f"{i * DISTANCE_STEP:g}-{(i + 1) * DISTANCE_STEP:g}" for i in range(len(counts) - 1)]
    bins = len(counts) if counts[-1] else len(counts) - 1  # Eigen's range ends at 80 m
    names, abs_rel, counts = [*names, "farther"][:bins], abs_rel[:bins], counts[:bins]
    figure = Figure((11, 7), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    bars = above.bar(names, abs_rel, color="tab:blue")
    above.bar_label(bars, ["" if np.isnan(one) else f"{one:.3f}" for one in abs_rel])
    of_all = np.nansum(abs_rel * counts) / counts.sum()
    above.set_title(f"abs_rel by true distance: means over pixels (over all of them {of_all:.3f})")
    above.set_ylabel("abs_rel")
    bars = below.bar(names, counts, color="0.6")
    below.bar_label(bars, [f"{count:,}" for count in counts])
    below.set_yscale("symlog", linthresh=1)  # logarithmic, but shows 0
    below.set(xlabel="true distance (m)", ylabel="pixels")
    for ax in (above, below):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def draw_epochs(errors: dict[int, dict[str, Interval]]) -> Figure:
    """Draw abs_rel and a1 of the epochs of a run, with their intervals.

    Args:
        errors: for each epoch, the mean of each error with its interval.
    """
    figure = Figure((11, 7), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    epochs = list(errors)
    for ax, name in ((above, "abs_rel"), (below, "a1")):
        mean, low, high = ([getattr(found[name], part) for found in errors.values()]
                           for part in ("mean", "low", "high"))
        ax.fill_between(epochs, low, high, color="tab:blue", alpha=0.2, linewidth=0)
        ax.plot(epochs, mean, "o-", color="tab:blue")
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    above.set_title(f"Error on the test images after each epoch, with {LEVEL:.0%} "
                    "intervals\nChoosing an epoch by its test error is not a result: it would have "
                    "been trained on the test images.\nReport the last epoch, or choose by "
                    "validation images.")
    figure.align_ylabels()
    below.set_xlabel("epoch (of weights_<epoch>)")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
