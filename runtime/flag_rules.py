"""Refuse flags of evaluation that make no sense together."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

NOT_WITH_CORRUPTIONS = ("ext_disp_to_eval", "eval_all", "no_eval", "save_pred_disps",
                        "save_figures", "report", "edges", "clouds", "temporal")
NOT_WITH_MAKE3D = ("gt_disparity", "mask_dir", "png")
WITH_CORRUPTIONS = ("severities", "robustness_baseline")
ASK_FOR_ERRORS = ("save_figures", "report", "eval_all", "gt_disparity", "mask_dir", "edges",
                  "clouds", "corruptions", "temporal")
PREDICTING = ("save_figures", "report", "edges", "clouds", "corruptions", "temporal")
PREDICTED = "predicted"  # value of --temporal: motions of the pose network


def check_depth_flags(opts: Namespace, error: Callable[[str], None]) -> None:
    """Call `error` with a line if flags of evaluate_depth.py exclude each other."""
    if opts.compare or opts.check_leak:
        if others := given(opts, PREDICTING):
            error(f"{others[0]} goes with a prediction, and --compare and --check_leak make none; "
                  "leave one out")
        return
    if opts.eval_mono == opts.eval_stereo and (opts.eval_mono or not opts.alignment):
        error(f"{'both' if opts.eval_mono else 'neither'} of --eval_mono and --eval_stereo "
              "given; choose --eval_mono (median scaling) or --eval_stereo (metres, x 5.4), "
              "or an --alignment")
    if opts.alignment and (opts.eval_mono or opts.eval_stereo or opts.disable_median_scaling):
        error(f"--alignment {opts.alignment} replaces --eval_mono (--alignment median), "
              "--disable_median_scaling (--alignment none) and --eval_stereo (a fixed factor); "
              "leave one out")
    if [opts.load_weights_folder, opts.ext_disp_to_eval, opts.eval_all].count(None) != 2:
        error("give one of --load_weights_folder (predict), --ext_disp_to_eval (given "
              "disparities) and --eval_all (each weights folder of a run)")
    if opts.eval_eigen_to_benchmark and not (
            opts.ext_disp_to_eval and Path(opts.eval_split).name == "eigen_benchmark"):
        error("--eval_eigen_to_benchmark goes with --ext_disp_to_eval FILE and "
              "--eval_split eigen_benchmark")
    if opts.no_eval and not opts.save_pred_disps:
        error("--no_eval leaves nothing to do; add --save_pred_disps, or leave it out")
    if opts.temporal == PREDICTED and opts.ext_disp_to_eval:
        error(f"--temporal {PREDICTED} asks the pose network of weights, and --ext_disp_to_eval "
              "has none; give true poses, --temporal FILE")
    if opts.eval_split == "make3d" and (others := given(opts, NOT_WITH_MAKE3D)):
        error("--eval_split make3d reads its own JPEG images and laser scans, 55 points high; "
              f"leave out {', '.join(others)}")
    if opts.corruptions is not None and (others := given(opts, NOT_WITH_CORRUPTIONS)):
        error("--corruptions predicts with --load_weights_folder, and writes files of its own; "
              f"leave out {', '.join(others)}")
    if opts.corruptions is None and (others := given(opts, WITH_CORRUPTIONS)):
        error(f"{others[0]} goes with --corruptions")
    asking = given(opts, ASK_FOR_ERRORS)
    if asking and (opts.no_eval or Path(opts.eval_split).name == "benchmark"):
        error(f"{asking[0]} asks for errors; leave out --no_eval, and choose an --eval_split that "
              "has ground truth here, as eigen has")
    if opts.ext_disp_to_eval and opts.save_pred_disps:
        error("--save_pred_disps saves predictions, but --ext_disp_to_eval reads them from a "
              "file; leave one out")
    if opts.eval_split.startswith("odom_"):
        error(f"--eval_split {opts.eval_split} is a split of odometry; run evaluate_pose.py")


def given(opts: Namespace, names: Iterable[str]) -> list[str]:
    """Return the given flags among these names, as a user types them: --name."""
    return [f"--{name}" for name in names if getattr(opts, name) not in (None, False)]


def check_pose_flags(opts: Namespace, default_split: str, error: Callable[[str], None]) -> None:
    """Call `error` with a line if flags of evaluate_pose.py exclude each other."""
    if opts.load_weights_folder is None and opts.ext_poses_to_eval is None:
        error("--load_weights_folder is missing; give a weights_<epoch> folder, or a "
              "trajectory with --ext_poses_to_eval")
    if opts.load_weights_folder and opts.ext_poses_to_eval:
        error("--load_weights_folder and --ext_poses_to_eval both give a trajectory; leave one "
              "out")
    if opts.sequences and opts.eval_split != default_split:
        error("--sequences and --eval_split both say what to evaluate; leave one out")
    if opts.ext_poses_to_eval and len(opts.sequences or [0]) > 1:
        error("--ext_poses_to_eval is a trajectory of one sequence; give one of --sequences")
    if not opts.sequences and opts.eval_split in ("eigen", "eigen_benchmark", "benchmark"):
        error("no sequence of odometry is named; give odom_9, odom_10, or a path to a list of "
              "frames with --eval_split, or --sequences 09 10")
