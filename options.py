"""Define the flags of training and evaluation, with Monodepth2's names and defaults."""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from runtime.arguments import OneLineParser, non_negative_int, path, positive, weight
from runtime.flag_rules import check_depth_flags, check_pose_flags
from runtime.hub import find_weights

PROJECT = Path(__file__).resolve().parent
SIZE_STEP = 32  # the encoder halves the image five times
MIN_SIZE = 64   # reflection padding of the coarsest map needs two pixels
MIN_DEPTH, MAX_DEPTH = 0.1, 100.0  # depth at disparity 1 and 0, in the network's unit of length
NOMINAL_BASELINE = 0.1  # baseline of every stereo pair, in the network's unit of length
WORKERS = min(12, os.cpu_count() or 1)  # the original uses 12 on every machine
LOG_DIR = Path("~/tmp")  # no str: argparse would expand it, even where no script needs it
RESUME_ALWAYS, RESUME_AUTO = "always", "auto"
TRAIN, DEPTH, POSE = "train", "evaluate_depth", "evaluate_pose"
ALIGNMENTS = {DEPTH: ["median", "none", "scale", "affine_depth", "affine_disparity"],
              POSE: ["none", "scale", "6dof", "7dof"]}  # two flags of one name


def nearest_input_size(size: float) -> int:
    """Return the width or height nearest to `size` that the networks accept."""
    return max(MIN_SIZE, round(size / SIZE_STEP) * SIZE_STEP)


def input_size(text: str) -> int:
    """Return a width or a height that the networks accept, as a type for argparse."""
    size = int(text) if text.isdecimal() else 0
    if size != nearest_input_size(size):
        raise argparse.ArgumentTypeError(f"{text} is no multiple of {SIZE_STEP} from {MIN_SIZE} "
                                         f"on; choose {nearest_input_size(size)}")
    return size


class MonodepthOptions:
    """Parse the flags of a script: "train", "evaluate_depth" or "evaluate_pose".

    Every script accepts every flag, as in Monodepth2; -h shows only the flags that it uses.
    """

    def __init__(self, script: str = TRAIN):
        self.script = script
        self.parser = OneLineParser(
            description={TRAIN: "Train depth from video or stereo pairs.",
                         DEPTH: "Evaluate depth against ground truth.",
                         POSE: "Evaluate odometry: 5-frame errors and trajectories."}[script])
        for add_group in (self._data, self._layout, self._model, self._training,
                          self._checkpointing, self._depth_range, self._ablations, self._system,
                          self._speed, self._loading, self._fine_tuning, self._logging, self._split,
                          self._evaluation, self._odometry):
            add_group()

    def parse(self, argv: list[str] | None = None) -> argparse.Namespace:
        """Return the flags; a wrong flag ends the program with status 2 and a line that says why.

        Args:
            argv: words of a command line (default: this program's own).
        """
        return self.complete(self.parser.parse_args(argv))

    def complete(self, opts: argparse.Namespace) -> argparse.Namespace:
        """Return checked flags, with this script's defaults for the flags that `opts` lacks.

        Training and evaluation call it, so that they take flags that another script parsed, that a
        notebook changed, or that an opt.json of Monodepth2 holds. A wrong flag ends the program, as
        in `parse`.
        """
        opts = self.parser.parse_args([], argparse.Namespace(**vars(opts)))
        is_chosen = opts.eval_mono or opts.eval_stereo
        if self.script == DEPTH and is_chosen and opts.alignment == "7dof":
            opts.alignment = None  # odometry's former default, in the opt.json of earlier versions
        self._expand_paths(opts)
        if self.script == TRAIN:
            self._check_training(opts)
        elif self.script == DEPTH:
            check_depth_flags(opts, self.parser.error)
        else:
            check_pose_flags(opts, self.parser.get_default("eval_split"), self.parser.error)
        self._check_common(opts)
        if opts.load_weights_folder:  # last: a wrong flag is answered before a download
            opts.load_weights_folder = str(find_weights(opts.load_weights_folder))
        return opts

    def _expand_paths(self, opts: argparse.Namespace):
        """Apply `path` to the flags of this script, which a notebook may have set."""
        for action in self.parser._actions:
            value = getattr(opts, action.dest, None)
            if action.type is path and value is not None and action.help != argparse.SUPPRESS:
                try:
                    setattr(opts, action.dest, [path(each) for each in value]
                            if isinstance(value, list) else path(value))
                except argparse.ArgumentTypeError as error:
                    self.parser.error(f"argument {action.option_strings[0]}: {error}")

    def used(self, opts: argparse.Namespace) -> dict:
        """Return the flags that the script uses, which its -h shows, and their values."""
        shown = {action.dest for action in self.parser._actions
                 if action.help is not argparse.SUPPRESS}
        return {name: value for name, value in vars(opts).items() if name in shown}

    def _group(self, title: str, description: str, *scripts: str) -> Callable:
        """Return an `add_argument` for a group of flags that only `scripts` show in -h."""
        if self.script in scripts:
            return self.parser.add_argument_group(title, description).add_argument

        def add(flag: str, **kwargs):
            self.parser.add_argument(flag, **{**kwargs, "help": argparse.SUPPRESS})
        return add

    def _data(self):
        add = self._group("data", "location of the images", TRAIN, DEPTH, POSE)
        add("--data_path", type=path, default=str(PROJECT / "kitti_data"),
            help="folder of the dataset (%(default)s)")
        add("--png", action="store_true", help="read .png files, as KITTI ships (default: .jpg)")

    def _layout(self):
        add = self._group("layout", "arrangement of the files", TRAIN, DEPTH)
        add("--dataset", default="kitti",
            help="kitti, kitti_odom, kitti_depth, kitti_test, kitti_2015, folder (your own "
                 "images), or a dataset that you added (%(default)s)")
        add("--mask_dir", type=path,
            help="folder of PNGs, laid out as --data_path, that are 0 where an image is left out "
                 "of the loss and of the errors")

    def _model(self):
        add = self._group("model", "networks, input and loss", TRAIN)
        add("--model_name", type=path, default="mdp",
            help="name of the run: its folder below --log_dir (%(default)s)")
        add("--log_dir", type=path, default=LOG_DIR,
            help="folder for weights and logs (%(default)s)")
        add("--split", type=path, default="eigen_zhou",
            help="folder with train_files.txt and val_files.txt: a name in splits/, or a path "
                 "(%(default)s)")
        add("--num_layers", type=int, default=18,
            help="layers of the ResNet encoders: 18, 34, 50, 101 or 152 (%(default)s)")
        add("--encoder", type=path, metavar="NAME|FILE.py:FACTORY",
            help="depth encoder: resnet18 to resnet152, a network of timm, or your own class "
                 "(default: the ResNet of --num_layers)")
        add("--pose_encoder", type=path, metavar="NAME|FILE.py:FACTORY",
            help="pose encoder (default: the ResNet of --num_layers)")
        add("--encoder_weights", type=path, metavar="FILE",
            help="ImageNet weights of --encoder, .pth or .safetensors (default: downloaded)")
        add("--height", type=int, default=192, help="height of the input images (%(default)s)")
        add("--width", type=int, default=640, help="width of the input images (%(default)s)")
        add("--scales", nargs="+", type=int, default=[0, 1, 2, 3],
            help="scales of the disparities in the loss (0 1 2 3)")
        add("--frame_ids", nargs="+", type=int, default=[0, -1, 1],
            help="target frame 0, then the source frames (0 -1 1)")
        add("--use_stereo", action="store_true",
            help="add the other view of the stereo pair to the source frames")
        add("--learn_intrinsics", action="store_true",
            help="learn the focal length and the centre of each folder's camera, starting from "
                 "those of the dataset")
        add("--disparity_smoothness", type=weight, default=1e-3,
            help="weight of the smoothness loss (%(default)s)")
        add("--velocity_weight", type=weight, default=0.0,
            help="weight of a loss that makes depth metric by the recorded speeds (%(default)s)")

    def _training(self):
        add = self._group("optimization", "epochs, learning rate, random seed", TRAIN)
        add("--learning_rate", type=positive(float), default=1e-4,
            help="learning rate of Adam (%(default)s)")
        add("--num_epochs", type=positive(int), default=20, help="epochs to train (%(default)s)")
        add("--scheduler_step_size", type=positive(int), default=15,
            help="epochs before the learning rate drops to a tenth (%(default)s)")
        add("--accumulate", type=positive(int), default=1,
            help="batches whose gradients are added up for one step (%(default)s)")
        add("--sync_batchnorm", action="store_true",
            help="with torchrun: compute batch norm over the batches of all GPUs together")
        add("--seed", type=non_negative_int,
            help="seed of all random numbers (default: drawn, and printed)")
        add("--deterministic", action="store_true",
            help="give the same bits for the same seed on a CPU; on a GPU, avoid operations that "
                 "depend on thread order where PyTorch can, and warn about the others")

    def _checkpointing(self):
        add = self._group("checkpointing and bad data",
                          "saving, resuming, and samples that cannot be read", TRAIN)
        add("--resume", nargs="?", const=RESUME_ALWAYS, choices=[RESUME_ALWAYS, RESUME_AUTO],
            help="continue from the last training state of --model_name; auto: start a new run if "
                 "there is no state")
        add("--overwrite", action="store_true",
            help="delete the earlier run with the same --model_name, and start a new one")
        add("--save_every", type=positive(int), metavar="STEPS",
            help="save the training state every so many steps, and after each epoch")
        add("--keep", type=positive(int), default=2, metavar="LAST",
            help="number of training states to keep; all weights are kept (%(default)s)")
        add("--max_bad_samples", type=non_negative_int, default=0, metavar="N",
            help="replace a sample that cannot be read by one of its N nearest neighbours; stop "
                 "after more than N different bad samples (%(default)s)")

    def _depth_range(self):
        add = self._group("depth range", "predicted depth, in the network's unit", TRAIN, DEPTH)
        for name, disp, usual in (("min", 1, MIN_DEPTH), ("max", 0, MAX_DEPTH)):
            from_weights = self.script == DEPTH  # the weights folder stores the range of training
            add(f"--{name}_depth", type=positive(float), default=None if from_weights else usual,
                help=f"depth at disparity {disp} "
                     f"({'the value used in training' if from_weights else '%(default)s'})")

    def _ablations(self):
        add = self._group("ablations", "each flag replaces one contribution of the paper", TRAIN)
        add("--v1_multiscale", action="store_true",
            help="compare images at the size of each disparity (default: at full size)")
        add("--avg_reprojection", action="store_true",
            help="average the error over the source frames (default: minimum of each pixel)")
        add("--disable_automasking", action="store_true",
            help="keep pixels that do not move between frames in the loss")
        add("--predictive_mask", action="store_true",
            help="learn a mask as in SfMLearner (needs --disable_automasking)")
        add("--no_ssim", action="store_true", help="use the L1 error alone, without SSIM")
        add("--weights_init", default="pretrained", choices=["pretrained", "scratch"],
            help="start the encoders from ImageNet's weights or from random weights (%(default)s)")
        add("--pose_model_input", default="pairs", choices=["pairs", "all"],
            help="frames that the pose network takes at once (%(default)s)")
        add("--pose_model_type", default="separate_resnet",
            choices=["separate_resnet", "posecnn", "shared"],
            help="kind of pose network; shared uses the depth encoder (%(default)s)")

    def _system(self):
        add = self._group("system", "batch size, processes and device", TRAIN, DEPTH, POSE)
        add("--batch_size", type=positive(int), default=12, help="samples in a batch (%(default)s)")
        add("--num_workers", type=int, default=WORKERS,
            help="processes that read images (%(default)s: 12, or the number of cores if smaller)")
        add("--no_cuda", action="store_true", help="use the CPU even if there is a GPU")

    def _speed(self):
        add = self._group("speed", "results stay the same up to rounding", TRAIN)
        add("--precision", default="fp32", choices=["fp32", "bf16", "fp16"],
            help="precision of the networks; geometry and loss stay in float32 (%(default)s)")
        add("--compile", nargs="?", const="on", default="auto", choices=["auto", "on", "off"],
            help="compile the parts that become faster; the first step takes a minute or two "
            "(auto: in runs that are long enough)")
        add("--cache_dir", type=path,
            help="folder for resized frames, so that each image file is decoded only once")
        add("--profile", type=int, default=0, metavar="STEPS",
            help="record some steps, print the slowest operations, and write a Chrome trace")

    def _loading(self):
        add = self._group("loading", "weights to start from", TRAIN, DEPTH, POSE)
        add("--load_weights_folder", type=path,
            help="a weights_<epoch> folder, that of a published model, or hf:user/name")

    def _fine_tuning(self):
        add = self._group("fine-tuning", "networks to load from --load_weights_folder", TRAIN)
        add("--models_to_load", nargs="+", default=["encoder", "depth", "pose_encoder", "pose"],
            choices=["encoder", "depth", "pose_encoder", "pose", "predictive_mask"],
            help="(encoder depth pose_encoder pose)")

    def _logging(self):
        add = self._group("logging", "how often to log and to save weights", TRAIN)
        add("--log_frequency", type=positive(int), default=250,
            help="steps between logs (%(default)s)")
        add("--save_frequency", type=positive(int), default=1,
            help="epochs between weights folders (%(default)s)")

    def _split(self):
        add = self._group("evaluation", "test frames, alignment and output folder", DEPTH, POSE)
        add("--eval_split", type=path, default="eigen",
            help="odom_00 to odom_10, or a path to a list of frames" if self.script == POSE else
            "eigen, eigen_benchmark, benchmark, make3d, or a path to a split folder with "
            "test_files.txt and ground truth: gt_depths.npz, or gt_depths/ with 16-bit PNGs "
            "(%(default)s)")
        add("--alignment", choices=ALIGNMENTS.get(self.script),
            help="fit to the true trajectory before comparing: none (first poses agree), scale, "
            "6dof (rotation, shift), 7dof (rotation, shift, scale) (7dof)" if self.script == POSE
            else "instead of --eval_mono (median) and --eval_stereo: fit each prediction to its "
            "ground truth; scale, affine_depth (scale and shift) and affine_disparity by least "
            "squares")
        add("--eval_out_dir", type=path,
            help="folder for the results (default: the weights folder)")

    def _evaluation(self):
        add = self._group("depth evaluation", "scaling, ground truth and output", DEPTH)
        add("--eval_mono", action="store_true", help="scale each prediction by the median")
        add("--eval_stereo", action="store_true",
            help="scale all predictions by 5.4, or by the stereo baseline of the weights / 0.1")
        add("--disable_median_scaling", action="store_true",
            help="with --eval_mono: leave predictions unscaled")
        add("--pred_depth_scale_factor", type=positive(float), default=1.0,
            help="factor for all predictions, before any other scaling (%(default)s)")
        add("--ext_disp_to_eval", type=path,
            help="evaluate the scaled disparities of this file or folder instead")
        add("--eval_eigen_to_benchmark", action="store_true",
            help="pick the eigen_benchmark images from an --ext_disp_to_eval of the eigen split")
        add("--post_process", action="store_true",
            help="average each prediction with the prediction of the mirrored image")
        add("--save_pred_disps", action="store_true", help="write disps_<split>_split.npy")
        add("--no_eval", action="store_true", help="predict only")
        add("--save_figures", action="store_true",
            help="draw the best, the median and the worst image, and the error by distance")
        add("--report", action="store_true",
            help="draw the figures, and write one HTML page with results, figures and origin")
        add("--edges", action="store_true",
            help="print errors at depth edges and the boundary F1 too (needs dense ground truth)")
        add("--clouds", action="store_true",
            help="print errors of point clouds and normals too, with the K of --dataset")
        add("--corruptions", nargs="*", metavar="NAME",
            help="measure errors on corrupted images, and robustness: names such as fog snow; "
                 "without names, all 18 of KITTI-C")
        add("--severities", nargs="+", type=int, choices=range(1, 6),
            help="of --corruptions (1 2 3 4 5)")
        add("--robustness_baseline", type=path, metavar="FILE",
            help="with --corruptions: robustness_<split>_<alignment>.json of another network, to "
                 "which the mCE compares")
        add("--temporal", type=path, metavar="FILE|predicted",
            help="print how consistent the depth of consecutive images is, along the true poses of "
                 "a trajectory, or along those of the pose network")
        add("--gt_disparity", type=path, metavar="FOLDER",
            help="read ground truth disparity from 16-bit PNGs, such as KITTI 2015's disp_occ_0")
        add("--eval_all", type=path, metavar="RUN_FOLDER",
            help="evaluate every weights_<epoch> of a run, and plot the error over the epochs")
        add("--check_leak", type=path, metavar="LIST",
            help="count the images of --eval_split that training on this list, or split, reads; "
                 "with the --dataset of that training")
        add("--compare", type=path, nargs=2, metavar=("A.json", "B.json"),
            help="print the differences of two results files (or of their folders)")

    def _odometry(self):
        add = self._group("odometry", "sequences and trajectories", POSE)
        add("--sequences", nargs="+", type=non_negative_int, metavar="N",
            help="sequences to evaluate, as in --sequences 09 10 (instead of --eval_split)")
        add("--ext_poses_to_eval", type=path, metavar="FILE",
            help="evaluate this trajectory instead: 12 numbers a line, a frame and 12, or TUM's 8")

    def _check_training(self, opts: argparse.Namespace):
        error = self.parser.error
        for name in ("height", "width"):
            size = getattr(opts, name)
            if size != nearest_input_size(size):
                error(f"--{name} is {size}; it must be a multiple of {SIZE_STEP}, from {MIN_SIZE} "
                      f"on, for example --{name} {nearest_input_size(size)}")
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
        if opts.velocity_weight and (opts.use_stereo or opts.frame_ids == [0]):
            error("--velocity_weight gives the frames of a video their metres; leave out "
                  "--use_stereo, whose baseline gives them too")
        if opts.learn_intrinsics and opts.frame_ids == [0]:
            error("--learn_intrinsics learns from turns of the camera, and --frame_ids 0 has no "
                  "motion; add frames in time, as in --frame_ids 0 -1 1")
        if opts.predictive_mask and not opts.disable_automasking:
            error("--predictive_mask replaces automasking; add --disable_automasking")
        if not opts.model_name.strip():
            error("--model_name is empty; give the run a name")
        if opts.profile < 0:
            error(f"--profile is {opts.profile}; give the number of steps to record")
        if opts.resume and opts.overwrite:
            error("--resume goes on with a run that --overwrite deletes; leave one out")
        if opts.dataset in ("kitti_test", "kitti_2015", "make3d"):
            error(f"--dataset {opts.dataset} has no neighbouring frames to train on; choose kitti, "
                  "kitti_odom or kitti_depth")

    def _check_common(self, opts: argparse.Namespace):
        choices = ALIGNMENTS.get(self.script)
        if choices and opts.alignment not in (None, *choices):
            self.parser.error(f"--alignment is {opts.alignment}, of another script; choose from "
                              f"{_words(choices)}")
        if None not in (opts.min_depth, opts.max_depth) and opts.min_depth >= opts.max_depth:
            self.parser.error(f"--min_depth {opts.min_depth} is not below "
                              f"--max_depth {opts.max_depth}")
        if opts.num_workers < 0:
            self.parser.error(f"--num_workers is {opts.num_workers}; it must be 0 or more")


def _words(values: list) -> str:
    return " ".join(map(str, values))
