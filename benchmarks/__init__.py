"""Speed, each number beside that of the literal pipeline in the same run."""
