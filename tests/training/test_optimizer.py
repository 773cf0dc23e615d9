"""Tests of training/optimizer.py."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from training.optimizer import EPS, make_adam

RATE, STEPS = 1e-4, 10


def gradients(seed=0):
    """Return gradients of eps's size, as this loss has them at the start."""
    return np.random.default_rng(seed).normal(0, 1e-8, (STEPS, 5)).astype(np.float32)


def adam_of_0_4_1(grads, m=0., v=0., done=0):
    """Return the path of a weight from 0, and the moments, by PyTorch 0.4.1's formula."""
    weight, path = np.zeros(grads.shape[1]), []
    for t, grad in enumerate(grads.astype(np.float64), start=done + 1):
        m = 0.9 * m + 0.1 * grad
        v = 0.999 * v + 0.001 * grad ** 2
        size = RATE * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
        weight = weight - size * m / (np.sqrt(v) + 1e-8)
        path.append(weight)
    return np.array(path)


def steps_of(optimizer, weight, grads):
    """Return the path of the weight while the optimizer steps."""
    path = []
    for grad in grads:
        weight.grad = torch.from_numpy(grad.copy())
        optimizer.step()
        path.append(weight.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("fused", [True, False])
def test_ten_steps_are_those_of_pytorch_0_4_1(fused):
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = make_adam([weight], RATE)
    optimizer.param_groups[0]["fused"] = fused
    path = steps_of(optimizer, weight, gradients())
    np.testing.assert_allclose(path, adam_of_0_4_1(gradients()), rtol=2e-5)


def test_a_stored_state_has_the_published_eps():
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = make_adam([weight], RATE)
    steps_of(optimizer, weight, gradients())
    assert optimizer.state_dict()["param_groups"][0]["eps"] == EPS == 1e-8
