"""The rows of the paper's tables as command lines, and what runs them for several seeds."""
