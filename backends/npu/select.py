"""npu-select: graph and qnn operations on tensors become instructions on whole buffers in DRAM.

A selection is registered by op class; an operation without one becomes a launch of a built-in kernel on the
programmable engine. Moves cost nothing where a view says the same: reshapes, slices, splits, and concats
whose inputs are written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...dialects import graph
from ...dialects import npu_instructions as npu
from ...dialects.declarative import DeclarativeOp, Parameters
from ...dialects.nacre import constant_attribute, set_sources, sources_of, store_of
from ...dialects.npu import Buffer, BufferType, Instruction, Space, buffer, buffer_type
from ...dialects.quant import CastOp
from ...dialects.types import FLOATS, element_of, element_type, shape_of, storage_of
from ...errors import CompileError
from ...passes.base import NacrePass
from ...passes.npu.form import LAYER, set_form
from ...passes.npu.launch_tile_rules import launch_rule
from ...passes.npu.target import machine_of
from ...passes.rewrite import location_names
from ...runtime.interpreter import argument_names, main_function, result_names
from ...runtime.machine import Machine

Selection = Callable[[Any, "Selector"], None]
SELECTIONS: dict[type[Operation], Selection] = {}
REORDERED: set[type[Operation]] = set()


def selects(*ops: type[Operation], reorders: bool = False) -> Callable[[Selection], Selection]:
    """Register how op classes become instructions; `reorders`: float sums in another order than above."""

    def register(function: Selection) -> Selection:
        for op in ops:
            SELECTIONS[op] = function
        if reorders:
            REORDERED.update(ops)
        return function

    return register


def reorders(op: Operation) -> bool:
    """Whether an operation's floats may differ in their last bits from here on."""
    return type(op) in REORDERED and any(element_type(v) in FLOATS for v in op.results)


def legal(op: Operation) -> str | None:
    """None if the npu family can run an operation, else the reason why not."""
    if type(op) in SELECTIONS or launch_rule(op.name) or isinstance(op, (graph.ConstantOp, ReturnOp)):
        return None
    return f"no engine and no kernel of the npu family runs {op.name}"


@dataclass(frozen=True)
class SelectPass(NacrePass):
    """Turn graph and qnn operations into npu instructions on whole layers in DRAM."""

    name = "npu-select"
    target: str | None = None

    def run(self, module: ModuleOp) -> None:
        machine = machine_of(module, self.target)
        function = main_function(module)
        refuse_illegal(function)
        selector = Selector(module, function, machine)
        selector.run()
        set_form(module, LAYER)


def refuse_illegal(function: FuncOp) -> None:
    """Raise one CompileError that names every operation the family cannot run."""
    problems = [
        f"  '{'+'.join(location_names(op.location)) or op.name}': {reason}"
        for op in function.body.block.ops
        if (reason := legal(op))
    ]
    if problems:
        raise CompileError("these layers cannot be compiled for the npu family:\n" + "\n".join(problems))


class Selector:
    """Writes the buffer form of one function."""

    def __init__(self, module: ModuleOp, function: FuncOp, machine: Machine):
        self.module, self.function, self.machine = module, function, machine
        self.store = store_of(module)
        self.block = Block()
        self.buffers: dict[SSAValue, SSAValue] = {}
        self.kernels: dict[tuple[str, str, str], str] = {}
        self.constants: dict[tuple[Attribute, Buffer], SSAValue] = {}
        self.in_place: dict[SSAValue, tuple[graph.ConcatOp, int]] = {}
        self.layer: Operation = function

    # -- the walk
    def run(self) -> None:
        """Replace the function's body and signature."""
        old = self.function.body.block
        returned = self._signature(old)
        self._plan_concats(old, returned)
        for op in old.ops:
            self.layer = op
            if isinstance(op, ReturnOp):
                self._finish(op, returned)
            elif isinstance(op, graph.ConstantOp):
                continue
            elif (selection := SELECTIONS.get(type(op))) is not None:
                selection(op, self)
            else:
                self.launch(op)
        self.function.body.detach_block(old)
        self.function.body.add_block(self.block)
        for op in reversed(list(old.ops)):
            op.detach()
            op.erase(safe_erase=False)

    def _signature(self, old: Block) -> dict[SSAValue, SSAValue]:
        """New arguments: the inputs, then the outputs. Gives the argument that each returned value fills."""
        attributes = []
        for name, argument in zip(argument_names(self.function), old.args):
            new = self.block.insert_arg(self._type(argument), len(self.block.args))
            self.buffers[argument] = new
            attributes.append(_attributes(name, "input"))
        returned: dict[SSAValue, SSAValue] = {}
        returns = next(op for op in old.ops if isinstance(op, ReturnOp))
        self.outputs: list[SSAValue] = []
        for name, value in zip(result_names(self.function), returns.operands):
            new = self.block.insert_arg(self._type(value), len(self.block.args))
            self.outputs.append(new)
            attributes.append(_attributes(name, "output"))
            # Only what an op writes itself can be written straight to the output.
            if value not in returned and isinstance(value.owner, Operation) and writes_result(value.owner):
                returned[value] = new
        from xdsl.dialects.builtin import FunctionType

        self.function.function_type = FunctionType.from_lists([a.type for a in self.block.args], [])
        self.function.arg_attrs = ArrayAttr(attributes)
        self.function.properties.pop("res_attrs", None)
        return returned

    def _finish(self, op: ReturnOp, returned: dict[SSAValue, SSAValue]) -> None:
        for value, output in zip(op.operands, self.outputs):
            if returned.get(value) is not output:
                self.layer = value.owner if isinstance(value.owner, Operation) else op
                self.emit(npu.CopyOp, {"src": self.buffer(value), "dst": output})
        self.block.add_op(ReturnOp())

    def _plan_concats(self, old: Block, returned: dict[SSAValue, SSAValue]) -> None:
        """Which values are written straight into their concat's buffer."""
        self.returned = returned
        for op in old.ops:
            if not isinstance(op, graph.ConcatOp):
                continue
            offset = 0
            axis = op.parameters().axis
            for value in op.inputs:
                owner = value.owner
                free = isinstance(owner, Operation) and writes_result(owner) and value not in returned
                if free and value not in self.in_place and not _feeds_reshape(value):
                    self.in_place[value] = (op, offset)
                offset += shape_of(value)[axis]

    # -- buffers
    def _type(self, value: SSAValue) -> BufferType:
        return buffer(shape_of(value), storage_of(element_type(value)), Space.DRAM)

    def buffer(self, value: SSAValue) -> SSAValue:
        """The buffer that holds a value."""
        known = self.buffers.get(value)
        if known is None:
            assert isinstance(value.owner, graph.ConstantOp), value
            known = self.constant_attribute(value.owner.value, buffer_type_of(self._type(value)), value.owner)
            self.buffers[value] = known
        return known

    def dense(self, value: SSAValue) -> SSAValue:
        """The buffer that holds a value, row-major: copied where it is a view with gaps."""
        here = self.buffer(value)
        if npu.dense_layout(here) is None:
            copy = self.alloc(buffer_type(here).shape, buffer_type(here).element)
            self.emit(npu.CopyOp, {"src": here, "dst": copy})
            return copy
        return here

    def result(self, value: SSAValue) -> SSAValue:
        """The buffer to write a value to: an output, a place in a concat, or a new one."""
        if value in self.buffers:
            return self.buffers[value]
        if value in self.returned:
            made = self.returned[value]
        elif value in self.in_place:
            concat, offset = self.in_place[value]
            whole = self.result(concat.result)
            axis, shape = concat.parameters().axis, shape_of(value)
            made = self.view(whole, tuple(offset if i == axis else 0 for i in range(len(shape))), shape)
        else:
            made = self.alloc(shape_of(value), storage_of(element_type(value)))
        self.name(made, value)
        self.buffers[value] = made
        return made

    def name(self, made: SSAValue, value: SSAValue) -> None:
        """Let a buffer stand for the source tensors of a value."""
        if sources := sources_of(value):
            set_sources(made, sources)

    def alias(self, value: SSAValue, made: SSAValue) -> None:
        """Let a view stand for a value."""
        self.buffers[value] = made
        self.name(made, value)

    def alloc(self, shape: Sequence[int], element: Attribute) -> SSAValue:
        """A new buffer in DRAM."""
        return self._add(
            npu.AllocOp.create(result_types=[buffer(tuple(shape), element, Space.DRAM)])
        ).results[0]

    def view(
        self,
        whole: SSAValue,
        offsets: tuple[int, ...],
        sizes: tuple[int, ...],
        steps: tuple[int, ...] | None = None,
    ) -> SSAValue:
        """A box of a buffer."""
        return self._add(npu.ViewOp.of(whole, offsets, sizes, steps)).results[0]

    def reshape(self, whole: SSAValue, shape: Sequence[int]) -> SSAValue:
        """A dense buffer in another shape."""
        type_ = buffer_type(whole)
        if type_.shape == tuple(shape):
            return whole
        made = npu.ReshapeOp.create(
            operands=[whole], result_types=[buffer(tuple(shape), type_.element, type_.space)]
        )
        return self._add(made).results[0]

    def constant(self, array: np.ndarray, name: str = "") -> SSAValue:
        """A buffer that holds an array."""
        type_ = Buffer(array.shape, element_of(array.dtype), Space.DRAM)
        return self.constant_attribute(constant_attribute(array, self.store, name), type_, self.layer)

    def constant_attribute(self, value: Attribute, type_: Buffer, layer: Operation) -> SSAValue:
        """A buffer that holds a constant's value; the same constant twice is one buffer."""
        key = (value, type_)
        if key not in self.constants:
            op = npu.ConstantOp.create(properties={"value": value}, result_types=[BufferType(type_)])
            self.constants[key] = self._add(op).results[0]
        return self.constants[key]

    # -- instructions
    def emit(self, cls: type[Instruction], ports: dict[str, Any], **fields: Any) -> None:
        """Add an instruction for the current layer."""
        self._add(cls.make(ports, **fields))

    def _add(self, op: Operation) -> Operation:
        op.location = self.layer.location
        self.block.add_op(op)
        return op

    def launch(
        self, op: Operation, operation: str | None = None, parameters: Parameters | None = None
    ) -> None:
        """Run an operation as a built-in kernel."""
        assert isinstance(op, DeclarativeOp), op
        inputs = [self.buffer(v) for v in op.operands]
        outputs = [self.result(v) for v in op.results]
        operation, parameters = operation or op.name, parameters or op.parameters()
        open_ = OPEN.get(operation, {})
        ports = {"inputs": inputs, "outputs": outputs}
        scalars = tuple(v for name in open_ for v in np.atleast_1d(parameters[name]).tolist())
        self.emit(npu.LaunchOp, ports, kernel=self.kernel(operation, parameters, open_), scalars=scalars)

    def kernel(self, operation: str, parameters: Parameters, open_: dict[str, int] | None = None) -> str:
        """The symbol of a kernel, made once for equal parameters."""
        open_ = open_ if open_ is not None else OPEN.get(operation, {})
        key = (operation, repr(sorted(parameters.items(), key=lambda p: p[0])), repr(open_))
        if key not in self.kernels:
            symbol = f"{operation.partition('.')[2]}_{len(self.kernels)}"
            self.kernels[key] = symbol
            op = npu.KernelOp.of(symbol, operation, parameters, open_)
            self.module.body.block.insert_op_before(op, self.function)
        return self.kernels[key]


OPEN: dict[str, dict[str, int]] = {}
"""Parameters that a kernel's tiles set for themselves, by operation: name and number of scalars."""


def buffer_type_of(type_: BufferType) -> Buffer:
    """The data of a buffer type."""
    return type_.data


def writes_result(op: Operation) -> bool:
    """Whether an op writes a buffer of its own (and is no view of another)."""
    return not isinstance(
        op, (graph.ConstantOp, graph.ReshapeOp, graph.SliceOp, graph.SplitOp)
    ) and isinstance(op, (DeclarativeOp, CastOp))


def _feeds_reshape(value: SSAValue) -> bool:
    """Whether a reshape reads the value, which a view inside a concat could not serve without a copy."""
    return any(isinstance(use.operation, graph.ReshapeOp) for use in value.uses)


def _attributes(name: str, kind: str) -> DictionaryAttr:
    return DictionaryAttr({"nacre.name": StringAttr(name), "npu.kind": StringAttr(kind)})
