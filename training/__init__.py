"""Parts of a training run besides its loop: building, loading, states, logs, progress."""
