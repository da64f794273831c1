"""Launches of elementwise.cl: unary and binary functions, comparisons, selections, casts, batch normalisation.

A function is a line of a table here, and one of the `.cl` where OpenCL C has no built-in for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xdsl.ir import Attribute

from ....dialects import graph
from ....dialects.types import dtype_of, f32, i1, i64
from ....errors import CompileError
from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library, Shape
from ....runtime.kernels.graph_elementwise import bound
from .coalesce import around, broadcast_strides, coalesced, in_runs

LIBRARY = Library(__package__)


class Functions(NamedTuple):
    """What an operation is in C for elements of a kind; None where it has no meaning for them."""

    floats: str | None
    integers: str | None = None
    booleans: str | None = None


UNARY: Mapping[type[graph.UnaryOp], Functions] = {
    graph.NegOp: Functions("negative", "negative"),
    graph.AbsOp: Functions("fabs", "abs"),
    graph.ExpOp: Functions("exp"),
    graph.LogOp: Functions("log"),
    graph.SqrtOp: Functions("sqrt"),
    graph.RsqrtOp: Functions("inverse_root"),
    graph.ErfOp: Functions("erf"),
    graph.FloorOp: Functions("floor"),
    graph.CeilOp: Functions("ceil"),
    graph.RoundOp: Functions("rint"),
    graph.SinOp: Functions("sin"),
    graph.CosOp: Functions("cos"),
    graph.TanhOp: Functions("tanh"),
    graph.AtanOp: Functions("atan"),
    graph.ReluOp: Functions("relu", "relu"),
    graph.ClampOp: Functions("clamped", "clamped"),
    graph.LeakyReluOp: Functions("leaky_relu"),
    graph.EluOp: Functions("elu"),
    graph.SigmoidOp: Functions("sigmoid"),
    graph.HardSigmoidOp: Functions("hard_sigmoid"),
    graph.GeluOp: Functions("gelu"),
    graph.HardSwishOp: Functions("hard_swish"),
}
BINARY: Mapping[type[graph.BinaryOp], Functions] = {
    graph.AddOp: Functions("sum", "sum", "larger"),
    graph.SubOp: Functions("difference", "difference"),
    graph.MulOp: Functions("product", "product", "smaller"),
    graph.DivOp: Functions("quotient", "whole_quotient"),
    graph.MinOp: Functions("smaller", "smaller", "smaller"),
    graph.MaxOp: Functions("larger", "larger", "larger"),
    graph.FmodOp: Functions("float_remainder", "whole_remainder"),
    graph.PowOp: Functions("pow", "whole_power"),
    graph.PreluOp: Functions("prelu", "prelu"),
}
"""Sums of booleans are disjunctions, products are conjunctions, as numpy has them."""
BITWISE: Mapping[str, Functions] = {
    "and": Functions(None, "bits_and", "bits_and"),
    "or": Functions(None, "bits_or", "bits_or"),
    "xor": Functions(None, "bits_xor", "bits_xor"),
    "left": Functions(None, "bits_left"),
    "right": Functions(None, "bits_right"),
}


def of_function(name: str, functions: Functions, build: Build) -> Defines:
    """FUNCTION, and the parameters: numbers as the elements have them, flags that are set."""
    element = build.inputs[0]
    function = functions.floats if element == f32 else functions.booleans if element == i1 else functions.integers
    if function is None:
        kinds = zip(("floats", "integers", "booleans"), functions)
        raise CompileError(
            f"{name} of {element} has no kernel on the programmable engine, which computes it for "
            f"{' and '.join(k for k, f in kinds if f)}; cast the operands"
        )
    flags = {n.upper(): 1 for n, v in build.parameters.items() if v is True}
    values = {n.upper(): number(v, element) for n, v in build.parameters.items() if isinstance(v, float)}
    return {"FUNCTION": function, **flags, **values}


def number(value: float, element: Attribute) -> float | str:
    """A parameter as a number of the elements; integers hold the nearest they can."""
    nearest = bound(value, dtype_of(element))
    if element == f32:
        return float(nearest)
    return "LONG_MIN" if nearest == -(2**63) else f"({nearest}L)"  # C has no literal for that one


def elements(call: Call) -> Arguments:
    """One work item an element; tiles are dense, so their axes do not matter."""
    return Arguments((), (math.prod(call.outputs[0]),))


def repeated(operands: Sequence[Shape], onto: Shape, what: str) -> Arguments:
    """Sizes of the runs that the third id counts, and the operands' steps; the grid is all elements."""
    strides = [broadcast_strides(s, onto) for s in operands]
    return in_runs(coalesced(onto, *strides), len(strides), what)


def operands(call: Call) -> Arguments:
    """One work item an element of the result, onto which the operands broadcast."""
    return repeated(call.inputs, call.outputs[0], "an operation on operands that repeat")


for _unary, _functions in UNARY.items():
    _of = functools.partial(of_function, _unary.name, _functions)
    LIBRARY.kernel(_unary.name, "elementwise.cl", entry="unary", defines=_of)(elements)

for _binary, _functions in BINARY.items():
    _of = functools.partial(of_function, _binary.name, _functions)
    LIBRARY.kernel(_binary.name, "elementwise.cl", entry="binary", defines=_of)(operands)


def of_bits(build: Build) -> Defines:
    """An operation on bits is one of several functions."""
    return of_function("graph.bitwise", BITWISE[build.parameters.operation], build)


LIBRARY.kernel("graph.bitwise", "elementwise.cl", entry="binary", defines=of_bits)(operands)


def of_predicate(build: Build) -> Defines:
    """A predicate is called as its function is."""
    return {"FUNCTION": build.parameters.predicate}


LIBRARY.kernel("graph.compare", "elementwise.cl", entry="binary", defines=of_predicate)(operands)
LIBRARY.kernel("graph.select", "elementwise.cl", entry="choose")(operands)


def of_cast(build: Build) -> Defines:
    """Only floats that become integers, and whatever becomes a boolean, are more than C's assignment."""
    (source,), (target,) = build.inputs, build.outputs
    if target == i1:
        return {"FUNCTION": "nonzero"}
    if source != f32 or target == f32:
        return {"FUNCTION": "same"}
    return {"FUNCTION": "through_long" if target == i64 else "through_int"}


LIBRARY.kernel("graph.cast", "elementwise.cl", entry="unary", defines=of_cast)(elements)


def of_epsilon(build: Build) -> Defines:
    """EPSILON."""
    return {"EPSILON": float(build.parameters.epsilon)}


@LIBRARY.kernel("graph.batch_norm", "elementwise.cl", defines=of_epsilon)
def batch_norm(call: Call) -> Arguments:
    """One work item an element."""
    outer, size, inner = around(call.inputs[0], call.parameters.axis)
    return Arguments((), (inner, size, outer))
