"""Check on a rendered drive that true depth and poses minimise the objective."""
import numpy as np
import pytest
import torch

from datasets import Augment, KITTIRAWDataset
from datasets.augment import flip
from layers import get_translation_matrix, rot_from_axisangle
from losses import ReprojectionObjective
from metrics.depth import STEREO_SCALE_FACTOR
from synthetic.render import TRAIN, write_drives
from synthetic.street import Drive

HEIGHT, WIDTH = 96, 320
FRAMES, SEED, MOVING, STATIC = 40, 3, 20, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("truth")
    write_drives(out / "drive", FRAMES, HEIGHT, WIDTH, SEED, workers=2)
    return out / "drive"


@pytest.fixture(scope="module")
def street():
    return Drive(2 * SEED, round(0.75 * FRAMES))


def true_outputs(street, frame, side, sources):
    """Compute the outputs of a perfect network, in units of a tenth of the stereo baseline."""
    _, depth = street.render(frame, side, HEIGHT, WIDTH)
    depth = torch.from_numpy(np.minimum(depth, 500)) / STEREO_SCALE_FACTOR
    outputs = {("disp", 0): ((1 / depth - 1 / 100) / (1 / 0.1 - 1 / 100))[None, None]}
    shift = np.eye(4)
    shift[0, 3] = 0.54 * (side == "r")
    for f in sources:
        T = np.linalg.inv(street.pose(frame + f) @ shift) @ street.pose(frame) @ shift
        T[:3, 3] /= STEREO_SCALE_FACTOR
        outputs["cam_T_cam", 0, f] = torch.from_numpy(T).float()[None]
    return outputs


def batch_of(folder, frame, side, frames):
    dataset = KITTIRAWDataset(folder, [f"{TRAIN} {frame} {side}"], HEIGHT, WIDTH, frames, 1,
                              is_train=True)
    batch = {key: value[None] for key, value in dataset.load(0).items()}
    return Augment("cpu", [0]).eval()(batch)


def objective(frames, inputs, outputs, **flags):
    outputs = dict(outputs)
    if "s" in frames:
        outputs["cam_T_cam", 0, "s"] = inputs["stereo_T"]
    losses, views = ReprojectionObjective(frames, [0], disparity_smoothness=0, **flags)(
        inputs, outputs)
    return losses["loss"].item(), views


def moved(outputs, f, T):
    return {**outputs, ("cam_T_cam", 0, f): T @ outputs["cam_T_cam", 0, f]}


def perturbed(outputs, sources):
    """Yield (name, outputs) with a small error in depth or in one pose."""
    disp, columns = outputs["disp", 0], torch.linspace(-1, 1, WIDTH)
    for name, factor in (("nearer", 1.2), ("farther", 0.8), ("right nearer", 1 + 0.2 * columns),
                         ("left nearer", 1 - 0.2 * columns)):
        yield name, {**outputs, ("disp", 0): (disp * factor).clamp(1e-4, 1)}
    for f in sources:
        for axis in range(3):
            for sign in (-1, 1):
                vec = torch.zeros(1, 1, 3)
                vec[0, 0, axis] = sign
                yield f"{f} turned about {axis}", moved(outputs, f, rot_from_axisangle(0.02 * vec))
                yield f"{f} shifted along {axis}", moved(
                    outputs, f, get_translation_matrix(0.03 * vec))
        T = outputs["cam_T_cam", 0, f]
        yield f"{f} inverted", {**outputs, ("cam_T_cam", 0, f): torch.linalg.inv(T)}


@pytest.mark.parametrize("side", ["l", "r"])
@pytest.mark.parametrize("source", [-1, 1])
def test_the_true_depth_and_pose_minimise_the_mono_objective(folder, street, side, source):
    inputs = batch_of(folder, MOVING, side, [0, source])
    truth = true_outputs(street, MOVING, side, [source])
    best, _ = objective([0, source], inputs, truth, automasking=False)
    for name, outputs in perturbed(truth, [source]):
        assert objective([0, source], inputs, outputs, automasking=False)[0] > 1.05 * best, name


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("side", ["l", "r"])
def test_the_true_depth_minimises_the_stereo_objective(folder, street, side,
                                                                         flipped):
    # Faithful 6: the baseline's sign is set by the side and by the flip
    inputs = batch_of(folder, MOVING, side, [0, "s"])
    truth = true_outputs(street, MOVING, side, [])
    if flipped:
        inputs = flip(inputs, torch.tensor([True]))
        truth = {("disp", 0): truth["disp", 0].flip(3)}
    best, _ = objective([0, "s"], inputs, truth, automasking=False)
    for name, outputs in perturbed(truth, []):
        assert objective([0, "s"], inputs, outputs, automasking=False)[0] > 1.05 * best, name
    wrong = {**inputs, "stereo_T": torch.linalg.inv(inputs["stereo_T"])}
    assert objective([0, "s"], wrong, truth, automasking=False)[0] > 1.5 * best


def test_the_true_depth_minimises_the_full_objective(folder, street):
    frames = [0, -1, 1, "s"]
    inputs = batch_of(folder, MOVING, "l", frames)
    truth = true_outputs(street, MOVING, "l", [-1, 1])
    best, views = objective(frames, inputs, truth)
    for name, outputs in perturbed(truth, []):
        assert objective(frames, inputs, outputs)[0] > best, name
    assert views["automask", 0].mean() > 0.7


def test_static_frames_are_masked_out(folder, street):
    inputs = batch_of(folder, STATIC, "l", [0, -1, 1])
    truth = true_outputs(street, STATIC, "l", [-1, 1])
    assert torch.equal(truth["cam_T_cam", 0, 1], truth["cam_T_cam", 0, -1])
    driving = true_outputs(street, MOVING, "l", [-1, 1])
    believed = {**truth, **{key: driving[key] for key in driving if key[0] == "cam_T_cam"}}
    _, views = objective([0, -1, 1], inputs, believed)
    assert views["automask", 0].mean() < 0.1
