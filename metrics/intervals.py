"""Bootstrap intervals of means over images."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0
CHUNK = 500  # resamples at once, which limits the memory
METHOD = f"bootstrap over images ({RESAMPLES:,} resamples, seed {SEED})"


class Interval(NamedTuple):
    """Hold a mean over images with its 95 % interval.

    Attributes:
        mean: over the images that have a value.
        low, high: ends of the interval; NaN for fewer than two images.
        images: number of images that have a value.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0 or is unknown."""
        return not (self.low > 0 or self.high < 0)


def bootstrap(columns: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Compute the mean of each column with its 95 % interval: percentiles of resampled means.

    A resample draws N images with replacement and takes their whole rows. The interval shows how
    much a mean depends on the choice of images, if images are independent. Frames of one drive are
    alike, so the real uncertainty is larger. The interval does not contain the variation between
    seeds of training.

    Args:
        columns: (N,) values of N images; NaN if an image has no value.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    values = np.array(list(columns.values()), float).T                        # (N, columns)
    is_known = ~np.isnan(values)
    filled, known = np.where(is_known, values, 0), is_known.astype(float)
    images, rng = len(values), np.random.default_rng(SEED)
    sums, counts = [filled.sum(0)], [known.sum(0)]  # of all images, then of each resample
    for _ in range(RESAMPLES // CHUNK):
        # (CHUNK, N): how often each resample draws each image
        draws = rng.multinomial(images, np.full(images, 1 / images), CHUNK).astype(float)
        sums.append(draws @ filled)
        counts.append(draws @ known)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where a resample draws no known value
        means = np.vstack(sums) / np.vstack(counts)                  # (1 + RESAMPLES, columns)
    ends = np.full((2, len(columns)), np.nan)
    enough = is_known.sum(0) > 1
    if enough.any():
        tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
        ends[:, enough] = np.nanpercentile(means[1:, enough], tails, axis=0)
    return {name: Interval(float(mean), float(low), float(high), int(count))
            for name, mean, low, high, count in zip(columns, means[0], *ends, counts[0],
                                                    strict=True)}
