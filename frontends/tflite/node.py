"""What an importer sees of a TFLite operator: options, operands, constants, quantised types, and the
builder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from xdsl.dialects.builtin import LocationAttr, NameLoc, NoneAttr, StringAttr
from xdsl.ir import Attribute, Operation, SSAValue

from ...dialects.declarative import DeclarativeOp
from ...dialects.graph import ConstantOp, ReshapeOp
from ...dialects.nacre import Source
from ...dialects.qnn import TableOp
from ...dialects.quant import QuantType, quantised, storage_range
from ...dialects.types import dtype_of, element_of, element_type, shape_of
from ...runtime.fixed_point import quantise_multiplier
from .model import Quantisation, SourceOperator, SourceTensor, word
from .registry import Unsupported

if TYPE_CHECKING:
    from .builder import GraphBuilder

QUANTISED = tuple(np.dtype(t) for t in (np.int8, np.uint8, np.int16))


class Constant(NamedTuple):
    """A tensor known at import: its array (integers of a quantised type), element type and name."""

    array: np.ndarray
    element: Attribute
    name: str


Operand = SSAValue | Constant


def location_of(name: str) -> LocationAttr:
    """The location that carries a layer's name."""
    return NameLoc(StringAttr(name), NoneAttr())


def element_of_tensor(tensor: SourceTensor) -> Attribute:
    """A tensor's element type: quantised where the file gives an int8, uint8 or int16 tensor scales."""
    if tensor.problem:
        raise Unsupported(f"the tensor '{tensor.name}' cannot be used: {tensor.problem}")
    q = tensor.quantisation
    if q is None or tensor.dtype not in QUANTISED:
        return element_of(tensor.dtype)
    storage = element_of(tensor.dtype)
    low, high = storage_range(storage)
    usable = np.isfinite(q.scales) & (q.scales > 0)
    if not usable.all():
        bad = q.scales[~usable][0]
        raise Unsupported(f"the tensor '{tensor.name}' has the scale {bad}; scales are finite and above zero")
    if ((q.zeros < low) | (q.zeros > high)).any():
        bad = q.zeros[(q.zeros < low) | (q.zeros > high)][0]
        raise Unsupported(
            f"the tensor '{tensor.name}' has the zero point {bad}, outside the range {low}..{high} of {tensor.dtype}"
        )
    if len(q.scales) == 1:
        if len(q.zeros) != 1:
            raise Unsupported(f"the tensor '{tensor.name}' has one scale, but {len(q.zeros)} zero points")
        return quantised(storage, float(q.scales[0]), int(q.zeros[0]))
    if not 0 <= q.axis < len(tensor.shape) or len(q.scales) != tensor.shape[q.axis]:
        raise Unsupported(
            f"the tensor '{tensor.name}' has {len(q.scales)} scales along axis {q.axis}, "
            f"which do not fit its shape {list(tensor.shape)}"
        )
    if len(q.zeros) not in (1, len(q.scales)):
        raise Unsupported(f"the tensor '{tensor.name}' has {len(q.scales)} scales, but {len(q.zeros)} zero points")
    return quantised(storage, q.scales.tolist(), q.zeros.tolist() * (len(q.scales) // len(q.zeros)), q.axis)


def source_of(tensor: SourceTensor, shape: Sequence[int], element: Attribute) -> Source:
    """What a value with a tensor's numbers stands for."""
    axes = tuple(range(len(shape)))
    if isinstance(element, QuantType) and element.data.axis is None:
        return Source(tensor.name, axes, element.scale, element.zero)
    return Source(tensor.name, axes)


class Node:
    """One operator during its import. name: the layer's name. kind: the schema's operator name."""

    def __init__(
        self,
        source: SourceOperator,
        inputs: Sequence[Operand | None],
        tensors: Sequence[SourceTensor],
        builder: GraphBuilder,
    ):
        self.source, self.kind, self.name = source, source.kind, source.name
        self.inputs = tuple(inputs)
        self.tensors = tensors
        self.outputs = tuple(tensors[i] for i in source.outputs)
        self.builder = builder
        self.location = location_of(source.name)

    # -- options
    def option(self, name: str, default: Any = None) -> Any:
        """An option's value. Raises Unsupported where the file has no such option and there is no default."""
        value = self.source.fields.get(name, default)
        if value is None:
            found = self.source.options or "none"
            raise Unsupported(f"its option {name} is missing (the options given are {found})")
        return value

    def word(self, name: str, enumeration: str, default: int | None = None) -> str:
        """An option that is a value of an enumeration of the schema, as its name."""
        return word(enumeration, self.option(name, default))

    # -- inputs
    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input_name(self, index: int) -> str:
        """The tensor's name in the model."""
        number = self.source.inputs[index]
        assert number is not None
        return self.tensors[number].name

    def value(self, index: int) -> Operand:
        """An input as it is."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"input {index} is missing")
        return value

    def operand(self, index: int) -> SSAValue:
        """An input as an SSA value; a constant becomes a `graph.constant`."""
        value = self.value(index)
        return self.builder.shared_constant(value, self.location) if isinstance(value, Constant) else value

    def operands(self) -> list[SSAValue]:
        """All inputs that are there, as SSA values."""
        return [self.operand(i) for i in range(len(self.inputs)) if self.has(i)]

    def array(self, index: int) -> np.ndarray | None:
        """An input's array if it is a constant, None if it is computed or absent."""
        value = self.inputs[index] if self.has(index) else None
        return value.array if isinstance(value, Constant) else None

    def constant(self, index: int, what: str) -> np.ndarray:
        """The array of an input that has to be constant. Raises Unsupported saying `what` depends on data."""
        value = self.value(index)
        if isinstance(value, Constant):
            return value.array
        raise Unsupported(f"{what} ('{self.input_name(index)}') is computed from the model's inputs, not constant")

    def ints(self, index: int, what: str) -> tuple[int, ...]:
        """A constant input as integers."""
        array = self.constant(index, what)
        if array.dtype.kind not in "iu":
            raise Unsupported(f"{what} ('{self.input_name(index)}') should hold integers, not {array.dtype}")
        return tuple(int(v) for v in array.ravel())

    def shape(self, index: int) -> tuple[int, ...]:
        """The static shape of an input."""
        value = self.value(index)
        return tuple(value.array.shape) if isinstance(value, Constant) else shape_of(value)

    def axis(self, axis: int, rank: int) -> int:
        """A non-negative axis. Raises Unsupported where it lies outside the rank."""
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} lies outside a tensor of rank {rank}")
        return axis % rank

    # -- types
    def element(self, index: int) -> Attribute:
        """An input's element type."""
        value = self.value(index)
        return value.element if isinstance(value, Constant) else element_type(value)

    def is_quantised(self, index: int = 0) -> bool:
        """Whether an input is quantised."""
        return isinstance(self.element(index), QuantType)

    def quant(self, index: int) -> QuantType:
        """An input's quantised type, one scale for the tensor. Raises Unsupported where it is not such."""
        return one_scale(self.element(index), self.input_name(index))

    def result(self, index: int = 0) -> Attribute:
        """An output's element type, as the file has it."""
        return element_of_tensor(self.outputs[index])

    def result_quant(self, index: int = 0) -> QuantType:
        """An output's quantised type, one scale for the tensor."""
        return one_scale(self.result(index), self.outputs[index].name)

    def same_quantisation(self, *indices: int) -> QuantType:
        """The one quantised type of inputs and output, where TFLite asks that they have one."""
        type_ = self.result_quant()
        for index in indices or (0,):
            if self.quant(index) != type_:
                raise Unsupported(
                    f"TFLite keeps scale and zero point in this operator, but '{self.input_name(index)}' is "
                    f"{text_of(self.quant(index))} and '{self.outputs[0].name}' is {text_of(type_)}"
                )
        return type_

    def intermediate(self, index: int) -> Quantisation:
        """Scale and zero point of a value inside the operator. Raises Unsupported where the file has no such."""
        inside = self.source.intermediates
        found = self.tensors[inside[index]].quantisation if index < len(inside) else None
        if found is None or len(found.scales) != 1 or len(found.zeros) != 1:
            raise Unsupported(f"its intermediate tensor {index} has no scale and zero point, and integers need them")
        if not (np.isfinite(found.scales[0]) and found.scales[0] > 0):
            raise Unsupported(f"its intermediate tensor {index} has the scale {found.scales[0]}")
        return found

    # -- building
    def emit(self, op: type[DeclarativeOp], *operands: SSAValue | None, **parameters: Any) -> SSAValue:
        """Append an op with one result at the node's location; Nones fall out. qnn ops need `element`."""
        return self.emit_all(op, *operands, **parameters)[0]

    def emit_all(self, op: type[DeclarativeOp], *operands: SSAValue | None, **parameters: Any) -> tuple[SSAValue, ...]:
        """Append an op at the node's location and give all its results."""
        made = op.make(*(v for v in operands if v is not None), location=self.location, **parameters)
        self.append(made)
        return tuple(made.results)

    def write_state(self, index: int, value: SSAValue) -> None:
        """Let a variable that is an input keep a value after this operator."""
        number = self.source.inputs[index]
        assert number is not None
        self.builder.write_state(number, value, self.location)

    def append(self, op: Operation) -> SSAValue:
        """Append an op that is made already, at the node's location; gives its first result."""
        op.location = self.location
        self.builder.append(op)
        return op.results[0]

    def literal(self, array: np.ndarray, name: str = "", element: Attribute | None = None) -> SSAValue:
        """A new `graph.constant`; `name` says in the text what it holds (by default, the node)."""
        whole = np.ascontiguousarray(array).reshape(np.shape(array))
        return self.append(ConstantOp.of(whole, self.builder.store, name or self.name, element))

    def scalar(self, number: float, like: SSAValue) -> SSAValue:
        """A rank-0 constant of the element type of another value."""
        return self.literal(np.array(number, dtype_of(element_type(like))))

    def multiplier(self, real: np.ndarray | float) -> tuple[SSAValue, SSAValue]:
        """The constants multiplier and shift of a real factor, one or one a channel."""
        multiplier, shift = quantise_multiplier(np.atleast_1d(np.asarray(real, np.float64)))
        if shift.max() > 30:
            raise Unsupported(f"its scales ask for a factor of {np.max(real):g}, and the largest is 2^30")
        return self.literal(multiplier), self.literal(shift)

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """The value in another shape, itself where it has that already."""
        return value if shape_of(value) == tuple(shape) else self.emit(ReshapeOp, value, shape=tuple(shape))

    def table(self, value: SSAValue, entries: np.ndarray, element: Attribute) -> SSAValue:
        """A look-up in 256 entries of the element type's integers."""
        return self.emit(TableOp, value, self.literal(entries, element=element), element=element)


def one_scale(element: Attribute, name: str) -> QuantType:
    """A per-tensor quantised type. Raises Unsupported naming the tensor where it is none."""
    if not isinstance(element, QuantType):
        raise Unsupported(
            f"the tensor '{name}' is {element} without scale and zero point, and this operator needs them"
        )
    if element.data.axis is not None:
        raise Unsupported(f"the tensor '{name}' has one scale a channel, where one for the tensor is needed")
    return element


def text_of(type_: QuantType) -> str:
    """A quantised type as a user reads it."""
    return f"{dtype_of(type_)} with scale {type_.scale:g} and zero point {type_.zero}"
