"""Measure errors of depth and of trajectories, by pure functions of arrays."""
from metrics.depth import (
    DEPTH_METRICS,
    STEREO_SCALE_FACTOR,
    batch_post_process_disparity,
    compute_errors,
)
from metrics.intervals import Interval, bootstrap
from metrics.trajectory import compute_ate, dump_xyz, score_trajectory

__all__ = ["DEPTH_METRICS", "STEREO_SCALE_FACTOR", "Interval", "batch_post_process_disparity",
           "bootstrap", "compute_ate", "compute_errors", "dump_xyz",
           "score_trajectory"]
