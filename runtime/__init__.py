"""What any long run needs of its machine: errors, files, downloads, processes, signals, seeds."""
