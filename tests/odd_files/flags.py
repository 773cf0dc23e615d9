"""Flags that make no sense."""
from __future__ import annotations

from pathlib import Path

from tests.odd_files.situation import Situation, base

TRAIN = ("train --data_path {base}/drive --split {base}/few --height 64 --width 96 --num_epochs 1 "
         "--weights_init scratch --num_workers 0 --no_cuda --batch_size 2 --log_dir log ")
DEPTH = ("evaluate_depth --eval_mono --data_path {base}/drive --eval_split {base}/split "
         "--num_workers 0 --eval_out_dir out --load_weights_folder {base}/w ")
POSE = "evaluate_pose --data_path {base}/drive --sequences 9 --load_weights_folder {base}/wp "
SIMPLE = ("test_simple --image_path {base}/picture.png --load_weights_folder {base}/w "
          "--output_dir out ")
VIDEO = "prepare_data video --out out "
CHECK = "prepare_data check --data_path {base}/drive --split {base}/drive/splits/drive "


def flag(command: str, words: str, refused: str) -> Situation:
    script = command.partition(" --")[0].strip()
    return Situation(f"{script} {words}", command + words, refused=refused)


# command, flags, pattern of the refusal
ROWS = [
    (TRAIN, "--height 0", "--height is 0"),
    (TRAIN, "--height -64", "--height is -64"),
    (TRAIN, "--width 97", "--width is 97"),
    (TRAIN, "--height 64.0", "--height"),
    (TRAIN, "--batch_size -1", "--batch_size"),
    (TRAIN, "--batch_size 0", "--batch_size"),
    (TRAIN, "--batch_size 1.5", "--batch_size"),
    (TRAIN, "--frame_ids 1 2", "--frame_ids is 1 2"),
    (TRAIN, "--frame_ids 0 0", "--frame_ids is 0 0"),
    (TRAIN, "--frame_ids 0 -1 -1", "--frame_ids is 0 -1 -1"),
    (TRAIN, "--frame_ids 0", "--frame_ids 0"),
    (TRAIN, "--frame_ids 0 s", "--frame_ids"),
    (TRAIN, "--frame_ids 0 -900 900", "missing|900"),
    (TRAIN, "--frame_ids", "--frame_ids"),
    (TRAIN, "--scales 5", "--scales is 5"),
    (TRAIN, "--scales 1 2", "--scales is 1 2"),
    (TRAIN, "--scales 0 0", "--scales is 0 0"),
    (TRAIN, "--num_workers -3", "--num_workers is -3"),
    (TRAIN, "--learning_rate nan", "--learning_rate"),
    (TRAIN, "--learning_rate -1e-4", "--learning_rate"),
    (TRAIN, "--learning_rate 1e-4,", "--learning_rate"),
    (TRAIN, "--num_epochs 0", "--num_epochs"),
    (TRAIN, "--scheduler_step_size 0", "--scheduler_step_size"),
    (TRAIN, "--disparity_smoothness nan", "--disparity_smoothness"),
    (TRAIN, "--disparity_smoothness -1", "--disparity_smoothness"),
    (TRAIN, "--min_depth 0", "--min_depth"),
    (TRAIN, "--min_depth 100 --max_depth 0.1", "--min_depth 100"),
    (TRAIN, "--max_depth inf", "--max_depth"),
    (TRAIN, "--num_layers 19", "--num_layers.*19"),
    (TRAIN, "--num_layers -18", "--num_layers.*-18"),
    (TRAIN, "--seed -1", "--seed"),
    (TRAIN, "--seed 1e3", "--seed"),
    (TRAIN, "--profile -1", "--profile"),
    (TRAIN, "--save_every 0", "--save_every"),
    (TRAIN, "--predictive_mask", "--predictive_mask"),
    (TRAIN, "--dataset kittti", "--dataset kittti"),
    (TRAIN, "--split eigen_zuo", "eigen_zuo"),
    (TRAIN, "--model_name ''", "--model_name"),
    (TRAIN, "--model_name " + "n" * 300, "n{300}|long"),
    (TRAIN, "--log_dir {base}/picture.png", r"picture\.png"),
    (TRAIN, "--cache_dir {base}/picture.png", r"picture\.png"),
    (TRAIN, "--load_weights_folder ''", "load_weights_folder|nothing was loaded"),
    (TRAIN, "--resume --overwrite", "--resume.*--overwrite"),
    (TRAIN, "--resume", "mdp.*(resume|state)|--resume"),
    (TRAIN, "--precision fp8", "--precision"),
    (TRAIN, "--hieght 64", "--hieght"),
    (TRAIN, "extra", "extra"),
    (DEPTH, "--eval_stereo", "--eval_mono.*--eval_stereo"),
    (DEPTH, "--pred_depth_scale_factor nan", "--pred_depth_scale_factor"),
    (DEPTH, "--pred_depth_scale_factor 0", "--pred_depth_scale_factor"),
    (DEPTH, "--min_depth nan", "--min_depth"),
    (DEPTH, "--batch_size 0", "--batch_size"),
    (DEPTH, "--num_workers -1", "--num_workers is -1"),
    (DEPTH, "--data_path ''", "--data_path|missing"),
    (DEPTH, "--eval_out_dir {base}/picture.png", r"--eval_out_dir.*picture\.png"),
    (DEPTH, "--eval_out_dir {base}/picture.png/x", r"--eval_out_dir.*picture\.png"),
    (DEPTH, "--eval_split ''", "--eval_split|split"),
    (DEPTH, "--eval_split odom_9", "evaluate_pose"),
    (DEPTH, "--gt_disparity nowhere", "nowhere"),
    (DEPTH, "--edges --no_eval", "--no_eval"),
    (POSE, "--eval_split odom_9", "--sequences and --eval_split"),
    (POSE, "--sequences -1", "--sequences"),
    (POSE, "--sequences 99", r"99\.txt"),
    (POSE, "--sequences 99999999999999999999", "99999999999999999999"),
    (POSE, "--sequences nine", "--sequences"),
    (POSE, "--alignment 8dof", "--alignment"),
    (POSE, "--load_weights_folder {base}/w", r"pose\.pth"),
    (SIMPLE, "--disp_range 1 0", "--disp_range"),
    (SIMPLE, "--disp_range nan nan", "--disp_range"),
    (SIMPLE, "--scale 0", "--scale"),
    (SIMPLE, "--scale inf", "--scale"),
    (SIMPLE, "--scale_from {base}/picture.png", r"picture\.png"),
    (SIMPLE, "--max_frames 0", "--max_frames"),
    (SIMPLE, "--batch_size -1", "--batch_size"),
    (SIMPLE, "--colormap rainbow9", "--colormap"),
    (SIMPLE, "--min_depth 200", "--min_depth 200"),
    (SIMPLE, "--output_dir {base}/picture.png", r"--output_dir.*picture\.png"),
    (SIMPLE, "--ply --intrinsics nan 1 1 1", "--intrinsics"),
    (SIMPLE, "--ply --intrinsics -80 80 48 32", "--intrinsics"),
    (SIMPLE, "--ply --intrinsics 80 80 9999 32", "--intrinsics"),
    (SIMPLE, "--intrinsics 1 2 3", "--intrinsics"),
    (SIMPLE, "--model_name mono_640x192", "--model_name|--load_weights_folder"),
    (SIMPLE, "--image_path ''", "does not exist|--image_path|has no"),
    (SIMPLE, "--image_path 999", "webcam|999"),
    (VIDEO, "", "--left"),
    (VIDEO, "{base} --fov 180", "--fov is 180"),
    (VIDEO, "{base} --fov nan", "--fov"),
    (VIDEO, "{base} --fps 0", "--fps"),
    (VIDEO, "{base} --min_flow nan", "--min_flow"),
    (VIDEO, "{base} --size 100x100", "--size"),
    (VIDEO, "{base} --size 640", "--size"),
    (VIDEO, "{base} --size 64x-64", "--size"),
    (VIDEO, "{base} --baseline 0.5", "--baseline"),
    (VIDEO, "--left {base} --right {base} --baseline -1", "--baseline"),
    (CHECK, "--frame_ids 1 2", "--frame_ids is 1 2"),
    (CHECK, "--height 0", "--height"),
    (CHECK, "--num_workers -1", "--num_workers"),
    (CHECK, "--out {base}/picture.png/x.png --height 64 --width 96", r"x\.png|picture\.png"),
    ("export_gt_depth --data_path {base}/drive --split {base}/split ", "--num_workers -1",
     "--num_workers"),
    ("export_gt_depth --data_path nowhere ", "--split eigen", "nowhere"),
    ("export_onnx --load_weights_folder {base}/w ", "--opset 5", "--opset"),
    ("export_onnx ", "--load_weights_folder ''", r"encoder\.pth"),
    ("prepare_data ", "", "COMMAND"),
    ("prepare_data kitti ", "--data_path nowhere/x --split eigen_zuo", "eigen_zuo"),
]
SITUATIONS = [flag(*row) for row in ROWS]


def has_weights(_: object, __: str) -> bool:
    """Return whether a run wrote weights that can be read."""
    from checkpoints.architecture import load_model
    load_model("log/mdp/models/weights_0")
    return True


def with_nan() -> None:
    """Write weights of depth with a NaN."""
    from tests.odd_files.weights import folder, with_number
    folder(depth=with_number("decoder.0.conv.conv.bias", float("nan")))()
    for name in ("pose_encoder", "pose"):
        Path(f"m/{name}.pth").symlink_to(base() / f"wp/{name}.pth")


SITUATIONS += [
    Situation("train: a batch larger than the data", TRAIN + "--batch_size 999",
              refused="--batch_size", right=has_weights),
    Situation("train: --seed of 2^32", TRAIN + "--seed 4294967296",
              refused="--seed", right=has_weights),
    Situation("train: --seed of 23 digits", TRAIN + "--seed 99999999999999999999999",
              refused="--seed", right=has_weights),
    Situation("train: opt.json of an earlier run is broken", TRAIN + "--overwrite",
              lambda: [Path("log/mdp/models").mkdir(parents=True),
                       Path("log/mdp/models/opt.json").write_text("{")],
              "mdp", has_weights),
    Situation("train: --resume of a broken state", TRAIN + "--resume",
              lambda: [Path("log/mdp/states").mkdir(parents=True),
                       Path("log/mdp/states/state_00000003.pth").write_text("junk")], "mdp|state"),
    Situation("train: --load_weights_folder of a network with NaN",
              TRAIN + "--load_weights_folder m", with_nan, r"depth\.pth.*NaN"),
]
