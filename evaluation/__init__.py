"""Measure the depth of a test split, or the motion of a sequence, against ground truth."""
