"""Importing this module registers the kernel of every graph operation; they are defined in graph_*.py."""

from . import graph_elementwise, graph_linear, graph_movement, graph_pool, graph_reduce, graph_resize

__all__ = [
    "graph_elementwise", "graph_linear", "graph_movement", "graph_pool", "graph_reduce", "graph_resize",
]  # fmt: skip
