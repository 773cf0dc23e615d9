"""Draw a trajectory: the true and the estimated path from above, and the error along the path.

A figure made without pyplot is drawn in memory, so no display is needed.
"""
from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from metrics.trajectory import Scores

DPI = 120
TRUE, ESTIMATED = "0.25", "tab:red"
# y points down; seen from above, x points right and z, the direction of the first camera, up
RIGHT, AHEAD = 0, 2


def trajectory_png(scores: Scores, title: str) -> bytes:
    """Return the content of a PNG of `draw_trajectory`."""
    content = io.BytesIO()
    draw_trajectory(scores, title).savefig(content, format="png", dpi="figure")
    return content.getvalue()


def draw_trajectory(scores: Scores, title: str) -> Figure:
    """Draw the true and the estimated path, and the error along the path.

    Args:
        scores: errors and aligned poses of the trajectory.
        title: names the trajectory.
    """
    figure = Figure((9, 11), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 1))
    true, own = scores.truth[:, :3, 3], scores.estimate[:, :3, 3]             # (N, 3)
    above.plot(true[:, RIGHT], true[:, AHEAD], color=TRUE, linestyle="--", label="true", zorder=3)
    above.plot(own[:, RIGHT], own[:, AHEAD], color=ESTIMATED,
               label=f"estimated, alignment: {scores.alignment}")
    above.plot(*true[0, [RIGHT, AHEAD]], "o", color=TRUE, label="start", zorder=3)
    errors = f"ATE {scores.ate:.3f} m"
    if np.isfinite(scores.t_err):
        errors += f", t_err {scores.t_err:.3f} %, r_err {scores.r_err:.3f} deg/100 m"
    above.set(xlabel="to the right (m)", ylabel="ahead, as the first camera looks (m)",
              title=f"{title}\n{errors}")
    above.set_aspect("equal", adjustable="datalim")
    above.grid(alpha=0.3)
    above.legend()
    steps = np.linalg.norm(np.diff(true, axis=0), axis=1)
    travelled = np.concatenate([[0], np.cumsum(steps)])
    below.plot(travelled, np.linalg.norm(true - own, axis=1), color=ESTIMATED)
    below.set(xlabel="travelled along the true path (m)", ylabel="error of the position (m)")
    below.set_ylim(bottom=0)
    below.margins(x=0.01)
    below.grid(alpha=0.3)
    return figure
