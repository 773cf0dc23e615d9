"""Trajectories made for the tests: straight ahead, and on bends and hills."""
import numpy as np


def rotation(angle, axis):
    """Return the (3, 3) rotation by `angle` (radians) about `axis`, by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def pose(R, t):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = R, t
    return matrix


def straight(frames, step=1.0):
    """Return the poses of a camera that looks and drives ahead, `step` metres per frame."""
    return np.array([pose(np.eye(3), [0, 0, step * i]) for i in range(frames)])


def wandering(frames=400, seed=0):
    """Return the poses of a car on bends and hills, a few metres per frame."""
    random = np.random.default_rng(seed)
    motions = [pose(rotation(0.03 * np.sin(i / 25) + 0.002 * random.normal(), [0.05, 1, 0.02]),
                    [0.05 * random.normal(), 0.02 * random.normal(), 2 + 0.3 * random.normal()])
               for i in range(frames - 1)]
    poses = [pose(rotation(0.7, [1, 2, 3]), [5, -2, 9])]
    for motion in motions:
        poses.append(poses[-1] @ motion)
    return np.array(poses)

