"""Bootstrap intervals of means over images."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0  # of the bootstrap
CHUNK = 500  # resamples at once: less memory
METHOD = f"bootstrap over images ({RESAMPLES:,} resamples, seed {SEED})"


class Interval(NamedTuple):
    """A mean over images, and where it would be had other images been drawn, in 95 of 100 cases.

    Attributes:
        mean: over those images that have a value.
        low, high: of the interval; NaN of fewer than two images.
        images: how many have a value.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def is_noise(self) -> bool:
        """Whether it contains 0, or is not known."""
        return not (self.low > 0 or self.high < 0)


def bootstrap(columns: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Return the mean of each column with its 95 % interval: percentiles of resampled means.

    Images are drawn anew with their whole rows, as many as there are. This says how much a mean
    depends on which images were taken, if they were independent; frames of one drive are alike, so
    the truth is wider. It says nothing of training again with another seed.

    Args:
        columns: (N,) values of N images, NaN where an image has none.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    values = np.array(list(columns.values()), float).T  # (N, columns)
    is_known = ~np.isnan(values)
    filled, known = np.where(is_known, values, 0), is_known.astype(float)
    rng, means = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES // CHUNK):
        # how often each image is drawn
        draws = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), CHUNK)
        means.append(_divide(draws.astype(float) @ filled, draws.astype(float) @ known))
    means, counts = np.concatenate(means), is_known.sum(0)
    ends = np.full((2, len(counts)), np.nan)
    enough = counts > 1
    if enough.any():
        tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
        ends[:, enough] = np.nanpercentile(means[:, enough], tails, axis=0)
    return {name: Interval(*map(float, row), int(count)) for name, *row, count in zip(
        columns, _divide(filled.sum(0), known.sum(0)), *ends, counts, strict=True)}


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
