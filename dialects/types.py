"""Element types: the one mapping between MLIR element types and numpy dtypes, and interned tensor types."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import (
    Float64Type,
    IntegerType,
    Signedness,
    TensorType,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue

u8 = IntegerType(8, Signedness.UNSIGNED)
u16 = IntegerType(16, Signedness.UNSIGNED)

DTYPE_OF: dict[Attribute, np.dtype] = {
    f32: np.dtype(np.float32),
    f16: np.dtype(np.float16),
    f64: np.dtype(np.float64),
    i1: np.dtype(np.bool_),
    i8: np.dtype(np.int8),
    u8: np.dtype(np.uint8),
    i16: np.dtype(np.int16),
    u16: np.dtype(np.uint16),
    i32: np.dtype(np.int32),
    i64: np.dtype(np.int64),
}
ELEMENT_OF: dict[np.dtype, Attribute] = {dtype: element for element, dtype in DTYPE_OF.items()}
FLOATS = (f32, f16, f64)


def storage_of(element: Attribute) -> Attribute:
    """The type the machine stores: `i8` for `!quant.uniform<i8:f32, …>`, the type itself otherwise."""
    return getattr(element, "storage", element)


def dtype_of(element: Attribute) -> np.dtype:
    """The numpy dtype that holds an element (a quantised one by its storage type)."""
    return DTYPE_OF[storage_of(element)]


def element_of(dtype: np.dtype | type) -> Attribute:
    """The MLIR element type of a numpy dtype; KeyError where there is none."""
    return ELEMENT_OF[np.dtype(dtype)]


@functools.cache
def _tensor(shape: tuple[int, ...], element: Attribute) -> TensorType:
    return TensorType(element, shape)


def tensor(shape: Sequence[int], element: Attribute) -> TensorType:
    """`tensor<shape x element>`, interned: building a quantised one anew costs 33 µs."""
    return _tensor(tuple(int(d) for d in shape), element)


def shape_of(value: SSAValue | Attribute) -> tuple[int, ...]:
    """The static shape of a tensor value or type."""
    type_ = value.type if isinstance(value, SSAValue) else value
    assert isinstance(type_, TensorType), type_
    return _shape(type_)


@functools.lru_cache(maxsize=65536)
def _shape(type_: TensorType) -> tuple[int, ...]:
    return tuple(d.data for d in type_.shape)


def element_type(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tensor value or type."""
    type_ = value.type if isinstance(value, SSAValue) else value
    assert isinstance(type_, TensorType), type_
    return type_.element_type


def size_of(value: SSAValue | Attribute) -> int:
    """Number of elements of a tensor value or type."""
    return math.prod(shape_of(value))


__all__ = [
    "DTYPE_OF", "ELEMENT_OF", "FLOATS", "Float64Type", "dtype_of", "element_of", "element_type", "f16", "f32",
    "f64", "i1", "i8", "i16", "i32", "i64", "shape_of", "size_of", "storage_of", "tensor", "u8", "u16",
]  # fmt: skip
