"""What a training run has besides its loop: building, loading, states, logs, progress."""
