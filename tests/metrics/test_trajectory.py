"""Trajectories are chained and aligned, and have errors of known value."""
import numpy as np
import pytest
from conftest import SHARED, needs_shared
from made_trajectories import pose, rotation, straight, wandering

from evaluation.trajectory_files import (
    read_trajectory,
)
from kitti_utils import read_poses
from metrics.trajectory import (
    ALIGNMENTS,
    align_trajectory,
    chain_motions,
    five_frame_errors,
    score_trajectory,
)
from runtime.errors import DataError

ESTIMATE = SHARED / "real/odom_estimates/example_0_10.txt"
TRUTH = SHARED / "real/kitti_odom/poses/10.txt"


def similar(poses, scale, R, t):
    """Return the same path in another world frame: scaled, rotated and shifted."""
    moved = poses.copy()
    moved[:, :3, 3] *= scale
    return pose(R, t) @ moved


def noisy(poses, seed=1):
    random = np.random.default_rng(seed)
    return np.array([one @ pose(rotation(0.01 * random.normal(), random.normal(size=3)),
                                0.2 * random.normal(size=3)) for one in poses])


def scores_of(truth, estimate, alignment):
    return score_trajectory(truth, np.arange(len(truth)), estimate, alignment)


def test_motions_are_chained_from_camera_to_world():
    truth = wandering(30)
    motions = np.linalg.inv(truth[1:]) @ truth[:-1]  # frame i to frame i + 1
    poses = chain_motions(motions)
    np.testing.assert_allclose(poses, np.linalg.inv(truth[0]) @ truth, atol=1e-9)
    np.testing.assert_allclose(chain_motions(motions, 5.4)[:, :3, 3], 5.4 * poses[:, :3, 3])


def test_the_camera_that_drives_ahead_moves_along_z():
    # a point that is ahead comes nearer: its z is less in the next frame's camera
    motion = pose(np.eye(3), [0, 0, -2])
    np.testing.assert_array_equal(chain_motions(np.stack([motion] * 3))[:, 2, 3], [0, 2, 4, 6])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_truth_has_no_error(alignment):
    scores = scores_of(wandering(), wandering(), alignment)
    assert scores.alignment == alignment
    assert scores.scale == pytest.approx(1)
    assert [scores.t_err, scores.ate, scores.rpe_m, scores.rpe_deg] == pytest.approx(
        [0] * 4, abs=1e-6)
    assert scores.r_err == pytest.approx(0, abs=1e-5)  # an arccos near 1 has half the digits


def test_a_similar_trajectory_has_an_error_only_without_7dof():
    truth = wandering()
    estimate = similar(truth, 0.37, rotation(1.1, [3, -1, 2]), [40, 2, -7])
    scores = scores_of(truth, estimate, "7dof")
    assert scores.scale == pytest.approx(1 / 0.37)
    assert [scores.t_err, scores.ate, scores.rpe_m] == pytest.approx([0, 0, 0], abs=1e-6)
    assert min(scores_of(truth, estimate, kind).ate for kind in ("none", "6dof")) > 1


def test_none_and_scale_bring_the_first_poses_together():
    truth = wandering()
    estimate = similar(truth, 1, rotation(1.1, [3, -1, 2]), [40, 2, -7])
    assert scores_of(truth, estimate, "none").ate == pytest.approx(0, abs=1e-6)
    estimate = similar(truth, 0.37, rotation(1.1, [3, -1, 2]), [40, 2, -7])
    scores = scores_of(truth, estimate, "scale")
    assert (scores.ate, scores.scale) == pytest.approx((0, 1 / 0.37), abs=1e-6)


def test_6dof_leaves_the_scale():
    truth = straight(400)
    scores = scores_of(truth, similar(truth, 2, rotation(1.1, [3, -1, 2]), [40, 2, -7]), "6dof")
    assert scores.scale == 1
    assert scores.t_err == pytest.approx(100, rel=0.01)  # each segment is twice as long


def test_more_freedom_brings_positions_nearer():
    truth, estimate = wandering(), similar(noisy(wandering()), 0.5, rotation(1, [1, 0, 1]), [1] * 3)
    none, scale, six, seven = (scores_of(truth, estimate, kind).ate for kind in ALIGNMENTS)
    assert seven <= six <= none
    assert seven <= scale <= none


def at(positions):
    """Return poses without rotation at (N, 3) positions."""
    return np.array([pose(np.eye(3), position) for position in positions])


def test_the_alignment_of_a_mirrored_trajectory_is_a_rotation():
    x = np.random.default_rng(0).normal(size=(50, 3))
    x[0] = 0
    _, aligned, _ = align_trajectory(at(x), at(x * [1, 1, -1]), "7dof")
    np.testing.assert_allclose(np.linalg.det(aligned[:, :3, :3]), 1)


@pytest.mark.parametrize("direction", [[0, 0, 1], [1, -2, 3], [-1, 1, 0.1]])
def test_a_straight_trajectory_is_aligned_by_a_rotation(direction):
    # a reflection fits points on a line just as well; scikit-image 0.26 returns it
    truth = straight(50)
    estimate = similar(at(0.4 * np.arange(50)[:, None] * direction), 1, rotation(1, [3, 1, 2]),
                       [5, 6, 7])
    for alignment in ("6dof", "7dof"):
        scores = scores_of(truth, estimate, alignment)
        np.testing.assert_allclose(np.linalg.det(scores.estimate[:, :3, :3]), 1)
        assert scores.scale == pytest.approx(1 if alignment == "6dof" else
                                             2.5 / np.linalg.norm(direction))
    assert scores.ate == pytest.approx(0, abs=1e-6)


def test_7dof_finds_the_least_squares():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 40, 3))
    x[0] = y[0] = 0
    truth, aligned, _ = align_trajectory(at(y), at(x), "7dof")
    target, found = truth[:, :3, 3], aligned[:, :3, 3]
    least = ((found - target) ** 2).sum()
    for _ in range(200):  # any further rotation, shift and scale is worse
        turn = rotation(0.05 * random.normal(), random.normal(size=3))
        moved = (1 + 0.05 * random.normal()) * found @ turn.T + 0.05 * random.normal(size=3)
        assert ((moved - target) ** 2).sum() > least


def test_a_scale_of_a_hundredth_is_an_error_of_one_percent():
    truth = straight(1001)
    scores = scores_of(truth, straight(1001, 1.01), "none")
    assert scores.rpe_m == pytest.approx(0.01)
    assert scores.rpe_deg == scores.r_err == 0
    # segments end at the first frame that is farther: 101, 201, ... m long
    assert scores.t_err == pytest.approx(np.mean(
        [n + 1 for n in range(100, 900, 100) for first in range(0, 1001, 10) if first + n < 1000]
        / np.array([n for n in range(100, 900, 100) for first in range(0, 1001, 10)
                    if first + n < 1000])), rel=1e-9)
    assert scores.ate == pytest.approx(np.sqrt(np.mean((0.01 * np.arange(1001)) ** 2)))


def test_a_steady_turn_of_the_estimate_is_r_err():
    # a hundredth of a degree a frame, while the truth goes straight on: 1 degree in 100 m, and
    # segments are a frame longer than their length
    truth = straight(301)
    estimate = truth.copy()
    for i, one in enumerate(estimate):
        one[:3, :3] = rotation(np.radians(0.01) * i, [0, 1, 0])
    scores = scores_of(truth, estimate, "none")
    assert scores.rpe_deg == pytest.approx(0.01, abs=1e-9)
    assert scores.ate == 0
    lengths = np.array([n for n in (100, 200) for first in range(0, 301, 10) if first + n < 300])
    assert scores.r_err == pytest.approx(np.mean((lengths + 1) / lengths), rel=1e-6)


def test_a_path_below_100_m_has_no_segment():
    scores = scores_of(straight(101), straight(101), "none")
    assert np.isnan(scores.t_err)
    assert np.isnan(scores.r_err)
    assert scores_of(straight(102), straight(102), "none").t_err == 0


def test_a_gap_leaves_out_its_motion_and_its_segments():
    truth = wandering()
    frames = np.array([*range(5, 100), *range(103, 400)])
    estimate = noisy(truth)
    scores = score_trajectory(truth, frames, estimate[frames], "none")
    assert len(scores.truth) == len(frames)
    own = np.linalg.inv(truth[5]) @ truth, np.linalg.inv(estimate[5]) @ estimate
    steps = [np.linalg.norm((np.linalg.inv(np.linalg.inv(own[0][i]) @ own[0][i + 1])
                             @ np.linalg.inv(own[1][i]) @ own[1][i + 1])[:3, 3])
             for i in frames[:-1] if i != 99]
    assert scores.rpe_m == pytest.approx(np.mean(steps))


@needs_shared
def test_recorded_scores_are_reproduced_to_the_last_digit():
    frames, poses = read_trajectory(ESTIMATE)
    scores = score_trajectory(read_poses(TRUTH), frames, poses, "7dof")
    assert f"{scores.t_err:.6f} {scores.r_err:.6f} {scores.ate:.6f}" == "3.297840 0.304590 6.630158"


@pytest.mark.parametrize("alignment", ["none", "6dof", "7dof"])
@pytest.mark.parametrize("source", ["made", pytest.param("real", marks=needs_shared)])
def test_ate_and_rpe_equal_the_values_of_evo(alignment, source):
    metrics = pytest.importorskip("evo.core.metrics")
    from evo.core.trajectory import PosePath3D
    if source == "made":
        truth, frames = wandering(), np.arange(400)
        poses = similar(noisy(truth), 0.4, rotation(1.1, [3, -1, 2]), [40, 2, -7])
    else:
        truth, (frames, poses) = read_poses(TRUTH), read_trajectory(ESTIMATE)
    scores = score_trajectory(truth, frames, poses, alignment)
    # with the first pose at the origin, as in score_trajectory: rotations written with seven digits
    # are inexact, so moving the first pose to the origin changes lengths in the eighth digit
    reference, own = (PosePath3D(poses_se3=list(np.linalg.inv(one[0]) @ one))
                      for one in (truth[frames], poses))
    if alignment == "none":
        own.align_origin(reference)
    else:
        own.align(reference, correct_scale=alignment == "7dof")
    def statistic(metric, name):
        metric.process_data((reference, own))
        return metric.get_statistic(metrics.StatisticsType[name])
    part, unit = metrics.PoseRelation, metrics.Unit.frames
    assert scores.ate == pytest.approx(
        statistic(metrics.APE(part.translation_part), "rmse"), abs=1e-6)
    assert scores.rpe_m == pytest.approx(
        statistic(metrics.RPE(part.translation_part, 1, unit), "mean"), abs=1e-6)
    assert scores.rpe_deg == pytest.approx(
        statistic(metrics.RPE(part.rotation_angle_deg, 1, unit), "mean"), abs=1e-6)


def test_a_trajectory_that_never_moves_has_no_scale():
    still = np.stack([np.eye(4)] * 5)
    for alignment in ("scale", "7dof"):
        with pytest.raises(DataError, match="never moves"):
            align_trajectory(straight(5), still, alignment)
    assert scores_of(straight(5), still, "6dof").ate > 0


@pytest.mark.parametrize("alignment", ["scale", "7dof"])
def test_an_estimate_of_rounding_errors_has_no_scale(alignment):
    truth = straight(50)
    tiny = at(1e-9 * truth[:, :3, 3] + 1e-12 * np.random.default_rng(0).normal(size=(50, 3)))
    with pytest.raises(DataError, match=r"less than the true one by a factor of 1e\+08, so"):
        align_trajectory(truth, tiny, alignment)
    scale = align_trajectory(truth, at(1e-6 * truth[:, :3, 3]), alignment)[2]
    assert scale == pytest.approx(1e6)


def test_a_window_that_stands_still_has_a_finite_5_frame_error():
    still = np.tile(np.eye(4), (5, 1, 1))
    errors = five_frame_errors(straight(6), still)
    # the true positions are 0, 1, 2, ... m: root of the sum of squares, over the frames
    windows = [np.arange(n) for n in (5, 5, 4, 3, 2)]
    assert errors == pytest.approx([np.sqrt((w**2).sum()) / len(w) for w in windows])
    assert five_frame_errors(still, still[:4]).tolist() == [0] * 4


def test_a_single_frame_is_no_trajectory():
    with pytest.raises(DataError, match="has 1 frame; expected two or more"):
        score_trajectory(straight(5), np.array([2]), straight(1), "7dof")
