"""networks/learned_intrinsics.py: one K per camera, flips, scales, and the focal length found."""
import numpy as np
import pytest
import torch
from recipe import training_batch

from datasets.augment import flip
from layers import transformation_from_parameters
from losses import ReprojectionObjective
from networks import Monodepth2
from networks.learned_intrinsics import LearnedIntrinsics
from runtime.errors import UsageError
from synthetic.street import Drive

HEIGHT, WIDTH, START = 64, 192, 0.7
FRAMES = 40, 62  # one in a turn to the right, one in a turn to the left


def learned(cameras=("a", "b")):
    """Return intrinsics that differ from camera to camera."""
    intrinsics = LearnedIntrinsics(cameras)
    with torch.no_grad():
        intrinsics.focal.copy_(torch.tensor([[0.01], [-0.02]]))
        intrinsics.centre.copy_(torch.tensor([[0.05, 0.01], [-0.03, 0.02]]))
    return intrinsics


def inputs_of(cameras):
    return training_batch([0, 1], len(cameras)) | {"camera": torch.tensor(cameras)}


def test_intrinsics_start_as_those_of_the_inputs():
    inputs = flip(inputs_of([0, 1]), torch.tensor([True, False]))
    table, _, _ = LearnedIntrinsics(["a", "b"])(inputs, {})
    for key, matrix in table.items():
        torch.testing.assert_close(matrix, inputs[key])
    assert table.keys() == {(name, s) for name in ("K", "inv_K") for s in range(4)}


def test_scales_and_inverses_agree():
    inputs = flip(inputs_of([0, 1]), torch.tensor([True, False]))
    table, _, _ = learned()(inputs, {})
    for s in range(4):
        torch.testing.assert_close(table["K", s] @ table["inv_K", s], torch.eye(4).expand(2, 4, 4))
        torch.testing.assert_close(table["K", s][:, :2] * 2**s, table["K", 0][:, :2])


def test_a_flip_mirrors_the_learned_centre():
    inputs = inputs_of([0, 1])
    plain, _, _ = learned().eval()(inputs, {})
    mirrored, _, _ = learned()(flip(inputs, torch.tensor([True, True])), {})
    for s in range(4):
        expected = plain["K", s].clone()
        expected[:, 0, 2] = 96 // 2**s - expected[:, 0, 2]
        torch.testing.assert_close(mirrored["K", s], expected)


def test_an_unknown_camera_has_the_mean_of_the_others():
    one, other, mean = learned().eval()(inputs_of([0, 1, 2]), {})[0]["K", 0]
    torch.testing.assert_close(mean[:2, 2], (one + other)[:2, 2] / 2)
    torch.testing.assert_close(mean[0, 0], (one * other)[0, 0].sqrt())


def test_samples_that_do_not_tell_their_flip_are_refused():
    with pytest.raises(UsageError, match="mirrored"):
        LearnedIntrinsics(["a"])(inputs_of([0]), {})


def test_a_model_without_the_flag_ignores_the_camera():
    model = Monodepth2(18, frame_ids=[0, 1, "s"]).eval()
    inputs = training_batch([0, 1, "s"]) | {"camera": torch.tensor([0, 0])}
    with torch.no_grad():
        outputs = model(inputs)
        assert not {key for key in outputs if key[0] in ("K", "inv_K")}
        model.intrinsics = LearnedIntrinsics(["a"]).eval()
        for key, value in model(inputs).items():  # nothing has been learned so far
            torch.testing.assert_close(value, {**inputs, **outputs}[key], rtol=0, atol=1e-6)


def motions_of(street):
    """Return the true axis-angles and translations (B, 1, 3), frame to next, at `START` x focal."""
    angles, shifts = [], []
    for frame in FRAMES:
        T = np.linalg.inv(street.pose(frame + 1)) @ street.pose(frame)
        vector = np.array([T[2, 1] - T[1, 2], T[0, 2] - T[2, 0], T[1, 0] - T[0, 1]]) / 2
        angles.append(vector / [START, START, 1])
        shifts.append(T[:3, 3] / [START, START, 1])
    return [torch.tensor(np.array(x)[:, None], dtype=torch.float32, requires_grad=True)
            for x in (angles, shifts)]


def test_turns_tell_the_focal_length_together_with_the_motion():
    street = Drive(0, 70, turns=True)
    views = [[street.render(frame + f, "l", HEIGHT, WIDTH) for frame in FRAMES] for f in (0, 1)]
    depth = torch.from_numpy(np.stack([depth for _, depth in views[0]]))[:, None].clamp(max=100)
    inputs = training_batch([0], 2, HEIGHT, WIDTH) | {"camera": torch.tensor([0, 0])}
    for f in (0, 1):
        images = np.stack([image for image, _ in views[f]])
        inputs["color", f, 0] = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    inputs["K", 0][:, [0, 1], [0, 1]] *= START
    inputs["inv_K", 0] = torch.linalg.inv(inputs["K", 0])
    objective = ReprojectionObjective([0, 1], [0], disparity_smoothness=0, automasking=False)
    disp = {("disp", 0): (1 / depth - 1 / 100) / (1 / 0.1 - 1 / 100)}
    intrinsics = LearnedIntrinsics(["a"]).eval()
    angles, shifts = motions_of(street)
    optimizer = torch.optim.Adam([{"params": intrinsics.parameters(), "lr": 3e-4},
                                  {"params": [angles], "lr": 1e-3},
                                  {"params": [shifts], "lr": 1e-2}])
    for _ in range(300):
        table, poses, _ = intrinsics(inputs, {1: (angles, shifts)})
        outputs = disp | table | {("cam_T_cam", 0, 1): transformation_from_parameters(*poses[1])}
        loss = objective(inputs, outputs)[0]["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert intrinsics.changes()[0][0] * START == pytest.approx(1, abs=0.03)
