"""Measure the errors of predicted disparities, image by image, against their ground truth."""
from __future__ import annotations

import numpy as np

from datasets.ground_truth import GroundTruth
from evaluation.results import PIXELS, RATIO, SHIFT
from metrics.boundaries import boundary_f1
from metrics.breakdown import breakdown, edge_errors, edge_mask, surface_mask
from metrics.clouds import back_project, cloud_errors, normal_angle
from metrics.depth import DEPTH_METRICS, MAX_DEPTH, compute_errors, depths_at, evaluated_mask
from runtime.errors import DataError, counted


def check_edges(truth: GroundTruth) -> None:
    """Raise a DataError if no image has dense ground truth with an edge."""
    if not any((edge_mask(gt) & evaluated_mask(gt, truth.eigen)).any() for gt in truth.depths):
        raise DataError("--edges needs dense ground truth, and no image has 3 x 3 pixels of depth "
                        "with an edge among them; scans have gaps: leave --edges out")


def measure_errors(disps: np.ndarray, gt_depths: list[np.ndarray], *, eigen: bool = True,
                   scale_factor: float = 1.0, alignment: str = "median",
                   max_depth: float = MAX_DEPTH, edges: bool = False,
                   cameras: list[np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Measure the paper's errors and the errors of `breakdown` for each image.

    Args:
        disps: (N, h, w) scaled disparities.
        gt_depths: N maps (H, W), metres, 0 = no ground truth.
        eigen: evaluate only Eigen's crop and 1e-3 to 80 m, as on the eigen split.
        scale_factor: multiplies the predicted depth.
        alignment: of each predicted depth with its ground truth afterwards, one of `ALIGNMENTS`.
        max_depth: metres that the aligned depth is limited to.
        edges: also measure the errors at depth edges, and the boundary F1.
        cameras: N normalised K, with which point clouds and normals are compared too.

    Returns:
        (N,) values by name, NaN if an image has no value; the paper's seven errors, the scale and
        the shift of the alignment and the number of pixels always have a value.

    Raises:
        DataError: the numbers of maps differ, or an image has no evaluated pixel.
    """
    if len(disps) != len(gt_depths):
        raise DataError(f"{counted(len(disps), 'prediction')} for "
                        f"{counted(len(gt_depths), 'ground truth')}; run "
                        "export_gt_depth.py for the same split")
    rows = []
    for i, (disp, gt_map) in enumerate(zip(disps, gt_depths, strict=True)):
        mask = evaluated_mask(gt_map, eigen)
        if not mask.any():
            raise DataError(f"ground truth {i} has no depth where it is evaluated; export it "
                            "again, or look at its mask in --mask_dir")
        gt, pred, fit = depths_at(gt_map, disp, mask, scale_factor, alignment, max_depth)
        row = dict(zip(DEPTH_METRICS, compute_errors(gt, pred), strict=True))
        row |= breakdown(gt, pred, max_depth)
        if edges:
            is_edge = edge_mask(gt_map)[mask]
            row |= edge_errors(is_edge, gt, pred)
            # also in a scan, a few neighbours have depth by chance
            row["boundary_f1"] = (
                boundary_f1(*maps_of(mask, gt, pred)) if is_edge.any() else float("nan"))
        if cameras:
            row |= measure_points(*maps_of(mask, gt, pred), cameras[i])
        rows.append(row | {RATIO: fit.scale, SHIFT: fit.shift, PIXELS: len(gt)})
    return {name: np.array([row[name] for row in rows], int if name == PIXELS else float)
            for name in rows[0]}


def maps_of(mask: np.ndarray, gt: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Return the true and the predicted depth (N,) as maps (2, H, W), 0 where `mask` is false."""
    maps = np.zeros((2, *mask.shape))
    maps[:, mask] = gt, pred
    return maps


def measure_points(gt: np.ndarray, pred: np.ndarray, K: np.ndarray) -> dict[str, float]:
    """Measure the errors of point clouds and of surface normals of an image.

    Args:
        gt: (H, W) true depth, metres, 0 where it is not evaluated.
        pred: (H, W) predicted depth, metres.
        K: normalised intrinsics.
    """
    points = [back_project(depth, K) for depth in (gt, pred)]
    clouds = cloud_errors(*(each[gt > 0] for each in points))
    return clouds | {"normal_angle": normal_angle(*points, surface_mask(gt))}
