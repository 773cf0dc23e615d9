"""Compare recorded speeds with the motion in the images, in words and as a figure."""
from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WEAK = 0.3  # correlation of distance and optical flow; below it, something is wrong
SIZE, DPI = (9.6, 2.4), 100  # of the figure, inches and pixels an inch
DISTANCE, FLOW = "tab:blue", "tab:orange"


def describe_speeds(distances: np.ndarray, flows: np.ndarray) -> str:
    """Return a line on the distances between frames, and whether images move alike.

    Args:
        distances: (N,) metres from frame 0 to the first source frame.
        flows: (N,) mean optical flow between the same frames, pixels.
    """
    found = (f"speed: {distances.min():.2f} to {distances.max():.2f} m between frames, "
             f"{distances.mean():.2f} on average")
    if len(distances) < 3 or np.ptp(distances) == 0 or np.ptp(flows) == 0:
        return f"{found}; constant, so nothing shows whether speeds and images belong together"
    correlation = np.corrcoef(distances, flows)[0, 1]
    advice = "" if correlation > WEAK else (
        ". Look at the figure: speeds that belong to the images rise and fall with their flow; a "
        "shift in time, or another unit, would show")
    return f"{found}; correlation with optical flow {correlation:.2f}{advice}"


def draw_speeds(distances: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """Draw distances and optical flows over the samples, (H, W, 3) uint8.

    Args:
        distances: (N,) metres.
        flows: (N,) pixels.
    """
    figure = Figure(SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.plot(distances, color=DISTANCE)
    axes.set_xlabel("measured sample")
    axes.set_ylabel("metres between frames", color=DISTANCE)
    flow = axes.twinx()
    flow.plot(flows, color=FLOW)
    flow.set_ylabel("optical flow, pixels", color=FLOW)
    for axis in (axes, flow):
        axis.set_ylim(bottom=0)
    axes.margins(x=0.01)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
