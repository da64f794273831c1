"""Walks the operators of a TFLite file: calls importers, folds constants, collects what cannot be
imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from ...dialects.graph import ConstantOp
from ...dialects.nacre import BlobAttr, ReadStateOp, StateOp, WriteStateOp, set_sources, sources_of
from ...dialects.quant import QuantType, SCastOp
from ...dialects.store import Store
from ...dialects.types import dtype_of, element_type, shape_of, size_of, storage_of, tensor
from ...runtime.interpreter import execute
from ..module import Problem
from .hybrid import with_float_weights
from .model import SourceModel, SourceOperator, SourceTensor
from .node import QUANTISED, Constant, Node, Operand, element_of_tensor, location_of, source_of
from .registry import IMPORTERS, Unsupported

FOLDED = 2**24
"""Elements up to which the result of an operator on constants is computed at import."""


class Failed:
    """Stands for a tensor whose operator could not be imported: causes are reported, not their
    consequences.
    """


FAILED = Failed()


class GraphBuilder:
    """Appends ops to a block, operator by operator. reshaped: whether the user chose other input shapes."""

    def __init__(self, model: SourceModel, reshaped: bool = False):
        self.model, self.reshaped = model, reshaped
        self.store = Store()
        self.block = Block()
        self.problems: list[Problem] = []
        self.values: dict[int, Operand | Failed] = {}
        self.states: dict[int, StateOp] = {}
        self._shared: dict[tuple[str, int], tuple[Constant, SSAValue]] = {}

    # -- building
    def append(self, op: Operation) -> None:
        """Put an op at the block's end."""
        self.block.add_op(op)

    def shared_constant(self, constant: Constant, location: LocationAttr) -> SSAValue:
        """The one `graph.constant` of a constant tensor, made at its first use."""
        key = (constant.name, id(constant.array))
        if key not in self._shared:
            made = ConstantOp.of(constant.array, self.store, constant.name, constant.element)
            made.location = location
            self.append(made)
            self._shared[key] = (constant, made.result)  # the array stays alive, so its id stays its own
        return self._shared[key][1]

    def argument(self, index: int, shape: Sequence[int]) -> None:
        """Make an input of the model an argument; a problem is written down."""
        source = self.model.tensors[index]
        try:
            type_ = tensor(shape, element_of_tensor(source))
            self.values[index] = self.block.insert_arg(type_, len(self.block.args))
        except Unsupported as error:
            self.problems.append(Problem(source.name, "input", str(error)))
            self.values[index] = FAILED

    def read_state(self, source: SourceTensor) -> SSAValue:
        """What a variable holds when the run begins. LiteRT's begin with zeros as bytes, int8 with its zero point."""
        q = source.quantisation
        zero = int(q.zeros[0]) if q is not None and source.dtype == np.int8 else 0
        initial = np.full(source.shape, zero, source.dtype) if source.data is None else source.data
        state = StateOp.of(source.name, initial, self.store, element_of_tensor(source))
        read = ReadStateOp.of(state)
        read.location = location_of(source.name)
        self.append(read)
        self.states[source.index] = state
        return read.result

    def write_state(self, index: int, value: SSAValue, location: LocationAttr) -> None:
        """Let a variable keep a value. Raises Unsupported for a tensor that is none, or a value of another type."""
        state = self.states.get(index)
        if state is None:
            raise Unsupported(f"its state '{self.model.tensors[index].name}' is no variable tensor of the file")
        if state.type != value.type:
            raise Unsupported(f"its state '{state.sym_name.data}' is {state.type}, and becomes {value.type}")
        write = WriteStateOp.of(state.sym_name.data, value)
        write.location = location
        self.append(write)
        self.values[index] = value

    # -- walking
    def run(self) -> None:
        """Import all operators in the file's order."""
        for operator in self.model.operators:
            self.run_operator(operator)
        returned = [self.values.get(index) for index in self.model.outputs]
        for op in reversed(list(self.block.ops)):
            if isinstance(op, ConstantOp) and op.result.first_use is None and not any(v is op.result for v in returned):
                op.detach()
                op.erase()

    def run_operator(self, operator: SourceOperator) -> None:
        """Import one operator and bind its outputs; a problem is written down and its outputs fail
        quietly.
        """
        before = self.block.last_op
        try:
            check_known(operator)
            inputs = [None if i is None else self.value_of(i) for i in operator.inputs]
            good = [v for v in inputs if not isinstance(v, Failed)]
            if len(good) < len(inputs):
                results: Sequence[Operand | Failed] = [FAILED] * len(operator.outputs)
            else:
                given = with_float_weights(operator, self.model.tensors, good)
                results = self.results_of(Node(operator, given, self.model.tensors, self), before)
        except (Unsupported, VerifyException) as error:
            self.problems.append(Problem(operator.name, operator.kind, str(error)))
            results = [FAILED] * len(operator.outputs)
        for index, value in zip(operator.outputs, results):
            self.values[index] = value
            if isinstance(value, SSAValue):
                add_source(value, self.model.tensors[index])

    def results_of(self, node: Node, before: Operation | None) -> Sequence[Operand]:
        """The operator's outputs, of the file's types, folded where all its inputs are constants."""
        entry = IMPORTERS[node.kind]
        if not node.outputs:
            raise Unsupported("it has no outputs")
        if entry.floats:
            refuse_quantised(node)
        if not entry.moves:
            refuse_without_scale(node)
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                made = entry.function(node)
        except FloatingPointError:
            raise Unsupported("its scales are too far apart for a multiplier in integers") from None
        values = made if isinstance(made, tuple) else (made,)
        if len(values) < len(node.outputs):
            raise Unsupported(f"it has {len(node.outputs)} outputs, and {len(values)} are known of it")
        values = [self.typed(v, t, node) for v, t in zip(values, node.outputs)]  # type: ignore[assignment]
        constants = all(v is None or isinstance(v, Constant) for v in node.inputs)
        if constants and sum(map(size_of, values)) <= FOLDED:
            return self.folded(values, node, before)
        return values

    def typed(self, value: SSAValue, source: SourceTensor, node: Node) -> SSAValue:
        """A result in the type that the file gives its tensor. Raises Unsupported where it cannot be that."""
        want, have = element_of_tensor(source), element_type(value)
        if shape_of(value) != source.shape and not self.reshaped and not source.open:
            raise Unsupported(
                f"its result is {list(shape_of(value))}, but the file gives '{source.name}' {list(source.shape)}"
            )
        if want == have:
            return value
        if storage_of(want) != storage_of(have):
            raise Unsupported(f"its result is {have}, but the file gives '{source.name}' the type {want}")
        # Moving ops copy integers, whatever scale the file gives the copy: the bits mean something else now.
        for element in (storage_of(have), want):
            if element_type(value) != element:
                cast = SCastOp.create(operands=[value], result_types=[tensor(shape_of(value), element)])
                value = node.append(cast)
        return value

    def folded(self, values: Sequence[SSAValue], node: Node, before: Operation | None) -> list[Constant]:
        """The values as constants; what was appended to compute them goes again."""
        first = self.block.first_op if before is None else before.next_op
        appended: list[Operation] = []
        while first is not None:
            appended.append(first)
            first = first.next_op
        arrays: dict[SSAValue, np.ndarray] = {}

        def array(value: SSAValue) -> np.ndarray:
            if not isinstance(value.owner, ConstantOp):
                return arrays[value]
            held = value.owner.value
            if isinstance(held, BlobAttr):  # no module names the store as yet
                return self.store.get(held.data.digest).reshape(shape_of(value))
            return value.owner.array()

        try:
            with np.errstate(all="ignore"):
                for op in appended:
                    if not isinstance(op, ConstantOp):
                        arrays.update(zip(op.results, execute(op, [array(v) for v in op.operands])))
        except (IndexError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise Unsupported(f"its inputs are constants, but evaluating it failed: {error}") from None
        made = [Constant(np.asarray(array(v)), element_type(v), t.name) for v, t in zip(values, node.outputs)]
        for op in reversed(appended):
            if not isinstance(op, ConstantOp):
                op.detach()
                op.erase(safe_erase=False)
        return made

    def value_of(self, index: int) -> Operand | Failed:
        """What holds a tensor. Raises Unsupported for one that nothing defines."""
        if index not in self.values:
            source = self.model.tensors[index]
            if source.problem:
                raise Unsupported(f"the tensor '{source.name}' cannot be used: {source.problem}")
            if source.variable:
                self.values[index] = value = self.read_state(source)
                return value
            data = source.data
            if data is None and math.prod(source.shape) == 0:
                data = np.zeros(source.shape, source.dtype)
            if data is None:
                raise Unsupported(f"reads the tensor '{source.name}', which nothing before it defines")
            if data.dtype.kind == "f" and np.isnan(data).any():
                raise Unsupported(f"its constant '{source.name}' holds NaN")
            self.values[index] = Constant(data, element_of_tensor(source), source.name)
        return self.values[index]


def check_known(operator: SourceOperator) -> None:
    """Name an operator nobody registered, even where its inputs could not be imported."""
    if operator.kind in IMPORTERS:
        return
    if operator.kind.startswith("CUSTOM"):
        raise Unsupported("custom operators are defined outside TFLite, and no importer is registered for this one")
    raise Unsupported("this operator cannot be imported yet")


def refuse_quantised(node: Node) -> None:
    """Say that an operator is for floats only."""
    for index, value in enumerate(node.inputs):
        if value is not None and isinstance(node.element(index), QuantType):
            raise Unsupported(
                f"it is imported for floats only, and '{node.input_name(index)}' is quantised: "
                "convert the model with this operator in float"
            )


def refuse_without_scale(node: Node) -> None:
    """Say which tensor of an operator that computes lacks scale and zero point."""
    named = {t.name: element_of_tensor(t) for t in node.outputs}
    named |= {node.input_name(i): node.element(i) for i in range(len(node.inputs)) if node.has(i)}
    for name, element in named.items():
        if not isinstance(element, QuantType) and dtype_of(element) in QUANTISED:
            raise Unsupported(
                f"the tensor '{name}' is {element} without scale and zero point, and this operator needs them"
            )


def add_source(value: SSAValue, source: SourceTensor) -> None:
    """Record that a value holds a source tensor, axis by axis."""
    made = source_of(source, shape_of(value), element_type(value))
    if made not in sources_of(value):
        set_sources(value, (*sources_of(value), made))
