"""A test split or sequence measured against ground truth."""
