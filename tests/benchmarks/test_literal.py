"""Compare benchmarks.literal with the published figures, and the project's fast code with it."""
import re
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
import recipe
import torch
from conftest import HEIGHT, ROOT, SHARED, WIDTH, figures, needs_shared, train_flags
from PIL import Image

from benchmarks import literal
from checkpoints.weights import InputFormat, save_weights
from datasets import KITTIRAWDataset
from datasets.ground_truth import load_gt_depths
from kitti_utils import generate_depth_map
from layers import transformation_from_parameters
from losses import ReprojectionObjective
from networks import Monodepth2
from options import DEPTH, MonodepthOptions
from synthetic.render import HELD_OUT, TRAIN
from trainer import Trainer

RAW = SHARED / "real" / "kitti_raw"
REAL = "2011_09_26/2011_09_26_drive_0001_sync"
PARITY = figures("losses.json")
REAL_LINES = [f"{REAL} 2 l", f"{REAL} 3 r"]
FRAMES = [0, -1, 1, "s"]
BEYOND = ("predictive_mask", "posecnn")


def parsed(argv):
    """Parse training options for networks at the input size of the figures."""
    return MonodepthOptions().parse(["--height", "64", "--width", "96", "--batch_size", "2",
                                     "--weights_init", "scratch", *argv.split()])


@lru_cache
def published_outputs(frames, scales, pose_model_type, pose_model_input):
    """Return the batch of the published figures, and the networks' outputs for it."""
    model = Monodepth2(18, False, frames, scales, pose_model_type, pose_model_input).train()
    for tag, network in model.named_children():
        network.load_state_dict(recipe.filled_state_dict(network.state_dict(), tag))
    inputs = recipe.training_batch(frames)
    with torch.no_grad():
        return inputs, model(inputs)


@pytest.mark.parametrize("flags", [flags for flags in PARITY if flags not in (*BEYOND, "resnet50")])
def test_the_literal_losses_are_the_published_ones(flags):
    opts = parsed(PARITY[flags]["argv"])
    inputs, outputs = published_outputs((*opts.frame_ids, *["s"] * opts.use_stereo),
                                        tuple(opts.scales), opts.pose_model_type,
                                        opts.pose_model_input)
    losses = literal.literal_losses(inputs, outputs, opts, tie_noise=0)
    found = {name: loss.item() for name, loss in losses.items()}
    assert found == pytest.approx(PARITY[flags]["losses"], rel=1e-5)


@pytest.mark.parametrize("flags", BEYOND)
def test_the_literal_losses_refuse_unsupported_flags(flags):
    with pytest.raises(NotImplementedError, match="--p"):
        literal.literal_losses({}, {}, parsed(PARITY[flags]["argv"]))


def random_batch(opts):
    """Return inputs, and random disparities and small motions as leaf tensors."""
    frames = opts.frame_ids + ["s"] * opts.use_stereo
    inputs = recipe.training_batch(frames)
    outputs = {("disp", s): torch.rand(2, 1, 64 >> s, 96 >> s).requires_grad_()
               for s in opts.scales}
    for f in frames[1:]:
        T = transformation_from_parameters(0.02 * torch.randn(2, 1, 3), 0.1 * torch.randn(2, 1, 3))
        outputs["cam_T_cam", 0, f] = T.requires_grad_()
    return inputs, outputs


@pytest.mark.parametrize("argv", [
    "", "--use_stereo", "--use_stereo --frame_ids 0", "--v1_multiscale", "--avg_reprojection",
    "--disable_automasking", "--no_ssim", "--scales 0 2", "--scales 3 0 --frame_ids 0 1 -2",
    "--min_depth 0.5 --max_depth 20 --disparity_smoothness 0.1",
    "--v1_multiscale --disable_automasking --avg_reprojection --no_ssim --use_stereo"])
def test_the_objective_and_its_gradients_are_the_literal_ones(argv):
    opts = parsed(argv)
    inputs, outputs = random_batch(opts)
    objective = ReprojectionObjective(
        opts.frame_ids + ["s"] * opts.use_stereo, opts.scales, opts.min_depth, opts.max_depth,
        opts.disparity_smoothness, opts.v1_multiscale, opts.avg_reprojection,
        not opts.disable_automasking, ssim=not opts.no_ssim, tie_noise=0)
    expected = literal.literal_losses(inputs, outputs, opts, tie_noise=0)
    losses, _ = objective(inputs, outputs)
    for name, loss in expected.items():
        assert losses[name].item() == pytest.approx(loss.item(), rel=1e-5), name
    literal_gradients = torch.autograd.grad(expected["loss"], list(outputs.values()))
    gradients = torch.autograd.grad(losses["loss"], list(outputs.values()))
    for name, found, wanted in zip(outputs, gradients, literal_gradients, strict=True):
        assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-4), name
        # rounding may move a point across a pixel border, where the gradient jumps
        assert (found - wanted).norm() < 1e-2 * wanted.norm(), name


def test_the_literal_losses_have_tie_noise_by_default():
    opts = parsed("--scales 0")
    inputs, outputs = random_batch(opts)
    quiet, noisy = (literal.literal_losses(inputs, outputs, opts, **noise)["loss"].item()
                    for noise in ({"tie_noise": 0}, {}))
    assert quiet != noisy
    assert quiet == pytest.approx(noisy, abs=2e-5)


def assert_equal_but_for_rounding(found, expected):
    """Compare items or inputs: images in [0, 1] to 1/255, the rest to float32 rounding."""
    for key, value in found.items():
        assert value.shape == expected[key].shape, key
        if key[0].startswith("color"):
            assert (value - expected[key]).abs().max() < 1.001 / 255, key
        elif key == "depth_gt":  # nearest pixels; some lie halfway between two
            assert (value != expected[key]).float().mean() < 2e-3
        else:
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-6)


def assert_items_agree(data_path, lines, height, width, ext, is_train):
    """Compare the items of both loaders for the same lines."""
    plain = literal.LiteralDataset(data_path, lines, height, width, FRAMES, 4, False, ext)
    fast = KITTIRAWDataset(data_path, lines, height, width, FRAMES, 4, is_train, img_ext=ext)
    for i in range(len(lines)):
        item = dict(fast.load(i))
        colors = [key for key in item if key[0] == "color"]
        assert {("color", f, 0) for f in FRAMES} <= set(colors)
        assert {item[key].dtype for key in colors} == {torch.uint8}
        item.update({key: item[key] / 255 for key in colors})
        assert_equal_but_for_rounding(item, plain[i])
        rest = {key for key in plain[i] if not key[0].startswith("color")}
        rest -= {"depth_gt"} if is_train else set()
        assert rest == set(item) - set(colors)
        if not is_train:
            assert fast[i].keys() == plain[i].keys()
            assert_equal_but_for_rounding(fast[i], plain[i])


@pytest.mark.parametrize("is_train", [True, False])
def test_rendered_items_are_the_literal_ones(drive, is_train):
    # Faithful 4, 5, 6
    lines = [f"{TRAIN} 10 l", f"{TRAIN} 20 r"]
    assert_items_agree(drive, lines, HEIGHT, WIDTH, ".jpg", is_train)
    assert_items_agree(drive, lines, 32, 64, ".jpg", is_train)


@needs_shared
@pytest.mark.parametrize("is_train", [True, False])
def test_real_items_are_the_literal_ones(is_train):
    # Faithful 4, 5, 6
    assert_items_agree(RAW, REAL_LINES, 192, 640, ".png", is_train)


def assert_inputs_agree(data_path, line, folder, *flags):
    """Compare the literal item of a line with the inputs of the trainer's objective."""
    for name in ("train", "val"):
        (folder / f"{name}_files.txt").write_text(line + "\n")
    opts = parsed(" ".join(map(str, (
        "--use_stereo --batch_size 1 --num_workers 0 --no_cuda --data_path", data_path,
        "--split", folder, *flags))))
    trainer = Trainer(opts)
    (batch,) = trainer.val_loader
    inputs = trainer.augment.eval()(batch)
    item = literal.LiteralDataset(data_path, [line], opts.height, opts.width, FRAMES, 4, False,
                                  ".png" if opts.png else ".jpg")[0]
    frames_of = {s: FRAMES if s == 0 or opts.v1_multiscale else [0] for s in opts.scales}
    assert {("color", f, s) for s in opts.scales for f in frames_of[s]} <= set(inputs)
    assert {key for key in item if key[0] in ("K", "inv_K")} <= set(inputs)
    assert_equal_but_for_rounding({key: value[0] for key, value in inputs.items()}, item)


@pytest.mark.parametrize("flags", ["", "--v1_multiscale"])
def test_the_objectives_inputs_are_the_literal_item(drive, tmp_path, flags):
    # Faithful 4
    assert_inputs_agree(drive, f"{TRAIN} 20 r", tmp_path, flags)


@needs_shared
def test_the_objectives_inputs_of_real_frames_are_the_literal_item(tmp_path):
    # Faithful 4
    assert_inputs_agree(RAW, REAL_LINES[0], tmp_path, "--png --height 192 --width 640")


def test_a_literal_item_is_flipped_and_jittered_as_one(tmp_path):
    # Faithful 3, 6: all frames show the same picture, so that all results must be equal
    image = np.random.randint(0, 256, (64, 96, 3), np.uint8)
    for camera in (2, 3):
        folder = tmp_path / f"drive/image_0{camera}/data"
        folder.mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(image).save(folder / f"{frame:010d}.png")
    dataset = literal.LiteralDataset(tmp_path, ["drive 1 l"], 64, 96, [0, -1, 1, "s"], 2, True,
                                     ".png")
    original = torch.from_numpy(image).permute(2, 0, 1) / 255
    seen = []
    for _ in range(24):
        item = dataset[0]
        assert "depth_gt" not in item
        flipped = item["stereo_T"][0, 3] > 0
        for f in (0, -1, 1, "s"):
            assert torch.equal(item["color", f, 0], original.flip(2) if flipped else original)
            for s in range(2):
                assert torch.equal(item["color_aug", f, s], item["color_aug", 0, s])
        jittered = not torch.equal(item["color_aug", 0, 0], item["color", 0, 0])
        seen.append((bool(flipped), jittered))
    assert len(set(seen)) == 4


def assert_maps_agree(calib_dir, scan):
    """Compare the maps of both cameras and both kinds of depth; two rounded pixels may differ."""
    for cam in (2, 3):
        for vel_depth in (False, True):
            found = generate_depth_map(calib_dir, scan, cam, vel_depth)
            expected = literal.generate_depth_map(calib_dir, scan, cam, vel_depth)
            assert found.shape == expected.shape
            assert found.dtype == expected.dtype
            assert (expected > 0).any()
            assert (np.abs(found - expected) > 1e-5 * expected).sum() <= 2


def test_rendered_depth_maps_are_the_literal_ones(drive):
    # Faithful 14, 15
    assert_maps_agree((drive / TRAIN).parent, drive / TRAIN / "velodyne_points/data/0000000010.bin")


@needs_shared
def test_real_depth_maps_are_the_literal_ones():
    # Faithful 14, 15
    assert_maps_agree(RAW / "2011_09_26", RAW / REAL / "velodyne_points/data/0000000002.bin")


@needs_shared
def test_literal_depth_maps_are_the_published_ones():
    folder, frame, _ = figures("evaluate_real.json")["lines"][0].split()
    found = literal.generate_depth_map(RAW / "2011_09_26",
                                       RAW / folder / f"velodyne_points/data/{frame}.bin", 2, True)
    expected = np.load(SHARED / "parity" / "gt_depth_maps.npz")["map_0"]
    assert found.dtype == expected.dtype
    assert (found != expected).sum() <= 2


@pytest.fixture(scope="module")
def filled():
    """Build depth networks with the weights of the published figures."""
    model = Monodepth2(frame_ids=[0])
    for tag, network in (("encoder18", model.encoder), ("depth18", model.depth)):
        network.load_state_dict(recipe.filled_state_dict(network.state_dict(), tag))
    return model


def evaluation(folder, model, height, width, data_path, lines):
    """Write weights and a split; return flags to evaluate them."""
    save_weights(folder / "weights", model, torch.optim.Adam(model.parameters()),
                 InputFormat(height, width, True))
    (folder / "test_files.txt").write_text("\n".join(lines) + "\n")
    return [str(word) for word in ("--load_weights_folder", folder / "weights", "--eval_split",
                                   folder, "--data_path", data_path, "--num_workers", 0,
                                   "--no_cuda")]


def test_literal_evaluation_gives_the_projects_means(drive, tmp_path, filled, script):
    # Faithful 6, 14
    flags = evaluation(tmp_path, filled, HEIGHT, WIDTH, drive,
                       [f"{HELD_OUT} {i} l" for i in range(5, 9)])
    for mode in ("--eval_mono", "--eval_stereo"):
        found = literal.evaluate(MonodepthOptions(DEPTH).parse([*flags, mode]))
        printed = script("evaluate_depth", *flags, mode).out
        (row,) = [line for line in printed.splitlines() if line.startswith("&")]
        means = [float(number) for number in row.strip("&\\ ").split("&")]
        assert found == pytest.approx(means, abs=1e-3)


@needs_shared
def test_literal_evaluation_of_real_frames_gives_the_published_means(tmp_path, filled):
    expected = figures("evaluate_real.json")
    flags = evaluation(tmp_path, filled, 192, 640, RAW, expected["lines"])
    found = literal.evaluate(MonodepthOptions(DEPTH).parse([*flags, "--png", "--eval_mono"]))
    assert found == pytest.approx(expected["evaluate_depth"]["--eval_mono"]["metrics"], rel=1e-3)


def test_a_literal_epoch_trains_every_network(drive, capsys):
    opts = MonodepthOptions().parse(train_flags(drive, "--use_stereo", "--log_frequency", 2))
    torch.manual_seed(0)
    model = literal.train(opts)
    assert re.findall(r"step (\d+) loss 0\.\d{4} ", capsys.readouterr().out) == ["0", "2"]
    torch.manual_seed(0)
    before = Monodepth2(frame_ids=[0, -1, 1, "s"])
    for (name, network), (_, fresh) in zip(model.named_children(), before.named_children(),
                                           strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), fresh.parameters(),
                                                       strict=True)]
        assert any(moved), name


def test_the_script_exports_ground_truth_that_the_project_reads(drive, tmp_path):
    subprocess.run([sys.executable, ROOT / "benchmarks" / "literal.py", "export", "--data_path",
                    drive, "--split", drive / "splits" / "tiny", "--out", tmp_path / "gt.npz"],
                   cwd=tmp_path, check=True)
    maps = load_gt_depths(tmp_path / "gt.npz")
    assert len(maps) == 4
    for i, found in enumerate(maps, 5):
        expected = generate_depth_map((drive / HELD_OUT).parent, drive / HELD_OUT
                                      / f"velodyne_points/data/{i:010d}.bin", 2, True)
        assert (np.abs(found - expected) > 1e-5 * expected).sum() <= 2
