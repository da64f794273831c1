"""The tile rules of launches, by the operation that the kernel computes.

A rule is registered by operation; elementwise ones share one, here; others are beside this file, by topic.
Kernels named ppu.* go on from partial results, so their reduced axes can be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xdsl.ir import Attribute
from xdsl.traits import SymbolTable

from ...dialects import graph, qnn
from ...dialects import npu_instructions as npu
from ...dialects.declarative import Parameters
from ...dialects.nacre import module_of
from ...dialects.npu import buffer_type
from ...dialects.npu_instructions import KernelOp
from ...errors import CompileError
from ...runtime.kernel import operations
from .tiling import Box, Piece, Tiling, follow, tiles

LaunchRule = Callable[[npu.LaunchOp, Parameters], Tiling]
LAUNCH_RULES: dict[str, LaunchRule] = {}


def launch_tiles(*operations: Any) -> Callable[[LaunchRule], LaunchRule]:
    """Register the tile rule of kernels by operation (op class or name)."""

    def register(rule: LaunchRule) -> LaunchRule:
        for operation in operations:
            LAUNCH_RULES[operation if isinstance(operation, str) else operation.name] = rule
        return rule

    return register


def launch_rule(operation: str) -> LaunchRule | None:
    """The rule for kernels of an operation: its own, or elementwise for a unary or binary operation of any dialect."""
    if operation in LAUNCH_RULES:
        return LAUNCH_RULES[operation]
    cls = operations().get(operation)
    return elementwise if cls is not None and issubclass(cls, (graph.UnaryOp, graph.BinaryOp)) else None


@tiles(npu.LaunchOp)
def launch(op: npu.LaunchOp) -> Tiling:
    """The rule of the kernel's operation."""
    kernel = kernel_named(op, op.fields()["kernel"])
    rule = launch_rule(kernel.operation.data)
    if rule is None:
        raise CompileError(f"no tile rule is registered for kernels of {kernel.operation.data}")
    return rule(op, kernel.parameters())


def kernel_named(launch: npu.LaunchOp, symbol: str) -> KernelOp:
    """The kernel of the launch's module by its symbol."""
    found = SymbolTable.lookup_symbol(module_of(launch), symbol)
    if isinstance(found, KernelOp):
        return found
    raise CompileError(f"the module holds no kernel @{symbol}")


def shapes(op: npu.LaunchOp) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of inputs and outputs."""
    inputs, outputs = op.buffers("inputs"), op.buffers("outputs")
    return [buffer_type(v).shape for v in inputs], [buffer_type(v).shape for v in outputs]


@launch_tiles(
    graph.CompareOp, graph.SelectOp, graph.CastOp, qnn.PreluOp, qnn.LeakyReluOp, "ppu.broadcast",
    "ppu.softmax_output", "ppu.quantised_softmax_output", "ppu.softmax16_output", "ppu.normalise",
)  # fmt: skip
def elementwise(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis of the result; broadcast operands stay whole along theirs."""
    inputs, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [follow(box, s) for s in inputs], "outputs": [box]}, {})

    return Tiling(op, out, piece, output="outputs")


@launch_tiles(graph.BatchNormOp)
def batch_norm(op: npu.LaunchOp, p: Parameters) -> Tiling:
    """Every axis; the statistics follow the channels."""
    inputs, (out,) = shapes(op)

    def piece(box: Box) -> Piece:
        return Piece({"inputs": [box, *((box[p.axis],) for _ in inputs[1:])], "outputs": [box]}, {})

    return Tiling(op, out, piece, output="outputs")


def element(op: npu.LaunchOp) -> Attribute:
    """Element type of the result, which partial results have as well."""
    return buffer_type(op.buffers("outputs")[0]).element


def ends(box: Box, extents: Sequence[int], reduced: int) -> int:
    """1 for the last part of a reduction over the last axes of an iteration space."""
    at = zip(box[len(box) - reduced :], extents[len(extents) - reduced :])
    return int(all(o + n == e for (o, n), e in at))
