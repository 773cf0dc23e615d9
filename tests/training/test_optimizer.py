"""Check that Adam steps as PyTorch 0.4.1 did, by its formula written out in numpy."""
from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from checkpoints.weights import restore_adam
from training.optimizer import make_adam

RATE, SIZE = 1e-4, 5
# one size of gradients is that of eps, as this loss has them in the encoder at the start
GRADIENTS = np.random.default_rng(0).normal(0, 1, (10, SIZE)) * [1e-9, 1e-8, 1e-7, 1e-4, 1]


def path_of_0_4_1(gradients):
    """Return the weights after each step from 0, one row a step."""
    weights, m, v, path = np.zeros(SIZE), 0., 0., []
    for t, gradient in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient ** 2
        rate = RATE * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
        weights = weights - rate * m / (np.sqrt(v) + 1e-8)
        path.append(weights)
    return np.array(path)


def parameter_and_adam(fused=True):
    parameter = torch.nn.Parameter(torch.zeros(SIZE))
    optimizer = make_adam([parameter], RATE)
    if not fused:
        optimizer.param_groups[0]["fused"] = False
        optimizer._step_supports_amp_scaling = False
    return parameter, optimizer


def path(parameter, optimizer, gradients, scaler=None):
    """Step along the gradients; return the weights after each step, one row a step."""
    rows = []
    for gradient in torch.tensor(gradients, dtype=torch.float32):
        if scaler is None:
            parameter.grad = gradient.clone()
            optimizer.step()
        else:
            parameter.grad = scaler.scale(torch.ones(())) * gradient
            scaler.step(optimizer)
            scaler.update()
        rows.append(parameter.detach().numpy().copy())
    return np.array(rows)


def assert_same_path(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_ten_steps_are_those_of_pytorch_0_4_1(fused):
    expected = path_of_0_4_1(GRADIENTS)
    assert_same_path(path(*parameter_and_adam(fused), GRADIENTS), expected)
    weight = torch.nn.Parameter(torch.zeros(SIZE))
    of_today = path(weight, torch.optim.Adam([weight], RATE), GRADIENTS)
    assert of_today[0, 1] / expected[0, 1] > 5  # at a gradient of about 1e-8
    np.testing.assert_allclose(of_today[:, 4], expected[:, 4], rtol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_a_scaled_loss_skips_does_not_count(fused):
    gradients = np.insert(GRADIENTS, [0, 3, 3, 7], np.inf, axis=0)
    kept = np.isfinite(gradients[:, 0])
    parameter, optimizer = parameter_and_adam(fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.**16)
    found = path(parameter, optimizer, gradients, scaler)
    assert_same_path(found[kept], path_of_0_4_1(GRADIENTS))
    assert scaler.get_scale() == 2.**12
    assert optimizer.state[parameter]["step"] == len(GRADIENTS)
    assert optimizer.param_groups[0]["lr"] == RATE
    assert_same_path(path(parameter, optimizer, GRADIENTS),  # without scaling from here on
                     path_of_0_4_1(np.concatenate([GRADIENTS, GRADIENTS]))[10:])


@pytest.mark.parametrize("scaled", [False, True])
def test_steps_go_on_from_a_stored_state(scaled):
    parameter, optimizer = parameter_and_adam()
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    first = path(parameter, optimizer, GRADIENTS[:4], scaler)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    later, other = parameter_and_adam()
    path(later, other, GRADIENTS[5:6], scaler)  # another state, which is replaced
    later.data.copy_(parameter.data)
    restore_adam(other, torch.load(file, weights_only=True))
    rest = path(later, other, GRADIENTS[4:], scaler)
    assert_same_path(np.concatenate([first, rest]), path_of_0_4_1(GRADIENTS))
    assert np.array_equal(rest, path(parameter, optimizer, GRADIENTS[4:], scaler))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_stored_state_has_the_published_values(scaled):
    parameter, optimizer = parameter_and_adam()
    path(parameter, optimizer, GRADIENTS, torch.amp.GradScaler("cpu") if scaled else None)
    state = optimizer.state_dict()
    group, moments = state["param_groups"][0], state["state"][0]
    assert (group["lr"], group["eps"], group["betas"]) == (RATE, 1e-8, (0.9, 0.999))
    assert moments["step"] == 10
