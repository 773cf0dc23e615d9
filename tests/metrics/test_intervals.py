"""metrics/intervals.py: how often a 95 % interval holds the truth, and what is resampled."""
import numpy as np
import pytest

from datasets.splits import parse_line, read_split, split_path
from metrics.intervals import bootstrap, choose_resampled, correct_levels, sign_levels

TRIALS = 500  # so the coverage of about 94 % is known to 1 %


def eigen_folders():
    return [parse_line(line)[0] for line in read_split(split_path("eigen", "test_files.txt"))]


def coverage(share, units, resampled):
    """Return the share of trials whose interval holds the true mean, 0.

    Args:
        share: of the variance between drives; the rest lies between the images of a drive.
        units: (N,) drive of each image.
        resampled: (N,) what `bootstrap` draws.
    """
    rng = np.random.default_rng(0)
    drives = rng.normal(0, np.sqrt(share), (TRIALS, units.max() + 1))
    errors = drives[:, units] + rng.normal(0, np.sqrt(1 - share), (TRIALS, len(units)))
    found = bootstrap(dict(enumerate(errors)), resampled).values()
    return np.mean([interval.low <= 0 <= interval.high for interval in found])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_95_percent_intervals_over_eigens_drives_hold_the_truth(share):
    kind, units = choose_resampled(eigen_folders())
    assert (kind, len(units), units.max() + 1) == ("drives", 697, 28)
    assert 0.90 <= coverage(share, units, units) <= 0.98


def test_intervals_over_images_miss_the_truth_of_drives():
    _, units = choose_resampled(eigen_folders())
    assert coverage(0.6, units, np.arange(len(units))) < 0.5


def test_images_are_resampled_where_folders_say_nothing():
    for folders in (["a"] * 3, ["a", "b", "c"], ["a"]):
        kind, units = choose_resampled(folders)
        assert (kind, units.tolist()) == ("images", list(range(len(folders))))
    kind, units = choose_resampled(["b", "a", "b"])
    assert (kind, units.tolist()) == ("drives", [0, 1, 0])


def test_the_interval_of_equal_drives_is_that_of_their_means():
    means = np.random.default_rng(1).normal(5, 2, 30)
    drives = np.repeat(np.arange(30), 4)
    found = bootstrap({"x": means[drives]}, drives)["x"]
    assert found[:3] == pytest.approx(bootstrap({"x": means})["x"][:3])
    assert found.images == 120


def test_holms_correction_gives_the_hand_values():
    levels = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert correct_levels(levels) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert correct_levels({"a": 0.7, "b": 0.6}) == {"a": 1, "b": 1}
    assert correct_levels({"a": 0.03}) == {"a": 0.03}
    assert correct_levels({}) == {}


def test_the_level_of_a_difference_is_that_of_the_normal_law():
    # the mean of 400 values is 2 standard errors off 0: two-sided 4.55 %
    values = np.random.default_rng(1).normal(0, 1, 400)
    values = (values - values.mean()) / values.std() + 0.1
    assert sign_levels({"x": values})["x"] == pytest.approx(0.0455, abs=0.01)
    assert sign_levels({"x": -values}) == pytest.approx(sign_levels({"x": values}), abs=0.01)


def test_the_level_of_equal_results_is_1_and_is_never_0():
    found = sign_levels({"equal": np.zeros(9), "all": np.full(9, 0.1)})
    assert found == {"equal": 1, "all": pytest.approx(2 / 10_001)}
