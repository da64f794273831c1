"""Runs a module at the graph or qnn level: a thin loop over the kernels, values freed at their last use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from ..dialects.declarative import DeclarativeOp
from ..dialects.graph import ConstantOp
from ..dialects.locations import layer_name
from ..dialects.nacre import ReadStateOp, WriteStateOp, initial_states, states_of
from ..dialects.quant import DCastOp, QCastOp, QuantType, SCastOp
from ..dialects.types import dtype_of, element_type, shape_of
from ..errors import InputError, NacreError
from .kernel import evaluate
from .kernels import graph as _graph  # noqa: F401  registers the kernels
from .kernels import graph_recurrent as _graph_recurrent  # noqa: F401
from .kernels import qnn as _qnn  # noqa: F401
from .kernels import quantised_recurrent as _quantised_recurrent  # noqa: F401
from .kernels.quantised_elementwise import dequantise, quantise

Watch = Callable[[SSAValue, np.ndarray], None]
States = MutableMapping[str, np.ndarray]
"""What each state of a module holds, by name."""


def main_function(module: ModuleOp) -> FuncOp:
    """The function `main` of a module. Raises NacreError when there is none."""
    for op in module.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main":
            return op
    raise NacreError("the module has no function @main")


def argument_names(function: FuncOp) -> list[str]:
    """The inputs' names (`nacre.name`), or arg0, arg1, … where none are given."""
    return _names(function.arg_attrs, len(function.args), "arg")


def result_names(function: FuncOp) -> list[str]:
    """The outputs' names."""
    return _names(function.res_attrs, len(function.function_type.outputs), "result")


def _names(attributes, count: int, default: str) -> list[str]:
    found = []
    for i in range(count):
        name = attributes.data[i].data.get("nacre.name") if attributes is not None else None
        found.append(name.data if isinstance(name, StringAttr) else f"{default}{i}")
    return found


def check_feeds(
    expected: Mapping[str, tuple[tuple[int, ...], np.dtype]], feeds: Mapping[str, np.ndarray]
) -> None:
    """Compare the arrays given with the inputs expected. Raises InputError in words."""
    for name in feeds:
        if name not in expected:
            raise InputError(f"there is no input '{name}'; the inputs are {', '.join(map(repr, expected))}")
    for name, (shape, dtype) in expected.items():
        if name not in feeds:
            raise InputError(f"the input '{name}' ({dtype}{list(shape)}) is missing")
        array = np.asarray(feeds[name])
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"the input '{name}' should be {dtype}{list(shape)}, but is {array.dtype}{list(array.shape)}"
            )


def expected_inputs(function: FuncOp) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype by input name."""
    return {
        name: (shape_of(arg), dtype_of(element_type(arg)))
        for name, arg in zip(argument_names(function), function.args)
    }


def check_states(module: ModuleOp, states: Mapping[str, np.ndarray]) -> None:
    """Compare the arrays given with the states of a module. Raises InputError in words."""
    known = states_of(module)
    for name in (*states, *known):
        if name not in known:
            raise InputError(f"there is no state '{name}'; the states are {', '.join(map(repr, known)) or 'none'}")
        if name not in states:
            raise InputError(f"the state '{name}' is missing: begin with nacre.dialects.nacre.initial_states(module)")
        type_, array = known[name].type, states[name]
        shape, dtype = shape_of(type_), dtype_of(element_type(type_))
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"the state '{name}' should be {dtype}{list(shape)}, but is {array.dtype}{list(array.shape)}"
            )


def interpret(
    module: ModuleOp,
    feeds: Mapping[str, np.ndarray],
    watch: Watch | None = None,
    states: States | None = None,
) -> dict[str, np.ndarray]:
    """Run @main on named inputs and give its named outputs. `watch` sees every value as it is made.

    states: what the module's states hold before the run, and afterwards what they hold then; without it they
    begin at their initial values. Arrays of quantised tensors hold stored integers. Raises InputError for feeds or
    states that do not fit.
    """
    function = main_function(module)
    check_feeds(expected_inputs(function), feeds)
    if states is None:
        states = initial_states(module)
    check_states(module, states)
    names = argument_names(function)
    values: dict[SSAValue, np.ndarray] = {
        arg: np.asarray(feeds[name]) for name, arg in zip(names, function.args)
    }
    if watch:
        for arg, array in values.items():
            watch(arg, array)
    results = run_block(list(function.body.block.ops), values, watch, states)
    return dict(zip(result_names(function), results))


def run_block(
    ops: Sequence[Operation], values: dict[SSAValue, np.ndarray], watch: Watch | None, states: States
) -> list[np.ndarray]:
    """Execute ops in order on `values` and `states`; gives what the return op returns."""
    last = _last_uses(ops)
    for index, op in enumerate(ops):
        if isinstance(op, ReturnOp):
            return [values[v] for v in op.operands]
        for value, array in zip(op.results, access_or_execute(op, [values[v] for v in op.operands], states)):
            values[value] = array
            if watch:
                watch(value, array)
        for value in last.get(index, ()):  # type: ignore[assignment]
            del values[value]
    raise NacreError("@main does not return")


def access_or_execute(
    op: Operation, arrays: Sequence[np.ndarray], states: States
) -> Iterator[np.ndarray] | Sequence[np.ndarray]:
    """The results of one operation, which may read or write a state. A state's array is nobody else's."""
    if isinstance(op, ReadStateOp):
        return (states[op.symbol()].copy(),)
    if isinstance(op, WriteStateOp):
        states[op.symbol()] = arrays[0].copy()
        return ()
    return execute(op, arrays)


def execute(op: Operation, arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray] | Sequence[np.ndarray]:
    """The results of one operation."""
    if isinstance(op, ConstantOp):
        return (op.array(),)
    if isinstance(op, QCastOp):
        type_ = element_type(op.result)
        assert isinstance(type_, QuantType)
        return (quantise(arrays[0], type_.scale, type_.zero, dtype_of(type_)),)
    if isinstance(op, DCastOp):
        type_ = element_type(op.input)
        assert isinstance(type_, QuantType)
        return (reals(arrays[0], type_),)
    if isinstance(op, SCastOp):
        return (arrays[0],)
    if isinstance(op, DeclarativeOp):
        try:
            return evaluate(op, *arrays)
        except NacreError as error:  # of an outside operator's kernel, which knows no layer
            raise type(error)(f"{layer_name(op)}: {error}") from None
    raise NacreError(f"the interpreter has no rule for {op.name}")


def reals(integers: np.ndarray, type_: QuantType) -> np.ndarray:
    """The floats that stored integers of a type, per tensor or per axis, stand for."""
    if type_.data.axis is None:
        return dequantise(integers, type_.scale, type_.zero)
    shape = [-1 if axis == type_.data.axis else 1 for axis in range(integers.ndim)]
    scales, zeros = np.array(type_.data.scales, np.float32), np.array(type_.data.zeros, np.int32)
    return (integers.astype(np.int32) - zeros.reshape(shape)).astype(np.float32) * scales.reshape(shape)


def _last_uses(ops: Sequence[Operation]) -> dict[int, list[SSAValue]]:
    last: dict[SSAValue, int] = {}
    for index, op in enumerate(ops):
        for value in (*op.results, *op.operands):
            last[value] = index
    freed: dict[int, list[SSAValue]] = {}
    for value, index in last.items():
        if not isinstance(value, BlockArgument):
            freed.setdefault(index, []).append(value)
    return freed
