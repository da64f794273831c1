"""Writes TFLite files of a few operators: the golden producer of tests of the importer and of arithmetic.

A file is described by plain tuples and comes back as bytes that any TFLite runtime loads. Operator options
are given by the names of the schema (`Conv2DOptions`, `StrideW`); nothing is checked beyond that they exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

import flatbuffers
import numpy as np
from numpy.typing import DTypeLike, NDArray

_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_TENSOR_TYPES = {
    "float16": "FLOAT16",
    "float32": "FLOAT32",
    "float64": "FLOAT64",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


class Tensor(NamedTuple):
    """A tensor of the file: with `data` a constant, otherwise computed or fed."""

    name: str
    shape: tuple[int, ...]
    dtype: DTypeLike
    scale: float | Sequence[float] | None = None
    """None: not quantised; a sequence: one scale a channel along `axis`."""
    zero: int | Sequence[int] = 0
    axis: int = 0
    data: NDArray | None = None
    variable: bool = False
    """Whether it keeps its value between runs."""


class Operator(NamedTuple):
    """An operator by its schema name (`CONV_2D`), on tensors by name; None is an absent input."""

    kind: str
    inputs: Sequence[str | None]
    outputs: Sequence[str]
    options: str | None = None
    fields: Mapping[str, int | float | bool | Sequence[int]] = {}
    version: int = 1
    intermediates: Sequence[str] = ()
    """Tensors that stand for values inside the operator, by name."""


def build_model(
    tensors: Sequence[Tensor], operators: Sequence[Operator], inputs: Sequence[str], outputs: Sequence[str]
) -> bytes:
    """The bytes of a TFLite file with one subgraph; `inputs` and `outputs` name its interface tensors."""
    builder = flatbuffers.Builder(1024)
    index = {tensor.name: number for number, tensor in enumerate(tensors)}
    # Buffer 0 is empty by convention and serves every tensor without data.
    buffers = [_buffer(builder, None)]
    tensor_offsets = []
    for tensor in tensors:
        number = 0
        if tensor.data is not None:
            number = len(buffers)
            buffers.append(_buffer(builder, np.ascontiguousarray(tensor.data, tensor.dtype).tobytes()))
        tensor_offsets.append(_tensor(builder, tensor, number))
    codes = list(dict.fromkeys((operator.kind, operator.version) for operator in operators))
    operator_offsets = [
        _operator(builder, operator, codes.index((operator.kind, operator.version)), index) for operator in operators
    ]
    subgraph = _table(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, tensor_offsets),
        Inputs=_int32_vector(builder, [index[name] for name in inputs]),
        Outputs=_int32_vector(builder, [index[name] for name in outputs]),
        Operators=_offsets(builder, operator_offsets),
        Name=builder.CreateString("main"),
    )
    model = _table(
        builder,
        "Model",
        Version=_SCHEMA_VERSION,
        OperatorCodes=_offsets(builder, [_operator_code(builder, *code) for code in codes]),
        Subgraphs=_offsets(builder, [subgraph]),
        Buffers=_offsets(builder, buffers),
    )
    builder.Finish(model, _FILE_IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, name: str, **fields) -> int:
    """Write a table of the schema; fields are scalars or offsets of what was written before."""
    module = import_module(f"tflite.{name}")
    getattr(module, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(module, f"{name}Add{field}")(builder, value)
    return getattr(module, f"{name}End")(builder)


def _enum(name: str, value: str) -> int:
    return getattr(getattr(import_module(f"tflite.{name}"), name), value)


def _buffer(builder: flatbuffers.Builder, content: bytes | None) -> int:
    if content is None:
        return _table(builder, "Buffer")
    # Runtimes map constants in place and want them aligned to 16 bytes.
    builder.StartVector(1, len(content), 16)
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return _table(builder, "Buffer", Data=builder.EndVector())


def _tensor(builder: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    fields = {
        "Shape": _int32_vector(builder, tensor.shape),
        "Type": _enum("TensorType", _TENSOR_TYPES[np.dtype(tensor.dtype).name]),
        "Buffer": buffer,
        "Name": builder.CreateString(tensor.name),
    }
    if tensor.scale is not None:
        scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        zeros = np.broadcast_to(np.asarray(tensor.zero, np.int64), scales.shape)
        fields["Quantization"] = _table(
            builder,
            "QuantizationParameters",
            Scale=builder.CreateNumpyVector(scales),
            ZeroPoint=builder.CreateNumpyVector(np.ascontiguousarray(zeros)),
            QuantizedDimension=tensor.axis,
        )
    if tensor.variable:
        fields["IsVariable"] = True
    return _table(builder, "Tensor", **fields)


def _operator(builder: flatbuffers.Builder, operator: Operator, code: int, index: Mapping[str, int]) -> int:
    fields = {
        "OpcodeIndex": code,
        "Inputs": _int32_vector(builder, [-1 if name is None else index[name] for name in operator.inputs]),
        "Outputs": _int32_vector(builder, [index[name] for name in operator.outputs]),
    }
    if operator.options is not None:
        values = {
            field: _int32_vector(builder, value) if isinstance(value, Sequence) else value
            for field, value in operator.fields.items()
        }
        fields["BuiltinOptionsType"] = _enum("BuiltinOptions", operator.options)
        fields["BuiltinOptions"] = _table(builder, operator.options, **values)
    if operator.intermediates:
        fields["Intermediates"] = _int32_vector(builder, [index[name] for name in operator.intermediates])
    return _table(builder, "Operator", **fields)


def _operator_code(builder: flatbuffers.Builder, kind: str, version: int) -> int:
    code = _enum("BuiltinOperator", kind)
    # Readers take the larger of the two fields; the old one has 8 bits and stops at 127.
    return _table(builder, "OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code, Version=version)


def _int32_vector(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return builder.CreateNumpyVector(np.asarray(values, np.int32))


def _offsets(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
