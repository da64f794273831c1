"""What the importers of spatial operators share: sliding windows, and channels moved last and first again.

Operator pages: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from xdsl.ir import SSAValue

from ...dialects import graph
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import shape_of
from .node import Node
from .registry import Unsupported

# --- layout ----------------------------------------------------------------------------------------------
LAYOUTS = ("[N, C, W]", "[N, C, H, W]", "[N, C, D, H, W]")


def spatial_rank(node: Node, rank: int, most: int = 2) -> int:
    """Number of spatial axes of `[N, C, …]`. Raises Unsupported for other than one to `most`."""
    if not 3 <= rank <= most + 2:
        kind = f"{rank - 2}-D" if rank > 2 else f"rank-{rank}"
        known = [f"{i + 1}-D" for i in range(most)]
        layouts = f"({', '.join(LAYOUTS[: most - 1])} and {LAYOUTS[most - 1]})"
        raise Unsupported(
            f"{kind} {node.proto.op_type} is not supported, only {', '.join(known[:-1])} and {known[-1]} {layouts}"
        )
    return rank - 2


def last(rank: int) -> tuple[int, ...]:
    """The permutation from channels-first to channels-last."""
    return (0, *range(2, rank), 1)


def first(rank: int) -> tuple[int, ...]:
    """The permutation from channels-last to channels-first."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(
    node: Node, op: type[DeclarativeOp], ifm: SSAValue, *others: SSAValue | None, **parameters: Any
) -> SSAValue:
    """The spatial op on a channels-first tensor: transpose, op, transpose back."""
    rank = len(shape_of(ifm))
    moved = node.emit(graph.TransposeOp, ifm, permutation=last(rank))
    result = node.emit(op, moved, *others, **parameters)
    return node.emit(graph.TransposeOp, result, permutation=first(rank))


# --- windows ---------------------------------------------------------------------------------------------
class Window(NamedTuple):
    """A sliding window; pads: all beginnings, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """Number of input positions that a dilated window spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1


def window_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The node's window with `auto_pad` resolved."""
    rank = len(sizes)
    strides = tuple(node.attribute("strides", [1] * rank))
    dilations = tuple(node.attribute("dilations", [1] * rank))
    auto_pad = node.attribute("auto_pad", "NOTSET")
    window = Window(tuple(kernel), strides, tuple(node.attribute("pads", [0] * 2 * rank)), dilations)
    for name, values in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank:
            raise Unsupported(
                f"'{name}' = {list(values)} does not have an entry for each of {rank} spatial axes"
            )
    if auto_pad == "NOTSET":
        return window
    if auto_pad == "VALID":
        return window._replace(pads=(0,) * 2 * rank)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad '{auto_pad}' is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    totals = [
        max((math.ceil(size / stride) - 1) * stride + window.reach(i) - size, 0)
        for i, (size, stride) in enumerate(zip(sizes, strides))
    ]
    return window._replace(pads=same_pads(totals, auto_pad == "SAME_LOWER"))


def same_pads(totals: Sequence[int], more_before: bool) -> tuple[int, ...]:
    """Padding shared between both ends, the odd one after (SAME_UPPER) or before (SAME_LOWER)."""
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*large, *small) if more_before else (*small, *large)


def ceil_overhang(window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
    """How far the last window of ceil mode reaches beyond the padded axis.

    A window that would start in the end padding does not count (MaxPool's page, ceil_mode).
    """
    rank, over = len(sizes), []
    for i, (size, stride) in enumerate(zip(sizes, window.strides)):
        padded = size + window.pads[i] + window.pads[rank + i]
        count = math.ceil((padded - window.reach(i)) / stride) + 1
        if (count - 1) * stride >= size + window.pads[i]:
            count -= 1
        over.append(max((count - 1) * stride + window.reach(i) - padded, 0))
    return tuple(over)


def extend(window: Window, over: Sequence[int]) -> Window:
    """The window with longer end pads."""
    rank = len(over)
    return window._replace(pads=(*window.pads[:rank], *(p + o for p, o in zip(window.pads[rank:], over))))
