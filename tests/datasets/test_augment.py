"""datasets/augment.py: one draw a sample, torchvision's operations, flips of what has a side."""
from itertools import permutations

import pytest
import torch
import torchvision.transforms.functional as TF
from torch.testing import assert_close

from datasets import augment
from datasets.augment import Augment, pack_matrices


def batch(size=64, frames=(0, -1, 1, "s")):
    """A batch in which all frames of a sample are the same image."""
    image = torch.randint(0, 256, (size, 3, 16, 24), dtype=torch.uint8)
    K = torch.tensor([[0.58 * 24, 0, 10.0, 0], [0, 1.92 * 16, 8, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    T = torch.eye(4).repeat(size, 1, 1)
    T[:, 0, 3] = -0.1
    return {**{("color", f, 0): image for f in frames}, "stereo_T": T,
            ("K", 0): K.repeat(size, 1, 1), ("inv_K", 0): torch.linalg.inv(K).repeat(size, 1, 1)}


@pytest.mark.parametrize(("operation", "torchvisions", "amount"), [
    (0, TF.adjust_brightness, 1.2), (0, TF.adjust_brightness, 0.8), (1, TF.adjust_contrast, 1.2),
    (1, TF.adjust_contrast, 0.8), (2, TF.adjust_saturation, 1.2), (2, TF.adjust_saturation, 0.8),
    (3, TF.adjust_hue, 0.1), (3, TF.adjust_hue, -0.1)])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_operations_are_torchvisions(operation, torchvisions, amount, order):
    images = torch.rand(2, 3, 3, 16, 24)
    images[0, 0, :, :2] = 0.5  # grey
    images[0, 0, :, 2] = 0
    amounts = torch.tensor([[1.0, 1, 1, 0]] * 2)
    amounts[:, operation] = amount
    found = augment.jitter(images, amounts, torch.tensor([order] * 2))
    expected = torch.stack([torch.stack([torchvisions(image, amount) for image in frames])
                            for frames in images])
    assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_operations_come_in_each_samples_own_order(order):
    images = torch.rand(2, 1, 3, 16, 24)
    amounts = torch.tensor([[1.2, 0.8, 1.2, 0.1]] * 2)
    found = augment.jitter(images, amounts, torch.tensor([order, [0, 1, 2, 3]]))
    steps = [lambda x: TF.adjust_brightness(x, 1.2), lambda x: TF.adjust_contrast(x, 0.8),
             lambda x: TF.adjust_saturation(x, 1.2), lambda x: TF.adjust_hue(x, 0.1)]
    for i, own in enumerate([order, [0, 1, 2, 3]]):
        expected = images[i, 0]
        for k in own:
            expected = steps[k](expected)
        assert_close(found[i, 0], expected, atol=1e-5, rtol=0)
    if order[:2] != (0, 1):
        other = augment.jitter(images, amounts, torch.tensor([[0, 1, 2, 3]] * 2))[0]
        assert (found[0] - other).abs().max() > 1e-3


def test_neutral_amounts_change_nothing():
    images = torch.rand(3, 2, 3, 8, 8)
    amounts, order = torch.tensor([[1.0, 1, 1, 0]] * 3), torch.tensor([[3, 2, 1, 0]] * 3)
    assert torch.equal(augment.jitter(images, amounts, order), images)


def test_all_frames_of_a_sample_share_one_draw():
    # Faithful 3: the common mistake in ports is a draw for each frame
    inputs = Augment("cpu", [0, -1, 1, "s"]).train()(batch())
    for f in (-1, 1, "s"):
        assert torch.equal(inputs["color_aug", f, 0], inputs["color_aug", 0, 0])
        assert torch.equal(inputs["color", f, 0], inputs["color", 0, 0])


def test_half_of_the_samples_are_jittered_and_half_are_flipped():
    # Faithful 3: 4000 draws, five standard deviations
    inputs = Augment("cpu", [0]).train()(batch(4000, [0]))
    jittered = (inputs["color_aug", 0, 0] != inputs["color", 0, 0]).flatten(1).any(1)
    flipped = inputs["stereo_T"][:, 0, 3] > 0
    assert abs(jittered.float().mean() - 0.5) < 0.04
    assert abs(flipped.float().mean() - 0.5) < 0.04
    assert abs((jittered & flipped).float().mean() - 0.25) < 0.035


def test_amounts_span_the_published_ranges_and_orders_are_all_drawn():
    # Faithful 3
    amounts, order = augment.draw_jitter(20000)
    low, high = amounts.min(0).values, amounts.max(0).values
    assert_close(low, torch.tensor([0.8, 0.8, 0.8, -0.1]), atol=2e-3, rtol=0)
    assert_close(high, torch.tensor([1.2, 1.2, 1.2, 0.1]), atol=2e-3, rtol=0)
    assert len(set(map(tuple, order.tolist()))) == 24


def test_the_objective_sees_plain_images():
    # Faithful 3
    original = batch()
    inputs = Augment("cpu", [0]).train()(original)
    plain = original["color", 0, 0].float() / 255
    flipped = inputs["stereo_T"][:, 0, 3] > 0
    expected = torch.where(flipped[:, None, None, None], plain.flip(3), plain)
    assert torch.equal(inputs["color", 0, 0], expected)


def test_a_flip_mirrors_images_depth_principal_point_and_baseline():
    # Faithful 6
    inputs = {key: value.float() for key, value in batch(2).items()}
    inputs["depth_gt"] = torch.rand(2, 1, 4, 6)
    flipped = augment.flip(inputs, torch.tensor([True, False]))
    for key in ("depth_gt", ("color", 0, 0), ("color", "s", 0)):
        assert torch.equal(flipped[key][0], inputs[key][0].flip(2))
    assert flipped["K", 0][0, 0, 2] == 24 - 10
    assert flipped["stereo_T"][0, 0, 3] == 0.1
    assert_close(flipped["K", 0] @ flipped["inv_K", 0], torch.eye(4).expand(2, 4, 4))
    for key, value in inputs.items():
        assert torch.equal(flipped[key][1], value[1])


def test_validation_changes_nothing():
    original = batch()
    inputs = Augment("cpu", [0]).eval()(original)
    assert torch.equal(inputs["color_aug", 0, 0], original["color", 0, 0].float() / 255)
    assert torch.equal(inputs["stereo_T"], original["stereo_T"])


def test_the_batch_itself_stays_as_it_was():
    original = batch()
    before = {key: value.clone() for key, value in original.items()}
    Augment("cpu", [0]).train()(original)
    assert original.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in original.items())


def test_packed_matrices_are_one_array_and_give_the_same_inputs():
    loose = batch(4)
    for key, value in loose.items():
        if augment.name_in(key) != "color":
            loose[key] = value.numpy()  # as `collate` returns matrices
    packed = pack_matrices(loose)
    assert sum(augment.name_in(key) != "color" for key in packed) == 1
    assert all(isinstance(value, torch.Tensor) for value in packed.values())  # so all are pinned
    inputs = []
    for one in (loose, packed):
        torch.manual_seed(0)
        inputs.append(Augment("cpu", [0], num_scales=3).train()(one))
    assert inputs[0].keys() == inputs[1].keys()
    assert all(torch.equal(value, inputs[1][key]) for key, value in inputs[0].items())
