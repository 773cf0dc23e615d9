"""Flags of training and evaluation: Monodepth2's names and defaults, and checks of their values."""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
SIZE_STEP = 32  # the encoder halves the image five times
MIN_SIZE = 64   # the coarsest map is padded by reflection, for which it needs two pixels
MIN_DEPTH, MAX_DEPTH = 0.1, 100.0  # what disparity 1 and 0 mean, in the network's unit of length
WORKERS = min(12, os.cpu_count() or 1)  # 12 are the original's, on any machine
RESUME_ALWAYS, RESUME_AUTO = "always", "auto"
TRAIN, DEPTH, POSE = "train", "evaluate_depth", "evaluate_pose"


def positive(kind: type) -> Callable[[str], int | float]:
    """Return an argparse type: a number of `kind` that is larger than 0, and no infinity."""
    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not larger than 0, as it must be")
        return value
    parse.__name__ = f"positive {kind.__name__}"
    return parse


def network_size(size: float) -> int:
    """Return the width or height nearest to `size` that the networks take."""
    return max(MIN_SIZE, round(size / SIZE_STEP) * SIZE_STEP)


def natural(text: str) -> int:
    """Return the whole number, 0 or more, that `text` is: an argparse type."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0, which it must not be")
    return value


natural.__name__ = "whole number"  # so argparse says what it expected


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the list of all flags."""

    def error(self, message: str):
        """End the program with status 2 and the message."""
        self.exit(2, f"{self.prog}: error: {message} (-h shows the flags)\n")


class MonodepthOptions:
    """The command line of `script`: "train", "evaluate_depth" or "evaluate_pose".

    Every script accepts every flag, as Monodepth2 does; its -h shows the groups it uses.
    """

    def __init__(self, script: str = TRAIN):
        self.script = script
        self.parser = OneLineParser(
            description={TRAIN: "Train depth from video or stereo pairs.",
                         DEPTH: "Evaluate depth against ground truth.",
                         POSE: "Evaluate odometry: the 5-frame error, trajectories."}[script])
        for add_group in (self._data, self._layout, self._model, self._training, self._safety,
                          self._depth_range,
                          self._ablations, self._system, self._speed, self._loading,
                          self._fine_tuning, self._logging, self._split, self._evaluation,
                          self._odometry):
            add_group()

    def parse(self, args: list[str] | None = None) -> argparse.Namespace:
        """Return the options; a wrong one ends the program with status 2 and a line that says why.

        Args:
            args: the words of a command line (default: this program's own).
        """
        opts = self.parser.parse_args(args)
        {TRAIN: self._check_training, DEPTH: self._check_depth, POSE: self._check_pose}[
            self.script](opts)
        return opts

    def used(self, opts: argparse.Namespace) -> dict:
        """Return those of the options that the script uses: the flags that its -h shows."""
        shown = {action.dest for action in self.parser._actions
                 if action.help is not argparse.SUPPRESS}
        return {name: value for name, value in vars(opts).items() if name in shown}

    def _group(self, title: str, description: str, *scripts: str):
        """Return an `add_argument` whose flags only these scripts show."""
        if self.script in scripts:
            return self.parser.add_argument_group(title, description).add_argument

        def add(flag: str, **kwargs):
            self.parser.add_argument(flag, **{**kwargs, "help": argparse.SUPPRESS})
        return add

    def _data(self):
        add = self._group("data", "where the images are", TRAIN, DEPTH, POSE)
        add("--data_path", default=str(PROJECT / "kitti_data"), help="KITTI's folder (%(default)s)")
        add("--png", action="store_true", help="read .png, as KITTI ships (default: .jpg)")

    def _layout(self):
        add = self._group("layout", "how the images lie there", TRAIN, DEPTH)
        add("--dataset", default="kitti",
            help="kitti, kitti_odom, kitti_depth, kitti_test, kitti_2015, folder (footage of your "
                 "own), or one you added (%(default)s)")

    def _model(self):
        add = self._group("model", "what is trained, and on which images", TRAIN)
        add("--model_name", default="mdp", help="folder below --log_dir (%(default)s)")
        add("--log_dir", default=str(Path.home() / "tmp"), help="weights and logs (%(default)s)")
        add("--split", default="eigen_zhou",
            help="a folder of splits/, or a path to one: its train_files.txt and val_files.txt "
                 "(%(default)s)")
        add("--num_layers", type=int, default=18,
            help="of the ResNets: 18, 34, 50, 101 or 152 (%(default)s)")
        add("--height", type=int, default=192, help="of the input (%(default)s)")
        add("--width", type=int, default=640, help="of the input (%(default)s)")
        add("--scales", nargs="+", type=int, default=[0, 1, 2, 3],
            help="scales in the loss (0 1 2 3)")
        add("--frame_ids", nargs="+", type=int, default=[0, -1, 1],
            help="target frame 0, then its source frames (0 -1 1)")
        add("--use_stereo", action="store_true", help="the other view is a source frame too")
        add("--disparity_smoothness", type=float, default=1e-3,
            help="weight of the smoothness (%(default)s)")

    def _training(self):
        add = self._group("optimization", "how long and how fast", TRAIN)
        add("--learning_rate", type=positive(float), default=1e-4, help="of Adam (%(default)s)")
        add("--num_epochs", type=positive(int), default=20, help="(%(default)s)")
        add("--scheduler_step_size", type=positive(int), default=15,
            help="epochs until the rate drops to a tenth (%(default)s)")
        add("--accumulate", type=positive(int), default=1,
            help="batches whose gradients make one step (%(default)s)")
        add("--sync_batchnorm", action="store_true",
            help="with torchrun: batch norm over the batches of all GPUs, not of each")
        add("--seed", type=natural, help="of every random draw (default: drawn, and printed)")
        add("--deterministic", action="store_true",
            help="two runs of one seed are equal bit for bit on a CPU; on a GPU PyTorch comes as "
                 "near as it can, and warns of the rest")

    def _safety(self):
        add = self._group("safety", "what outlives a killed run, and what ends one", TRAIN)
        add("--resume", nargs="?", const=RESUME_ALWAYS, choices=[RESUME_ALWAYS, RESUME_AUTO],
            help="go on from the last training state of --model_name; auto: begin where there is "
                 "none")
        add("--overwrite", action="store_true",
            help="delete an earlier run of the same --model_name when this one begins")
        add("--save_every", type=positive(int), metavar="STEPS",
            help="save the training state so often, besides after each epoch")
        add("--keep", type=positive(int), default=2, metavar="LAST",
            help="training states to keep, the last ones; weights are always kept (%(default)s)")
        add("--max_bad_samples", type=natural, default=0, metavar="N",
            help="replace samples that cannot be read by one of their N nearest neighbours, until "
                 "more than N different faults were found (%(default)s)")

    def _depth_range(self):
        add = self._group("depth range", "what disparity 1 and 0 mean", TRAIN, DEPTH)
        for name, usual in (("min", MIN_DEPTH), ("max", MAX_DEPTH)):
            from_weights = self.script == DEPTH  # which say what they were trained with
            add(f"--{name}_depth", type=positive(float), default=None if from_weights else usual,
                help="(that of training)" if from_weights else "(%(default)s)")

    def _ablations(self):
        add = self._group("ablations", "each switches off one contribution of the paper", TRAIN)
        add("--v1_multiscale", action="store_true",
            help="compare images at each disparity's own size (default: at full size)")
        add("--avg_reprojection", action="store_true",
            help="average the error over source frames (default: per-pixel minimum)")
        add("--disable_automasking", action="store_true",
            help="count pixels that do not move between frames")
        add("--predictive_mask", action="store_true",
            help="learn a mask, as SfMLearner does (needs --disable_automasking)")
        add("--no_ssim", action="store_true", help="compare intensities only")
        add("--weights_init", default="pretrained", choices=["pretrained", "scratch"],
            help="encoders start from ImageNet's weights, or from nothing (%(default)s)")
        add("--pose_model_input", default="pairs", choices=["pairs", "all"],
            help="frames that the pose network sees at once (%(default)s)")
        add("--pose_model_type", default="separate_resnet",
            choices=["separate_resnet", "posecnn", "shared"], help="(%(default)s)")

    def _system(self):
        add = self._group("system", "what it runs on", TRAIN, DEPTH, POSE)
        add("--batch_size", type=positive(int), default=12, help="(%(default)s)")
        add("--num_workers", type=int, default=WORKERS,
            help="processes that read images (%(default)s: 12, or as many as there are cores)")
        add("--no_cuda", action="store_true", help="use the CPU even where there is a GPU")

    def _speed(self):
        add = self._group("speed", "nothing here changes what is learned, but for rounding", TRAIN)
        add("--precision", default="fp32", choices=["fp32", "bf16", "fp16"],
            help="of the networks; geometry and loss stay float32 (%(default)s)")
        add("--compile", action="store_true",
            help="compile what the machine gains from: a minute or two at the start")
        add("--cache_dir",
            help="keep frames there at training size, so that each file is decoded once")
        add("--profile", type=int, default=0, metavar="STEPS",
            help="record so many steps, print where their time went, write a Chrome trace")

    def _loading(self):
        add = self._group("loading", "weights to begin with", TRAIN, DEPTH, POSE)
        add("--load_weights_folder", help="a weights_<epoch> folder, or a published model's")

    def _fine_tuning(self):
        add = self._group("fine-tuning", "which of those weights", TRAIN)
        add("--models_to_load", nargs="+", default=["encoder", "depth", "pose_encoder", "pose"],
            choices=["encoder", "depth", "pose_encoder", "pose", "predictive_mask"],
            help="(encoder depth pose_encoder pose)")

    def _logging(self):
        add = self._group("logging", "how often", TRAIN)
        add("--log_frequency", type=positive(int), default=250,
            help="steps between logs (%(default)s)")
        add("--save_frequency", type=positive(int), default=1,
            help="epochs between saves (%(default)s)")

    def _split(self):
        add = self._group("evaluation", "what to compare with", DEPTH, POSE)
        add("--eval_split", default="eigen",
            help="odom_00 to odom_10, or a path to a list of frames" if self.script == POSE else
            "eigen, eigen_benchmark, benchmark, or a path to a split folder, with test_files.txt "
            "and ground truth: gt_depths.npz, or gt_depths/ of 16-bit PNGs (%(default)s)")
        add("--eval_out_dir", help="folder for what is written (default: the weights folder)")

    def _evaluation(self):
        add = self._group("depth evaluation", "how", DEPTH)
        add("--eval_mono", action="store_true", help="scale each prediction by the median")
        add("--eval_stereo", action="store_true",
            help="scale all predictions by 5.4, or by the weights' own baseline / 0.1")
        add("--disable_median_scaling", action="store_true", help="with --eval_mono: do not scale")
        add("--pred_depth_scale_factor", type=positive(float), default=1.0,
            help="multiply predictions by this first (%(default)s)")
        add("--ext_disp_to_eval", help="evaluate this .npy of scaled disparities instead")
        add("--eval_eigen_to_benchmark", action="store_true",
            help="--ext_disp_to_eval has the eigen split's images, evaluate on eigen_benchmark's")
        add("--post_process", action="store_true",
            help="average with the prediction for the flipped image")
        add("--save_pred_disps", action="store_true", help="write disps_<split>_split.npy")
        add("--no_eval", action="store_true", help="predict only")
        add("--save_figures", action="store_true",
            help="write figure_images.png and figure_error_by_distance.png")
        add("--edges", action="store_true",
            help="also the errors at depth edges, where ground truth is dense")
        add("--gt_disparity", metavar="FOLDER",
            help="ground truth is disparity: 16-bit PNGs, as KITTI 2015's disp_occ_0")
        add("--eval_all", metavar="RUN_FOLDER",
            help="evaluate every weights_<epoch> of a run; draws the error over epochs")
        add("--compare", nargs=2, metavar=("A.json", "B.json"),
            help="print the differences of two results.json (or of the folders that they are in)")

    def _odometry(self):
        add = self._group("odometry", "which trajectory, and how it is compared", POSE)
        add("--sequences", nargs="+", type=natural, metavar="N",
            help="evaluate all of these, as in --sequences 09 10 (instead of --eval_split)")
        add("--ext_poses_to_eval", metavar="FILE",
            help="evaluate this trajectory instead: 12 numbers a line, or the frame and 12")
        add("--alignment", choices=["none", "scale", "6dof", "7dof"], default="7dof",
            help="what is fitted before the whole trajectory is compared: none (first poses meet), "
                 "scale, 6dof (rotation, shift), 7dof (rotation, shift, scale) (%(default)s)")

    def _check_training(self, opts: argparse.Namespace):
        error = self.parser.error
        for name in ("height", "width"):
            size = getattr(opts, name)
            if size != network_size(size):
                error(f"--{name} is {size}; it must be a multiple of {SIZE_STEP}, from {MIN_SIZE} "
                      f"on, for example --{name} {network_size(size)}")
        if opts.frame_ids[0] != 0 or len(set(opts.frame_ids)) < len(opts.frame_ids):
            error(f"--frame_ids is {_words(opts.frame_ids)}; it must start with 0, the target, "
                  "and name each source frame once, for example --frame_ids 0 -1 1")
        if opts.frame_ids == [0] and not opts.use_stereo:
            error("--frame_ids 0 leaves no source frame to learn from; "
                  "add --use_stereo, or source frames as in --frame_ids 0 -1 1")
        if 0 not in opts.scales or not set(opts.scales) <= {0, 1, 2, 3} or len(
                set(opts.scales)) < len(opts.scales):
            error(f"--scales is {_words(opts.scales)}; it must have 0, which evaluation reads, "
                  "and each of 1 2 3 at most once")
        if opts.predictive_mask and not opts.disable_automasking:
            error("--predictive_mask replaces automasking; add --disable_automasking")
        if opts.profile < 0:
            error(f"--profile is {opts.profile}; give the number of steps to record")
        if opts.resume and opts.overwrite:
            error("--resume goes on with a run that --overwrite deletes; leave one out")
        if opts.dataset in ("kitti_test", "kitti_2015"):
            error(f"--dataset {opts.dataset} has no neighbouring frames to train on; choose kitti, "
                  "kitti_odom or kitti_depth")
        self._check_common(opts)

    def _check_depth(self, opts: argparse.Namespace):
        error = self.parser.error
        if opts.compare:
            return
        if opts.eval_mono == opts.eval_stereo:
            error(f"{'both' if opts.eval_mono else 'neither'} of --eval_mono and --eval_stereo "
                  "given; choose --eval_mono (median scaling) or --eval_stereo (metres, x 5.4)")
        if [opts.load_weights_folder, opts.ext_disp_to_eval, opts.eval_all].count(None) != 2:
            error("give one of --load_weights_folder (predict), --ext_disp_to_eval (a .npy of "
                  "disparities) and --eval_all (each weights folder of a run)")
        if opts.eval_eigen_to_benchmark and not (
                opts.ext_disp_to_eval and Path(opts.eval_split).name == "eigen_benchmark"):
            error("--eval_eigen_to_benchmark goes with --ext_disp_to_eval FILE and "
                  "--eval_split eigen_benchmark")
        if opts.no_eval and not opts.save_pred_disps:
            error("--no_eval leaves nothing to do; add --save_pred_disps, or leave it out")
        if opts.save_figures and (opts.no_eval or Path(opts.eval_split).name == "benchmark"):
            error("--save_figures shows errors; leave out --no_eval, and choose an --eval_split "
                  "that has ground truth here, as eigen has")
        if (opts.eval_all or opts.gt_disparity) and (
                opts.no_eval or Path(opts.eval_split).name == "benchmark"):
            error(f"{'--eval_all' if opts.eval_all else '--gt_disparity'} asks for errors; leave "
                  "out --no_eval, and choose an --eval_split that has ground truth here")
        if opts.ext_disp_to_eval and opts.save_pred_disps:
            error("--save_pred_disps saves predictions, and --ext_disp_to_eval makes none; "
                  "leave one out")
        if opts.eval_split.startswith("odom_"):
            error(f"--eval_split {opts.eval_split} is odometry's; run evaluate_pose.py")
        self._check_common(opts)

    def _check_pose(self, opts: argparse.Namespace):
        error = self.parser.error
        if opts.load_weights_folder is None and opts.ext_poses_to_eval is None:
            error("--load_weights_folder is missing; give a weights_<epoch> folder, or a "
                  "trajectory with --ext_poses_to_eval")
        if opts.load_weights_folder and opts.ext_poses_to_eval:
            error("--load_weights_folder predicts what --ext_poses_to_eval brings; leave one out")
        if opts.sequences and opts.eval_split != self.parser.get_default("eval_split"):
            error("--sequences and --eval_split both say what to evaluate; leave one out")
        if opts.ext_poses_to_eval and len(opts.sequences or [0]) > 1:
            error("--ext_poses_to_eval is a trajectory of one sequence; give one of --sequences")
        if not opts.sequences and opts.eval_split in ("eigen", "eigen_benchmark", "benchmark"):
            error(f"--eval_split {opts.eval_split} is depth's; give odom_9, odom_10, or a path to "
                  "a list of frames, or --sequences 09 10")
        self._check_common(opts)

    def _check_common(self, opts: argparse.Namespace):
        if None not in (opts.min_depth, opts.max_depth) and opts.min_depth >= opts.max_depth:
            self.parser.error(f"--min_depth {opts.min_depth} is not below "
                              f"--max_depth {opts.max_depth}")
        if opts.num_workers < 0:
            self.parser.error(f"--num_workers is {opts.num_workers}; it must be 0 or more")


def _words(values: list) -> str:
    return " ".join(map(str, values))
