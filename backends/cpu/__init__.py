"""The cpu target family: the graph or qnn level itself, run by its kernels on the host."""

from .family import FAMILY

__all__ = ["FAMILY"]
