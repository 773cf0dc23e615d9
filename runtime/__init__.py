"""Serve long runs: errors, files, downloads, processes, signals, seeds, and the machine."""
