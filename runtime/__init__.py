"""Provide errors, atomic files, downloads, process groups, signals and seeds for long runs."""
