"""A rendered street drive as data, and the demo that learns from it."""
