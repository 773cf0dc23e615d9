"""Bootstrap intervals of means over images."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0
CHUNK = 500  # resamples at once, which limits the memory
FEW = 20  # drives or images; with fewer, 95 % intervals hold the truth in less than 92 of 100 cases


class Interval(NamedTuple):
    """Hold a mean over images with its 95 % interval.

    Attributes:
        mean: over the images that have a value.
        low, high: ends of the interval; NaN for fewer than two drives (images of a single drive).
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


class Resampled(NamedTuple):
    """Say what a resample draws.

    Attributes:
        kind: "drives" or "images".
        units: (N,) index of the drive or image that each of N images belongs to.
    """

    kind: str
    units: np.ndarray

    def describe(self) -> str:
        """Return the method of the intervals in words, with a warning for too few units."""
        count = int(self.units.max()) + 1
        text = f"bootstrap over {count:,} {self.kind} ({RESAMPLES:,} resamples, seed {SEED})"
        if count < FEW:
            text += f"; of fewer than {FEW} {self.kind} they are too narrow"
        return text


def choose_resampled(folders: Sequence[str]) -> Resampled:
    """Choose what to resample: drives, or images if all or none of them share a folder.

    Args:
        folders: folder of each of N images, which is its drive; N > 0.
    """
    drives = {folder: i for i, folder in enumerate(dict.fromkeys(folders))}
    if 1 < len(drives) < len(folders):
        return Resampled("drives", np.array([drives[folder] for folder in folders]))
    return Resampled("images", np.arange(len(folders)))


def bootstrap(columns: dict[str, np.ndarray],
              units: np.ndarray | None = None) -> dict[str, Interval]:
    """Compute the mean of each column with its 95 % interval: percentiles of resampled means.

    A resample draws as many drives as there are, with replacement, and takes all their images with
    their whole rows. The interval shows how much a mean depends on the choice of drives, whose
    frames are alike. It does not contain the variation between seeds of training.

    Args:
        columns: (N,) values of N images; NaN if an image has no value.
        units: (N,) index of each image's drive, from 0 on; None: images are independent.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; of whole clusters:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", Sec. 3.8.
    """
    means, counts = _resample_means(columns, units)
    ends = np.full((2, len(columns)), np.nan)
    enough = (counts > 0).sum(0) > 1
    if enough.any():
        tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
        ends[:, enough] = np.nanpercentile(means[1:, enough], tails, axis=0)
    return {name: Interval(float(mean), float(low), float(high), int(count))
            for name, mean, low, high, count in zip(columns, means[0], *ends, counts.sum(0),
                                                    strict=True)}


def sign_levels(columns: dict[str, np.ndarray],
                units: np.ndarray | None = None) -> dict[str, float]:
    """Compute the two-sided level at which the mean of each column differs from 0, by `bootstrap`.

    Twice the smaller share of resampled means at or below 0, and at or above 0; a resample is added
    to each side, so that the level is never 0.

    Args:
        columns: (N,) differences of N images; NaN if an image has no value.
        units: (N,) index of each image's drive, from 0 on; None: images are independent.

    Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", Sec. 4.4 and 5.
    """
    means = _resample_means(columns, units)[0][1:]
    known = (~np.isnan(means)).sum(0)
    sides = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    levels = np.minimum(2 * (1 + sides) / (1 + known), 1)
    return dict(zip(columns, levels.tolist(), strict=True))


def correct_levels(levels: dict[str, float]) -> dict[str, float]:
    """Correct levels of m comparisons for their number, by Holm's method.

    The k-th smallest level is multiplied by m - k + 1, and is at least as large as the one before
    it, at most 1. At 5 %, the chance of one wrong claim or more among all m is at most 5 %.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    corrected, largest = {}, 0.0
    for k, name in enumerate(sorted(levels, key=levels.__getitem__)):
        largest = max(largest, min(1.0, levels[name] * (len(levels) - k)))
        corrected[name] = largest
    return corrected


def _resample_means(columns: dict[str, np.ndarray],
                    units: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (1 + RESAMPLES, columns), first of all images, and the counts by unit."""
    values = np.array(list(columns.values()), float).T                        # (N, columns)
    sums, counts = _sum_by_unit(values, np.arange(len(values)) if units is None else units)
    drives, rng = len(sums), np.random.default_rng(SEED)
    all_sums, all_counts = [sums.sum(0)], [counts.sum(0)]  # of all images, then of each resample
    for _ in range(RESAMPLES // CHUNK):
        # (CHUNK, drives): how often each resample draws each drive
        draws = rng.multinomial(drives, np.full(drives, 1 / drives), CHUNK).astype(float)
        all_sums.append(draws @ sums)
        all_counts.append(draws @ counts)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where a resample draws no known value
        return np.vstack(all_sums) / np.vstack(all_counts), counts


def _sum_by_unit(values: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of the known values (N, columns) in each unit."""
    is_known = ~np.isnan(values)
    sums, counts = np.zeros((2, int(units.max()) + 1, values.shape[1]))
    np.add.at(sums, units, np.where(is_known, values, 0))
    np.add.at(counts, units, is_known)
    return sums, counts
