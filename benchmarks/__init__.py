"""Measure speed beside the literal pipeline, in one run."""
