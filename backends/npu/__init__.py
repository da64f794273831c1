"""The npu target family: what its engines take, how layers become instructions, and the pipeline."""

from .family import FAMILY

__all__ = ["FAMILY"]
