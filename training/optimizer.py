"""Adam as the published weights were trained with: that of PyTorch 0.4.1."""
from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import log, sqrt

import torch
from torch import Tensor, nn

EPS = 1e-8  # Kingma and Ba 2015 (arXiv:1412.6980), and every version of PyTorch
FAR = 2**23  # steps after which no bias is left; float32 holds FAR + t exactly for t below FAR


def make_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Return a fused Adam that adds eps before the bias correction.

    Between steps, its groups hold the learning rate and eps = 1e-8: a stored state has the
    published values.
    """
    # true, and right, of a run that resumes after the last step of its first epoch
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    optimizer = torch.optim.Adam(parameters, learning_rate, eps=EPS, fused=True)
    early_eps = EarlyEps()
    optimizer.register_step_pre_hook(early_eps.before_step)
    optimizer.register_step_post_hook(early_eps.after_step)
    optimizer.register_load_state_dict_post_hook(early_eps.after_loading)
    return optimizer


class EarlyEps:
    """Make steps of today's Adam equal those of PyTorch 0.4.1, without waiting for a GPU.

    Step t of PyTorch 0.4.1 is lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), and today's
    is lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps). The two are equal

    - if eps is divided by sqrt(1 - b2^t) for today's step; or
    - if the bias correction moves into lr, and today's step is told a t so late that it corrects
      nothing. This serves a scaled loss: the device skips steps, so it alone knows t.
    """

    def __init__(self):
        self._done: int | None = None  # steps done; None: read them from the optimizer's state
        self._kept: list[tuple[float, float]] = []  # (lr, eps) of each group
        self._late: list[Tensor] = []  # step counts that FAR was added to

    def before_step(self, optimizer: torch.optim.Adam, *_: object) -> None:
        """Change eps, or lr and the step counts, for one step."""
        self._kept = [(group["lr"], group["eps"]) for group in optimizer.param_groups]
        counts = [moments["step"] for moments in optimizer.state.values()]
        # Faithful: eps is added before the bias correction, so early steps are shorter
        if counts and getattr(optimizer, "found_inf", None) is not None:
            self._correct_bias_in_lr(optimizer, counts)
            return
        if self._done is None:
            self._done = int(counts[0]) if counts else 0
        self._done += 1
        for group in optimizer.param_groups:
            group["eps"] = EPS / sqrt(1 - group["betas"][1] ** self._done)

    def _correct_bias_in_lr(self, optimizer: torch.optim.Adam, counts: list[Tensor]) -> None:
        """Compute the bias correction on the device that counts the steps."""
        for group in optimizer.param_groups:
            bias1, bias2 = (-torch.expm1((counts[0] + 1) * log(beta)) for beta in group["betas"])
            group["lr"] = group["lr"] * bias2.sqrt() / bias1
        torch._foreach_add_(counts, FAR)
        self._late = counts

    def after_step(self, optimizer: torch.optim.Adam, *_: object) -> None:
        """Undo the changes of `before_step`."""
        for group, (learning_rate, eps) in zip(optimizer.param_groups, self._kept, strict=True):
            group["lr"], group["eps"] = learning_rate, eps
        if self._late:
            torch._foreach_sub_(self._late, FAR)
            self._late = []
        if getattr(optimizer, "found_inf", None) is not None:
            self._done = None  # the step may have been skipped

    def after_loading(self, _: torch.optim.Optimizer) -> None:
        """Read the number of steps done from the loaded state before the next step."""
        self._done = None
