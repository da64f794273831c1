"""Runs an npu module in buffer form: whole layers or tiles, by the definitions the emulator uses.

Buffers are numpy arrays and views of them, so what the emulator does with addresses and queues is not tested
against itself here: this is the meaning that allocation and scheduling have to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from ..dialects.declarative import value_of
from ..dialects.nacre import array_of, initial_states, module_of
from ..dialects.npu import Instruction, buffer_type
from ..dialects.npu_instructions import AllocOp, ConstantOp, KernelOp, LaunchOp, ReshapeOp, ViewOp, layout_of
from ..dialects.ppu import FuncOp
from ..dialects.types import dtype_of, tensor
from ..errors import NacreError
from .execute import EXECUTE, port_arrays
from .interpreter import States, Watch, argument_names, check_feeds, check_states, main_function
from .ppu import Kernel, prepare


def interpret_npu(
    module: ModuleOp,
    feeds: Mapping[str, np.ndarray],
    watch: Watch | None = None,
    states: States | None = None,
) -> dict[str, np.ndarray]:
    """Run @main in buffer form on named inputs. `watch` sees each DRAM buffer after its last write.

    states: as for `interpret`, what they hold before the run and then behind it.
    """
    if states is None:
        states = initial_states(module)
    check_states(module, states)
    function = main_function(module)
    kernels = prepared_kernels(module)
    values: dict[SSAValue, np.ndarray] = {}
    outputs: dict[str, SSAValue] = {}
    expected = {}
    assert function.arg_attrs is not None
    for name, argument, attributes in zip(argument_names(function), function.args, function.arg_attrs):
        type_ = buffer_type(argument)
        kind = attributes.data["npu.kind"].data  # type: ignore[attr-defined]
        if kind == "output":
            values[argument] = _empty(argument)
            outputs[name] = argument
        elif kind == "state":  # instructions write into this array
            values[argument] = states[name] = states[name].copy()
        else:
            expected[name] = type_.shape, dtype_of(type_.element)
            values[argument] = np.asarray(feeds.get(name))
    check_feeds(expected, feeds)
    ops = list(function.body.block.ops)
    last = _last_uses(ops)
    for index, op in enumerate(ops):
        if not isinstance(op, ReturnOp):
            _execute(op, values, kernels)
        for value in last.get(index, ()):
            if watch is not None and not isinstance(value.owner, ConstantOp):
                watch(value, values[value])
            del values[value]
    return {name: values[argument] for name, argument in outputs.items()}


def prepared_kernels(module: ModuleOp) -> dict[str, Kernel]:
    """The kernels of a module ready to run, by their symbols. Raises NacreError where one has no function."""
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    for kernel in kernels:
        symbol, function = kernel.sym_name.data, kernel.function.data
        if function not in functions:
            raise NacreError(f"kernel @{symbol} runs @{function}, which the module does not hold")
    prepared = {name: prepare(function) for name, function in functions.items()}
    return {kernel.sym_name.data: prepared[kernel.function.data] for kernel in kernels}


def _execute(op: Operation, values: dict[SSAValue, np.ndarray], kernels: Mapping[str, Kernel]) -> None:
    if isinstance(op, Instruction):
        fields = SimpleNamespace(**op.fields())
        if isinstance(op, LaunchOp):
            fields.kernel = kernels[fields.kernel]
        arrays = {name: [values[v] for v in buffers] for name, buffers in op.ports().items()}
        EXECUTE[type(op)](fields, port_arrays(type(op), arrays))
    elif isinstance(op, AllocOp):
        values[op.result] = _empty(op.result)
    elif isinstance(op, ConstantOp):
        type_ = buffer_type(op.result)
        values[op.result] = array_of(op.value, tensor(type_.shape, type_.element), module_of(op))
    elif isinstance(op, ViewOp):
        boxes = zip(value_of(op.offsets), buffer_type(op.result).shape, value_of(op.steps))
        index = tuple(slice(o, o + (n - 1) * s + 1 if n else o, s) for o, n, s in boxes)
        values[op.result] = values[op.source][index]
    elif isinstance(op, ReshapeOp):
        whole = values[op.source]
        reshaped = whole.reshape(buffer_type(op.result).shape)
        if whole.size and not np.shares_memory(whole, reshaped):
            raise NacreError("npu.reshape of a buffer with gaps")
        values[op.result] = reshaped
    else:
        raise NacreError(f"the interpreter has no rule for {op.name}")


def _empty(value: SSAValue) -> np.ndarray:
    type_ = buffer_type(value)
    return np.zeros(type_.shape, dtype_of(type_.element))


def _last_uses(ops: list[Operation]) -> dict[int, list[SSAValue]]:
    """Values by the op after which neither they nor a view of them is used."""
    last: dict[SSAValue, int] = {}
    roots: dict[SSAValue, SSAValue] = {}
    for index, op in enumerate(ops):
        for value in (*op.results, *op.operands):
            last[value] = index
            if value not in roots:
                roots[value] = layout_of(value).root
            last[roots[value]] = index
    freed: dict[int, list[SSAValue]] = {}
    for value, index in last.items():
        if not isinstance(value, BlockArgument):
            freed.setdefault(index, []).append(value)
    return freed
