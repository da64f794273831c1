"""Importing this module registers the kernel of every graph operation; they are defined in graph_*.py."""

from . import (
    graph_arithmetic,
    graph_elementwise,
    graph_linear,
    graph_movement,
    graph_pool,
    graph_reduce,
    graph_resize,
    graph_sample,
    graph_scan,
    graph_scatter,
)

__all__ = [
    "graph_arithmetic", "graph_elementwise", "graph_linear", "graph_movement", "graph_pool", "graph_reduce",
    "graph_resize", "graph_sample", "graph_scan", "graph_scatter",
]  # fmt: skip
