"""Adam as the published weights were trained with: that of PyTorch 0.4.1."""
from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import torch
from torch import nn

EPS = 1e-8  # Kingma and Ba 2015 (arXiv:1412.6980), and every version of PyTorch


def make_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Return a fused Adam that adds eps before the bias correction.

    Between steps its groups hold eps = 1e-8, so a stored state has the published value.
    """
    optimizer = torch.optim.Adam(parameters, learning_rate, eps=EPS, fused=True)
    optimizer.register_step_pre_hook(_set_eps)
    optimizer.register_step_post_hook(_reset_eps)
    return optimizer


def _set_eps(optimizer: torch.optim.Adam, *_: object) -> None:
    """Choose the eps with which the next step is that of PyTorch 0.4.1."""
    for group in optimizer.param_groups:
        taken = (optimizer.state[p]["step"] for p in group["params"] if p in optimizer.state)
        t = float(next(taken, 0)) + 1
        # Faithful: eps joins sqrt(v) before the bias correction, so early steps are shorter
        group["eps"] = EPS / sqrt(1 - group["betas"][1] ** t)


def _reset_eps(optimizer: torch.optim.Adam, *_: object) -> None:
    """Set eps to the value that is stored."""
    for group in optimizer.param_groups:
        group["eps"] = EPS
