"""The levels of the compiler as xDSL dialects: operations, types, verifiers and syntax, and nothing else."""
