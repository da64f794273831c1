"""What writes a module as ONNX, op by op: nodes so far, which tensors hold a value, and the registry of operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from xdsl.ir import Attribute, Operation, SSAValue

from ...dialects import graph
from ...dialects.locations import layer_of
from ...dialects.quant import QuantType, storage_range
from ...dialects.types import dtype_of, element_type, shape_of
from ...errors import CompileError

Permutation = tuple[int, ...]
Export = Callable[[Any, "Exporter"], None]
EXPORTS: dict[type[Operation], Export] = {}


def exports(*ops: type[Operation]) -> Callable[[Export], Export]:
    """Register what writes ops of some classes, subclasses included, as nodes."""

    def register(function: Export) -> Export:
        for op in ops:
            if op in EXPORTS:
                raise ValueError(f"{op.name} is exported by another function already")
            EXPORTS[op] = function
        return function

    return register


def onnx_type(element: Attribute) -> int:
    """ONNX's number of an element type."""
    return helper.np_dtype_to_tensor_dtype(dtype_of(element))


# --- the exporter ----------------------------------------------------------------------------------------
def first(rank: int) -> Permutation:
    """The permutation from channels-last to channels-first."""
    return (0, rank - 1, *range(1, rank - 1))


class Exporter:
    """Nodes so far, and which tensors hold a value: as stored, in its own axis order (None) or permuted."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self.tensors: dict[tuple[SSAValue, Permutation | None], str] = {}
        self.reals: dict[str, str] = {}  # integer tensor -> its DequantizeLinear
        self.used: set[str] = set()
        self.scalars: dict[tuple[str, bytes], str] = {}
        self.layer = ""

    def run(self, op: Operation) -> None:
        """Write one op. Raises CompileError where nothing is registered for it."""
        self.layer = layer_of(op.location) or op.name
        export = next((EXPORTS[base] for base in type(op).__mro__ if base in EXPORTS), None)
        if export is None:
            raise CompileError(f"layer '{self.layer}': {op.name} cannot be exported to ONNX")
        export(op, self)

    # -- names
    def unique(self, name: str) -> str:
        """A tensor name that is not in use."""
        count, found = 1, name
        while found in self.used:
            count += 1
            found = f"{name}_{count}"
        self.used.add(found)
        return found

    def node(
        self, op: str, inputs: Sequence[str], suffix: str = "", outputs: int = 1, **attributes: Any
    ) -> str:
        """Append a node named after the layer; gives its first output (further ones stand in `nodes[-1]`)."""
        names = [self.unique(f"{self.layer}/{suffix or op}") for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names[0]

    def array(self, array: np.ndarray, suffix: str) -> str:
        """An initialiser."""
        name = self.unique(f"{self.layer}/{suffix}")
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        self.initialisers.append(numpy_helper.from_array(contiguous, name))
        return name

    def scalar(self, value: Any, dtype: Any, suffix: str) -> str:
        """A rank-0 initialiser, one for all equal ones."""
        array = np.array(value, dtype)
        key = (array.dtype.str, array.tobytes())
        if key not in self.scalars:
            layer, self.layer = self.layer, "constant"
            self.scalars[key] = self.array(array, f"{suffix}_{value}")
            self.layer = layer
        return self.scalars[key]

    # -- values
    def tensor(self, value: SSAValue, permutation: Permutation | None = None) -> str:
        """The tensor that holds a value as stored, its axes permuted; a Transpose where none does yet."""
        if permutation is not None and list(permutation) == list(range(len(permutation))):
            permutation = None
        if (value, permutation) in self.tensors:
            return self.tensors[value, permutation]
        constant = graph.constant_of(value)
        if constant is not None:
            moved = constant if permutation is None else constant.transpose(permutation)
            made = self.array(moved, "constant")
        else:
            held, source = next((p, n) for (v, p), n in self.tensors.items() if v is value)
            rank = len(shape_of(value))
            have = list(held or range(rank))
            order = [have.index(axis) for axis in permutation or range(rank)]
            made = self.node("Transpose", [source], perm=order)
        self.tensors[value, permutation] = made
        return made

    def real(self, value: SSAValue, permutation: Permutation | None = None) -> str:
        """The floats of a value: itself, or behind DequantizeLinear."""
        stored = self.tensor(value, permutation)
        type_ = element_type(value)
        if not isinstance(type_, QuantType):
            return stored
        if stored not in self.reals:
            axis = type_.data.axis
            if axis is not None and permutation is not None:
                axis = permutation.index(axis)
            self.reals[stored] = self.dequantised(stored, type_, axis)
        return self.reals[stored]

    def dequantised(self, stored: str, type_: QuantType, axis: int | None) -> str:
        """DequantizeLinear of an integer tensor."""
        if axis is None:
            casts = self.parameters(type_)
            return self.node("DequantizeLinear", [stored, *casts], "real")
        scales = self.array(np.array(type_.data.scales, np.float32), "scales")
        zeros = self.array(np.array(type_.data.zeros, dtype_of(type_)), "zero_points")
        return self.node("DequantizeLinear", [stored, scales, zeros], "real", axis=axis)

    def parameters(self, type_: QuantType) -> list[str]:
        """Scale and zero point of a per-tensor type."""
        zero = self.scalar(type_.zero, dtype_of(type_), f"zero_point_{dtype_of(type_)}")
        return [self.scalar(type_.scale, np.float32, "scale"), zero]

    def define(
        self,
        value: SSAValue,
        real: str,
        permutation: Permutation | None = None,
        limits: tuple[int, int] | None = None,
    ) -> None:
        """Say which float tensor is a value's; a quantised one is clipped to stored `limits`, quantised."""
        type_ = element_type(value)
        if isinstance(type_, QuantType):
            if limits is not None and limits != storage_range(type_.storage):
                ends = [(limit - type_.zero) * np.float32(type_.scale) for limit in limits]
                clips = [self.scalar(end, np.float32, "limit") for end in ends]
                real = self.node("Clip", [real, *clips])
            real = self.node("QuantizeLinear", [real, *self.parameters(type_)], "stored")
        self.tensors[value, permutation] = real

    def layout(self, *values: SSAValue) -> Permutation | None:
        """Channels-first where all values are of one shape and held so already, their own order otherwise."""
        shapes = {shape_of(v) for v in values}
        order = first(len(shape_of(values[0])))
        held = all((v, order) in self.tensors and (v, None) not in self.tensors for v in values)
        return order if len(shapes) == 1 and held else None
