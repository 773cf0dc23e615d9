"""mCE and mRR against the printed tables of RoboDepth (arXiv:2310.15171), and closed forms."""
import numpy as np
import pytest

from metrics.robustness import corruption_errors, depth_estimation_error, resilience_rates

# name: clean DEE, DEE of each corruption (a mean over five severities), mCE and mRR, as printed.
# Order: brightness dark fog frost snow contrast defocus_blur glass_blur motion_blur zoom_blur
# elastic_transform color_quant gaussian_noise impulse_noise shot_noise iso_noise pixelate
# jpeg_compression
PRINTED = {
    "R18": (0.119, "0.130 0.280 0.155 0.277 0.511 0.187 0.244 0.242 0.216 0.201 0.129 0.193 0.384 "
                   "0.389 0.340 0.388 0.145 0.196", 100, 84.46),
    "R18 no_pt": (0.144, "0.183 0.343 0.311 0.312 0.399 0.416 0.254 0.232 0.199 0.207 0.148 0.212 "
                         "0.441 0.452 0.402 0.453 0.153 0.171", 119.75, 82.50),
    "R50": (0.117, "0.127 0.294 0.155 0.287 0.492 0.233 0.427 0.392 0.277 0.208 0.130 0.198 0.409 "
                   "0.403 0.368 0.425 0.155 0.211", 113.43, 80.59),
    "CADepth": (0.108, "0.121 0.300 0.142 0.324 0.529 0.193 0.356 0.347 0.285 0.208 0.121 0.192 "
                       "0.423 0.433 0.383 0.448 0.144 0.195", 110.11, 80.07),
    "HR-Depth": (0.112, "0.121 0.289 0.151 0.279 0.481 0.213 0.356 0.300 0.263 0.224 0.124 0.187 "
                        "0.363 0.373 0.336 0.374 0.135 0.176", 103.73, 82.93),
    "DIFFNet": (0.102, "0.111 0.222 0.131 0.199 0.352 0.161 0.513 0.330 0.280 0.197 0.114 0.165 "
                       "0.292 0.266 0.255 0.270 0.135 0.202", 94.96, 85.41)}


def printed_dee(name):
    """Return the printed DEE, (18, 1)."""
    return np.array([[float(word)] for word in PRINTED[name][1].split()])


@pytest.mark.parametrize("name", PRINTED)
def test_printed_errors_give_the_printed_scores(name):
    clean, _, mce, mrr = PRINTED[name]
    dee = printed_dee(name)
    assert dee.shape == (18, 1)
    assert round(corruption_errors(dee, printed_dee("R18")).mean(), 2) == mce
    assert round(resilience_rates(dee, clean).mean(), 2) == mrr


def test_the_clean_error_of_the_baseline_is_the_printed_one():
    # abs_rel and a1 of Monodepth2's ResNet-18, mono, 640 x 192
    assert round(depth_estimation_error(0.115, 0.877), 3) == PRINTED["R18"][0]


def test_right_depth_has_error_0_and_absurd_depth_1():
    assert depth_estimation_error(0.0, 1.0) == 0
    assert depth_estimation_error(1.0, 0.0) == 1


def test_severities_are_summed_before_they_are_divided():
    dee, baseline = np.array([[0.1, 0.3]]), np.array([[0.2, 0.2]])
    assert corruption_errors(dee, baseline) == pytest.approx(100)
    assert resilience_rates(dee, 0.0) == pytest.approx(80)


def test_corruption_that_costs_nothing_has_full_resilience():
    assert resilience_rates(np.full((2, 5), 0.1), 0.1) == pytest.approx([100, 100])
