"""Measure errors of depth and of trajectories, by pure functions of arrays."""
from metrics.depth import (
    DEPTH_METRICS,
    STEREO_SCALE_FACTOR,
    batch_post_process_disparity,
    compute_errors,
)

__all__ = ["DEPTH_METRICS", "STEREO_SCALE_FACTOR", "batch_post_process_disparity",
           "compute_errors"]
