"""What an importer sees of an ONNX node: attributes with ONNX's defaults, operands, constants, builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from xdsl.dialects.builtin import LocationAttr, NameLoc, NoneAttr, StringAttr
from xdsl.ir import Attribute, SSAValue

from ...dialects.declarative import DeclarativeOp
from ...dialects.graph import ConstantOp
from ...dialects.types import ELEMENT_OF, FLOATS, dtype_of, element_of, element_type, f32, shape_of
from .registry import Unsupported, Value

if TYPE_CHECKING:
    from .builder import GraphBuilder, Scope


def location_of(name: str) -> LocationAttr:
    """The location that carries a layer's name."""
    return NameLoc(StringAttr(name), NoneAttr())


def element_of_array(dtype: np.dtype, what: str) -> Attribute:
    """The element type of a dtype. Raises Unsupported naming `what` where Nacre has none."""
    try:
        return element_of(dtype)
    except (KeyError, TypeError):
        known = ", ".join(str(d) for d in ELEMENT_OF)
        raise Unsupported(f"{what} holds elements of the type {dtype}; known are {known}") from None


def inner_element(element: Attribute) -> Attribute:
    """The element type inside the network: float32 for any float, others as they are."""
    return f32 if element in FLOATS else element


def inner_array(array: np.ndarray) -> np.ndarray:
    """A constant as the network computes with it: float16 and float64 as float32, itself where it is that.

    Finite values beyond float32's range (masks of −1.8e308) become its largest, not infinite.
    """
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype != np.float64:
        return array
    most = float(np.finfo(np.float32).max)
    return np.where(np.isinf(array), array, np.clip(array, -most, most)).astype(np.float32)


class Node:
    """One node during its import.

    name: the layer's name. opset: the version of the node's domain. used: whether anything reads each output.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        name: str,
        opset: int,
        inputs: Sequence[Value | None],
        used: Sequence[bool],
        builder: GraphBuilder,
        scope: Scope,
    ):
        self.proto = proto
        self.name = name
        self.opset = opset
        self.inputs = tuple(inputs)
        self.used = tuple(used)
        self.builder = builder
        self.scope = scope
        self.location = location_of(name)
        self._attributes = {a.name: a for a in proto.attribute}

    # -- attributes
    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; absent, the default of ONNX's definition, else `default`. Strings are str."""
        if (given := self._attributes.get(name)) is not None:
            return plain(onnx.helper.get_attribute_value(given))
        schema = schema_of(self.proto.domain, self.proto.op_type, self.opset)
        declared = schema.attributes.get(name) if schema is not None else None
        if declared is not None and declared.default_value.type != onnx.AttributeProto.UNDEFINED:
            return plain(onnx.helper.get_attribute_value(declared.default_value))
        return default

    def has_attribute(self, name: str) -> bool:
        """Whether the model gives the attribute."""
        return name in self._attributes

    # -- inputs
    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input_name(self, index: int) -> str:
        """The tensor's name in the model."""
        return self.proto.input[index]

    def value(self, index: int) -> Value:
        """An input as it is: an SSA value, or an array where it is constant."""
        if not self.has(index):
            raise Unsupported(f"input {index} is missing")
        value = self.inputs[index]
        assert value is not None
        return value

    def operand(self, index: int) -> SSAValue:
        """An input as an SSA value; a constant becomes a `graph.constant`."""
        value = self.value(index)
        if isinstance(value, SSAValue):
            return value
        return self.builder.shared_constant(self.input_name(index), value, self.location)

    def operands(self) -> list[SSAValue]:
        """All inputs that are there, as SSA values."""
        return [self.operand(i) for i in range(len(self.inputs)) if self.has(i)]

    def optional(self, index: int) -> SSAValue | None:
        """An optional input as an SSA value."""
        return self.operand(index) if self.has(index) else None

    def array(self, index: int) -> np.ndarray | None:
        """An input's array if it is a constant, None if it is computed or absent."""
        value = self.inputs[index] if self.has(index) else None
        return value if isinstance(value, np.ndarray) else None

    def constant(self, index: int, what: str) -> np.ndarray:
        """The array of an input that has to be constant. Raises Unsupported saying `what` depends on data."""
        value = self.value(index)
        if isinstance(value, np.ndarray):
            return value
        raise Unsupported(
            f"{what} ('{self.input_name(index)}') is computed from the model's inputs, not constant"
        )

    def ints(self, attribute: str, index: int | None, what: str = "") -> tuple[int, ...] | None:
        """A list of integers: an attribute or, in newer opsets, the constant input `index`, or None."""
        if index is not None and self.has(index):
            return tuple(int(v) for v in self.constant(index, what or f"'{attribute}'").ravel())
        given = self.attribute(attribute)
        return None if given is None else tuple(int(v) for v in given)

    def shape(self, index: int) -> tuple[int, ...]:
        """The static shape of an input."""
        return shape_of_value(self.value(index))

    def dtype(self, index: int) -> np.dtype:
        """The numpy dtype of an input."""
        value = self.value(index)
        return value.dtype if isinstance(value, np.ndarray) else dtype_of(element_type(value))

    def axis(self, axis: int, rank: int, name: str = "axis") -> int:
        """A non-negative axis. Raises Unsupported where it lies outside the rank."""
        if not -rank <= axis < max(rank, 1):
            raise Unsupported(f"{name} {axis} lies outside a tensor of rank {rank}")
        return axis % max(rank, 1)

    # -- building
    def emit(self, op: type[DeclarativeOp], *operands: Value | None, **parameters: Any) -> SSAValue:
        """Append an op with one result at the node's location; arrays become constants, Nones fall out."""
        return self.emit_all(op, *operands, **parameters)[0]

    def emit_all(
        self, op: type[DeclarativeOp], *operands: Value | None, **parameters: Any
    ) -> tuple[SSAValue, ...]:
        """Append an op at the node's location and give all its results."""
        values = [self.literal(v) if isinstance(v, np.ndarray) else v for v in operands if v is not None]
        made = op.make(*values, location=self.location, **parameters)
        self.builder.append(made)
        return tuple(made.results)

    def literal(self, array: np.ndarray, name: str = "") -> SSAValue:
        """A new `graph.constant`; `name` says in the text what it holds (by default, the node)."""
        element_of_array(array.dtype, f"constant '{name or self.name}'")
        made = ConstantOp.of(
            np.ascontiguousarray(array).reshape(array.shape), self.builder.store, name or self.name
        )
        made.location = self.location
        self.builder.append(made)
        return made.result

    def scalar(self, number: float, like: SSAValue) -> SSAValue:
        """A rank-0 constant of the element type of another value."""
        return self.literal(np.array(number, dtype_of(element_type(like))))


def shape_of_value(value: Value) -> tuple[int, ...]:
    """The static shape of an SSA value or array."""
    return tuple(value.shape) if isinstance(value, np.ndarray) else shape_of(value)


def plain(value: Any) -> Any:
    """ONNX's bytes as str, its repeated fields as lists."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, int, float)) or not isinstance(value, Sequence):
        return value
    return [plain(v) for v in value]


def schema_of(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """ONNX's own definition of an operator at an opset version, None for unknown ones."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
