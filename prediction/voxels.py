"""Fuse streams of coloured points in voxels: one mean point for each occupied voxel."""
from __future__ import annotations

import numpy as np

BITS = 21          # of a voxel's index along one axis, in a key of 64 bits
MAX_VOXELS = 2**22  # kept; 200 MB
MIN_PENDING = 2**20  # points that wait to be merged


class VoxelCloud:
    """Hold the mean position and colour of the points in each voxel.

    Args:
        size: edge of a voxel, in the unit of the points. It is doubled whenever more than
            `max_voxels` are occupied, so that memory is bounded.
        max_voxels: voxels to keep.

    Attributes:
        size: edge of a voxel now.
    """

    def __init__(self, size: float, max_voxels: int = MAX_VOXELS):
        self.size, self.max_voxels = size, max_voxels
        self._sums = np.empty((0, 7))  # x y z red green blue, number of points
        self._pending, self._waiting = [], 0

    def add(self, points: np.ndarray, colours: np.ndarray) -> None:
        """Add (N, 3) points with (N, 3) colours."""
        self._pending.append(np.column_stack([points, colours, np.ones(len(points))]))
        self._waiting += len(points)
        if self._waiting > max(MIN_PENDING, len(self._sums)):  # a constant cost a point
            self._merge()

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean points (N, 3) float32 and colours (N, 3) uint8 of occupied voxels."""
        self._merge()
        means = self._sums[:, :6] / self._sums[:, 6:]
        return means[:, :3].astype(np.float32), means[:, 3:].round().astype(np.uint8)

    def _merge(self) -> None:
        """Add the points that wait to the sums of their voxels."""
        sums = np.concatenate([self._sums, *self._pending])
        self._pending, self._waiting = [], 0
        while True:
            # by its mean, each voxel's sum stays in its voxel
            index = np.floor(sums[:, :3] / sums[:, 6:] / self.size)
            reach = 2**(BITS - 1) - 1
            i, j, k = np.clip(index, -reach, reach).astype(np.int64).T + reach
            keys = (i << 2 * BITS) | (j << BITS) | k
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
            sums = np.add.reduceat(sums[order], starts) if len(starts) else sums
            if len(sums) <= self.max_voxels:
                self._sums = sums
                return
            self.size *= 2
