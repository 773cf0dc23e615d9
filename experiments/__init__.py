"""Train and evaluate the rows of the paper's tables for several seeds."""
