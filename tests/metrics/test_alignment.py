"""metrics/alignment.py against closed forms."""
import numpy as np
import pytest

from metrics import alignment, trajectory
from metrics.alignment import Alignment, fit_affine, fit_alignment, fit_scale
from metrics.depth import depths_at, evaluated_mask
from options import ALIGNMENTS, DEPTH, POSE

GT = np.random.default_rng(0).uniform(2, 60, (6, 8)).astype(np.float32)


def aligned(name, pred):
    """Return the true and the predicted depth, and the alignment, of a predicted depth map."""
    return depths_at(GT, (1 / pred).astype(np.float32), evaluated_mask(GT, eigen=False),
                     alignment=name)


@pytest.mark.parametrize(("name", "pred", "scale", "shift"), [
    ("none", GT, 1, 0), ("median", 3 * GT, 1 / 3, 0), ("scale", 3 * GT, 1 / 3, 0),
    ("affine_depth", 2 * GT + 1, 1 / 2, -1 / 2), ("affine_depth", 3 * GT, 1 / 3, 0),
    ("affine_disparity", 1 / (2 / GT + 0.1), 1 / 2, -0.05), ("affine_disparity", 3 * GT, 3, 0)])
def test_an_alignment_undoes_what_it_fits(name, pred, scale, shift):
    gt, found, fit = aligned(name, pred)
    assert found == pytest.approx(gt, rel=1e-4)
    assert fit[1:] == pytest.approx((scale, shift), abs=1e-4)
    assert fit.name == name


@pytest.mark.parametrize("name", ["none", "median", "scale"])
def test_a_scale_cannot_undo_a_shift(name):
    gt, found, _ = aligned(name, 2 * GT + 1)
    assert abs(gt - found).max() > 0.1


def test_least_squares_have_the_hand_values():
    # scale (1 2 + 2 2 + 3 5) / (1 + 4 + 9); line through the means (2, 3) with slope 3 / 2
    values, targets = np.array([1.0, 2, 3]), np.array([2.0, 2, 5])
    assert fit_scale(values, targets) == pytest.approx(21 / 14)
    assert fit_affine(values, targets) == pytest.approx((1.5, 0))


def test_least_squares_are_those_of_numpy():
    values, targets = np.random.default_rng(1).uniform(1, 60, (2, 500))
    system = np.stack([values, np.ones(500)], 1)
    assert fit_affine(values, targets) == pytest.approx(
        np.linalg.lstsq(system, targets, rcond=None)[0], rel=1e-9)
    assert fit_scale(values, targets) == pytest.approx(
        np.linalg.lstsq(values[:, None], targets, rcond=None)[0][0], rel=1e-9)


def test_a_constant_prediction_becomes_the_mean_depth():
    gt, found, fit = aligned("affine_depth", np.full_like(GT, 7))
    assert fit.scale == 0
    assert found == pytest.approx(np.full(gt.shape, gt.mean()), rel=1e-5)
    rounded = np.where(GT > 30, 0.1, np.nextafter(0.1, 1, dtype=np.float32))
    for values in (np.full(GT.size, 0.1), rounded.ravel()):
        assert fit_affine(values, GT.ravel()) == pytest.approx((0, GT.mean()), rel=1e-5)


def test_disparity_below_0_is_the_farthest_depth():
    fit = Alignment("affine_disparity", 1.0, -0.5)
    assert fit.apply(np.array([1.0, 2.0, 10.0])).tolist() == pytest.approx(
        [2, 1 / alignment.SMALLEST, 1 / alignment.SMALLEST])
    gt, disp = np.array([[1.0, 50, 50]]), np.array([[1.0, 0.5, 0.01]])
    _, found, fit = depths_at(gt, disp, gt > 0, alignment="affine_disparity")
    assert fit.scale * 0.01 + fit.shift < 0
    assert found[2] == 80


def test_median_keeps_the_bits_of_the_papers_formula():
    # Faithful 14
    pred, gt = np.float32([3, 5, 11]), np.float32([2, 4, 9])
    found = fit_alignment("median", gt, pred).apply(pred)
    assert (found == pred * float(np.median(gt) / np.median(pred))).all()
    assert found.dtype == np.float32


def test_an_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="alignment 'fixed' is not one of median, none, scale"):
        fit_alignment("fixed", GT, GT)


def test_both_scripts_offer_the_alignments_that_are_defined():
    assert tuple(ALIGNMENTS[DEPTH]) == alignment.ALIGNMENTS
    assert tuple(ALIGNMENTS[POSE]) == trajectory.ALIGNMENTS
