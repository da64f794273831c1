"""npu-select: graph and qnn operations on tensors become instructions on whole buffers in DRAM.

A selection is registered by op class; an operation without one becomes a launch of the library's kernel for it on
the programmable engine. Moves cost nothing where a view says the same: reshapes, slices, splits, and concats
whose inputs are written in place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...dialects import graph, ppu
from ...dialects import npu_instructions as npu
from ...dialects.declarative import DeclarativeOp, Parameters
from ...dialects.locations import layer_name
from ...dialects.nacre import StateOp, constant_attribute, set_sources, sources_of, states_of, store_of
from ...dialects.npu import Buffer, BufferType, Instruction, Space, buffer, buffer_type
from ...dialects.quant import CastOp
from ...dialects.types import FLOATS, element_of, element_type, shape_of, storage_of
from ...errors import CompileError, NacreError
from ...passes.base import NacrePass
from ...passes.npu.form import LAYER, set_form
from ...passes.npu.launch_tile_rules import launch_rule
from ...passes.npu.soft_kernels import SOFT_KERNELS, Build, launch_fields, no_kernel, soft_kernel
from ...passes.npu.target import machine_of
from ...runtime.interpreter import argument_names, main_function, result_names
from ...runtime.machine import Machine
from .kernels import check_numbers, check_pointers, function_of

Selection = Callable[[Any, "Selector"], None]
SELECTIONS: dict[type[Operation], Selection] = {}
REORDERED: set[type[Operation]] = set()


def selects(*ops: type[Operation], reorders: bool = False) -> Callable[[Selection], Selection]:
    """Register how op classes become instructions; `reorders`: floats may differ in their last bits from above."""

    def register(function: Selection) -> Selection:
        for op in ops:
            SELECTIONS[op] = function
        if reorders:
            REORDERED.update(ops)
        return function

    return register


def reorders(op: Operation) -> bool:
    """Whether an operation's floats may differ in their last bits from here on: a kernel sums in one order where BLAS
    has its own, and computes exponentials and the like by the engine's polynomials."""
    if isinstance(op, (graph.ConstantOp, ReturnOp)) or not any(element_type(v) in FLOATS for v in op.results):
        return False
    return type(op) in REORDERED or type(op) not in SELECTIONS


def legal(op: Operation) -> str | None:
    """None if the npu family can run an operation, else the reason why not."""
    if type(op) in SELECTIONS or isinstance(op, (graph.ConstantOp, ReturnOp)):
        return None
    if op.name not in SOFT_KERNELS:
        return no_kernel(op.name)
    return None if launch_rule(op.name) else f"no tile rule is registered for the kernel of {op.name}"


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
        f"  {layer_name(op)}: {reason}"
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
        self.kernels: dict[Any, npu.KernelOp] = {}
        self.functions: dict[Any, ppu.FuncOp] = {}
        self.constants: dict[tuple[Attribute, Buffer], SSAValue] = {}
        self.in_place: dict[SSAValue, tuple[graph.ConcatOp, int]] = {}
        self.states: dict[str, SSAValue] = {}
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
        """New arguments: inputs, outputs, states. Gives the argument that each returned value fills."""
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
        for name, state in states_of(self.module).items():
            element = storage_of(state.type.element_type)
            self.states[name] = self.block.insert_arg(
                buffer(shape_of(state.type), element, Space.DRAM), len(self.block.args)
            )
            attributes.append(_attributes(name, "state"))
            if element != state.type.element_type:  # nothing below mentions a quantised type
                plain = StateOp.of(name, state.array(), self.store, element)
                self.module.body.block.insert_op_before(plain, state)
                state.detach()
                state.erase()
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
            known = self.constant_attribute(value.owner.value, self._type(value).data, value.owner)
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

    def launch(self, op: Operation) -> None:
        """Run an operation as the kernel of the library that is registered for it."""
        assert isinstance(op, DeclarativeOp), op
        inputs = [self.buffer(v) for v in op.operands]
        self.start(op.name, inputs, [self.result(v) for v in op.results], op.parameters())

    def start(
        self,
        operation: str,
        inputs: Sequence[SSAValue],
        outputs: Sequence[SSAValue],
        settled: Mapping[str, Any],
        open_: Mapping[str, Any] | None = None,
    ) -> None:
        """Launch a kernel of the library; `open_`: what tiles set for themselves, with the whole layer's values."""
        open_ = open_ or {}
        shapes_in, shapes_out = ([buffer_type(v).shape for v in side] for side in (inputs, outputs))
        if any(0 in shape for shape in shapes_out):
            return
        types_in, types_out = (tuple(buffer_type(v).element for v in side) for side in (inputs, outputs))
        build = Build(Parameters(settled), types_in, types_out)
        whole = [int(v) for value in open_.values() for v in np.atleast_1d(value).tolist()]
        try:
            function = self.function_for(operation, build)
            kernel = self.kernel(operation, build, open_, function)
            fields = launch_fields(kernel, function.group_size(), whole, shapes_in, shapes_out, resumed=False)
            check_numbers(operation, function, len(fields["scalars"]))
        except NacreError as error:
            raise CompileError(f"{layer_name(self.layer)}: {error}") from None
        self.emit(npu.LaunchOp, {"inputs": inputs, "outputs": outputs}, kernel=kernel.sym_name.data, **fields)

    def kernel(
        self, operation: str, build: Build, open_: Mapping[str, Any], function: ppu.FuncOp
    ) -> npu.KernelOp:
        """A kernel, made once for equal parameters and element types."""
        settings = Parameters({**build.parameters, **open_})
        key = (operation, repr(sorted(settings.items(), key=lambda p: p[0])), build[1:])
        if key not in self.kernels:
            symbol = f"{operation.partition('.')[2]}_{len(self.kernels)}"
            op = npu.KernelOp.of(symbol, operation, settings, list(open_), function.sym_name.data)
            self.module.body.block.insert_op_before(op, self.function)
            self.kernels[key] = op
        return self.kernels[key]

    def function_for(self, operation: str, build: Build) -> ppu.FuncOp:
        """The function of a kernel, compiled once for equal macros. Raises CompileError or SourceError."""
        kernel = soft_kernel(operation)
        key = (kernel, tuple(sorted(kernel.macros(build).items())))
        if key not in self.functions:
            types = "_".join(dict.fromkeys(str(e) for e in (*build.inputs, *build.outputs)))
            symbol, taken = f"{kernel.entry}_{types}", {f.sym_name.data for f in self.functions.values()}
            symbol = next(s for n in itertools.count() if (s := f"{symbol}_{n}" if n else symbol) not in taken)
            function = function_of(operation, build, symbol)
            check_pointers(operation, function, build)
            self.module.body.block.insert_op_before(function, self.function)
            self.functions[key] = function
        return self.functions[key]


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
