"""Render a street drive as data in KITTI's layout, and run a demo that learns from it."""
