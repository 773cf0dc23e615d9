"""Prepare data: footage into datasets, checks of a split, and KITTI's archives and images."""
