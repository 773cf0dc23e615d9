"""Figures of robustness: one image under each corruption, and the error over the severity."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from datasets.corruptions import GROUPS
from evaluation.depth_figures import DPI

# file names; they take the name of the evaluation
SHEET, PLOT = "figure_corruptions_{}.png", "figure_robustness_{}.png"
SHEET_WIDTH, TITLE, GAP = 14.0, 0.28, 0.08  # inches: a sheet, a title, the gap between panels
SHEET_SHAPE = 0.4  # height / width that all images of a sheet together have, about


def draw_sheet(images: dict[str, np.ndarray], title: str) -> Figure:
    """Draw pictures of one size on a sheet, each below its name.

    Args:
        images: (H, W, 3) uint8 RGB by name.
        title: of the sheet.
    """
    height, width, _ = next(iter(images.values())).shape
    columns = max(1, round((len(images) * height / width / SHEET_SHAPE) ** 0.5))
    rows = -(-len(images) // columns)
    panel_width = (SHEET_WIDTH - GAP) / columns - GAP
    panel_height = panel_width * height / width
    sheet_height = 1.5 * TITLE + rows * (TITLE + panel_height + GAP)
    figure = Figure((SHEET_WIDTH, sheet_height), dpi=DPI)
    for i, (name, image) in enumerate(images.items()):
        left = GAP + i % columns * (panel_width + GAP)
        top = 1.5 * TITLE + i // columns * (TITLE + panel_height + GAP) + TITLE
        ax = figure.add_axes((left / SHEET_WIDTH, 1 - (top + panel_height) / sheet_height,
                              panel_width / SHEET_WIDTH, panel_height / sheet_height))
        ax.imshow(image)
        ax.set_title(name, fontsize=11, pad=3)
        ax.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=12, y=1 - 0.4 * TITLE / sheet_height, va="top")
    return figure


def draw_plot(dee: dict[str, np.ndarray], severities: Sequence[int], clean: float) -> Figure:
    """Draw the DEE over the severity: a panel for each group of corruptions.

    Args:
        dee: (S,) DEE by name of the corruption.
        severities: S severities.
        clean: DEE on the images as they are.
    """
    groups = {group: [name for name in names if name in dee] for group, names in GROUPS.items()}
    groups = {group: names for group, names in groups.items() if names}
    figure = Figure((1 + 4.7 * len(groups), 6.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for ax, (group, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            ax.plot(severities, dee[name], "o-", label=name)
        ax.axhline(clean, color="0.3", linestyle="--", label="as it is")
        ax.set(title=group, xlabel="severity", xticks=severities)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("DEE = (abs_rel - a1 + 1) / 2")
    axes[0].set_ylim(0)
    return figure
