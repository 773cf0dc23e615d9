"""The figures of a depth evaluation: what went well and what badly, and how far errors grow.

`save_figures` writes them; the other functions make them from arrays. No display is needed: a
figure that pyplot has not made is drawn in memory.
"""
from __future__ import annotations

import io
from argparse import Namespace
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

from datasets.ground_truth import GroundTruth
from datasets.splits import read_split, split_path
from evaluation.test_set import read_test_image
from metrics.depth import DISTANCE_STEP, depths_at, errors_by_distance, evaluated_mask
from metrics.intervals import LEVEL, Interval
from prediction.write import BRIGHTEST
from runtime.errors import DataError
from runtime.files import write_atomically

IMAGES, BY_DISTANCE = "figure_images.png", "figure_error_by_distance.png"
EPOCHS = "figure_error_by_epoch.png"
ROWS = ("input", "prediction", "ground truth", "error")
NEARNESS, ERROR = "magma", "RdYlBu_r"  # colours: near is bright; blue is right, red is wrong
NO_VALUE = "0.5"   # grey, which neither of them has
WORST_ERROR = 0.4  # |prediction - truth| / truth from which on all is the same red
DPI = 150
POINT = 5          # pixels of the figure that a point of the ground truth is wide
LETTERS = 10       # of a title, to an inch
# Inches: the width of a picture's place, between two of them and around all, the bars' width
PANEL, GAP, LEFT, RIGHT, TOP, BOTTOM, BAR = 5.5, 0.1, 0.4, 1.1, 0.7, 0.2, 0.18
PANEL_SHAPES = 0.3, 0.8  # least and largest height by width of that place


class Example(NamedTuple):
    """An evaluated image, as `draw_examples` shows it.

    Attributes:
        title: why it is shown.
        line: its split line.
        image: (H, W, 3) uint8 RGB, None where there is none.
        disp: (h, w) predicted, 1 / metres.
        gt: (H, W) metres, 0 = none.
        error: (H, W) |prediction - truth| / truth, NaN where it is not evaluated.
    """

    title: str
    line: str
    image: np.ndarray | None
    disp: np.ndarray
    gt: np.ndarray
    error: np.ndarray


def save_figures(opts: Namespace, folder: Path, disps: np.ndarray, truth: GroundTruth,
                 abs_rel: np.ndarray) -> None:
    """Write the figures of an evaluation; images that are not there are named, and left out.

    Args:
        opts: of the evaluation.
        folder: where they go.
        disps: (N, h, w) predicted, 1 / metres.
        truth: N maps in metres, and which of their pixels count.
        abs_rel: (N,) errors of the images.

    Raises:
        DataError: a figure cannot be written.
    """
    gt_depths, eigen, _ = truth
    depths = (depths_at(gt, disp, evaluated_mask(gt, eigen), median_scaling=False)[:2]
              for gt, disp in zip(gt_depths, disps, strict=True))
    save_figure(draw_by_distance(*errors_by_distance(depths)), folder / BY_DISTANCE)
    lines = read_split(split_path(opts.eval_split, "test_files.txt"))
    examples, missing = [], []
    for name, i in choose(abs_rel).items():
        gt, image = gt_depths[i], None
        try:
            image = read_test_image(opts, i, *gt.shape)
        except DataError as error:
            missing.append(error)
        examples.append(Example(f"{name}: abs_rel {abs_rel[i]:.3f}", lines[i], image, disps[i], gt,
                                error_map(gt, disps[i], evaluated_mask(gt, eigen))))
    if missing:
        print(f"warning: {IMAGES} is without {len(missing)} of {len(examples)} input images: "
              f"{missing[0]}")
    save_figure(draw_examples(examples), folder / IMAGES)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, and say so.

    Raises:
        DataError: it cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi="figure")
    write_atomically(path, content.getvalue())
    print(f"wrote {path}")


def choose(abs_rel: np.ndarray) -> dict[str, int]:
    """Return the indices of the best, the median and the worst of N images, fewer if N is less."""
    names = ("best", "median", "worst") if len(abs_rel) > 2 else ("best", "worst")[:len(abs_rel)]
    places = np.linspace(0, len(abs_rel) - 1, len(names)).astype(int)
    return dict(zip(names, np.argsort(abs_rel, kind="stable")[places].tolist(), strict=True))


def error_map(gt: np.ndarray, disp: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return |prediction - truth| / truth.

    Args:
        gt: (H, W) metres.
        disp: (h, w) predicted, 1 / metres.
        mask: (H, W) bool, the pixels that count; at least one.

    Returns:
        (H, W), NaN where the mask is false.
    """
    true, predicted, _ = depths_at(gt, disp, mask, median_scaling=False)
    errors = np.full(gt.shape, np.nan)
    errors[mask] = abs(true - predicted) / true
    return errors


def spread(gt: np.ndarray, values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Show values at sparse points, each as wide as `POINT`; where two overlap, the nearer stays.

    Args:
        gt: (H, W) metres.
        values: (H, W), NaN where there is no point.
        height: of the result, in pixels.
        width: the same.

    Returns:
        (height, width), NaN where there is no point.
    """
    rows, columns = np.nonzero(~np.isnan(values))
    far_to_near = np.argsort(-gt[rows, columns], kind="stable")
    rows, columns = rows[far_to_near], columns[far_to_near]
    order = np.full((height, width), -1.0)  # of the nearest point in each pixel: the last written
    order[_centres(rows, gt.shape[0], height), _centres(columns, gt.shape[1], width)] = np.arange(
        len(rows))
    size = max(POINT, -(-height // gt.shape[0]), -(-width // gt.shape[1])) | 1  # odd: it is centred
    order = cv2.dilate(order, np.ones((size, size), np.uint8))
    shown = np.append(values[rows, columns], np.nan)  # -1 is the last
    return shown[order.astype(int)]


def _centres(pixels: np.ndarray, size: int, new_size: int) -> np.ndarray:
    return ((pixels + 0.5) * new_size / size).astype(int)


def draw_examples(examples: Sequence[Example]) -> Figure:
    """Return a figure with a column for each example: input, prediction, ground truth, error."""
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
    """Return a figure and its (4, columns) axes, whose sizes in inches are fixed."""
    rows = len(ROWS)
    width = LEFT + columns * (PANEL + GAP) - GAP + RIGHT
    height = TOP + rows * (panel_height + GAP) - GAP + BOTTOM
    figure = Figure((width, height), dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw={
        "left": LEFT / width, "right": 1 - RIGHT / width, "wspace": GAP / PANEL,
        "bottom": BOTTOM / height, "top": 1 - TOP / height, "hspace": GAP / panel_height})


def _add_bar(figure: Figure, beside: Sequence[Axes], colours: ScalarMappable,
             label: str) -> Colorbar:
    """Add a scale of colours to the right of axes that stand below each other."""
    above, below = (ax.get_position(original=True) for ax in (beside[0], beside[-1]))
    width = figure.get_figwidth()
    cax = figure.add_axes((above.x1 + GAP / width, below.y0, BAR / width, above.y1 - below.y0))
    bar = figure.colorbar(colours, cax=cax, extend="max")
    bar.set_label(label, fontsize=13)
    return bar


def _draw_column(column: Sequence[Axes], example: Example, colours: dict[str, Normalize]) -> None:
    """Draw an example's four pictures below each other, under its title."""
    height, width = example.gt.shape
    place = column[0].bbox  # in pixels
    scale = min(place.height / height, place.width / width)
    pixels = max(1, round(scale * height)), max(1, round(scale * width))
    depth = spread(example.gt, np.where(example.gt > 0, example.gt, np.nan), *pixels)
    pictures = ((example.image, None, "antialiased"), (example.disp, NEARNESS, "bilinear"),
                (1 / depth, NEARNESS, "nearest"),
                (spread(example.gt, example.error, *pixels), ERROR, "nearest"))
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
    """Return a figure of abs_rel, and of the numbers of pixels, by the true distance.

    Args:
        abs_rel: (9,), NaN where there is no pixel, as `errors_by_distance` returns it.
        counts: (9,) pixels.
    """
    names = [f"{i * DISTANCE_STEP:g}-{(i + 1) * DISTANCE_STEP:g}" for i in range(len(counts) - 1)]
    bins = len(counts) if counts[-1] else len(counts) - 1  # velodyne scans are cut off at 80 m
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
    below.set_yscale("symlog", linthresh=1)  # a logarithm that has 0
    below.set(xlabel="true distance (m)", ylabel="pixels")
    for ax in (above, below):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def draw_epochs(found: dict[int, dict[str, Interval]]) -> Figure:
    """Return a figure of abs_rel and a1 of a run's epochs, with their intervals.

    Args:
        found: of each epoch, the mean of each error over the test images.
    """
    figure = Figure((11, 7), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    epochs = list(found)
    for ax, name in ((above, "abs_rel"), (below, "a1")):
        mean, low, high = ([getattr(errors[name], part) for errors in found.values()]
                           for part in ("mean", "low", "high"))
        ax.fill_between(epochs, low, high, color="tab:blue", alpha=0.2, linewidth=0)
        ax.plot(epochs, mean, "o-", color="tab:blue")
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    above.set_title(f"Error on the test images after each epoch, with {LEVEL:.0%} intervals over "
                    "images\nChoosing an epoch by its test error is not a result: it would have "
                    "been trained on the test images.\nReport the last epoch, or choose by "
                    "validation images.")
    figure.align_ylabels()
    below.set_xlabel("epoch (of weights_<epoch>)")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
