"""Evaluation of depth and odometry: a test split or a sequence measured against ground truth."""
