"""Support the training loop: building, loading, states, logs, progress."""
