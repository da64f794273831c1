"""Composite operators: the definitions ONNX carries as function bodies, for operators without an importer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from xdsl.ir import SSAValue

from ...dialects.types import dtype_of, element_type, shape_of
from .node import schema_of
from .registry import Value


def function_of(
    proto: onnx.NodeProto, opset: int, inputs: Sequence[Value | None]
) -> onnx.FunctionProto | None:
    """The body of a composite operator with the node's attributes; None where ONNX has no definition."""
    schema: Any = schema_of(proto.domain, proto.op_type, opset)  # onnx's stubs lack half of its attributes
    body = onnx.FunctionProto()
    if schema is None:
        return None
    if schema.has_function:
        body.CopyFrom(schema.function_body)
    elif schema.has_context_dependent_function:
        version = max(
            (v for v in schema.context_dependent_function_opset_versions if v <= opset), default=None
        )
        if version is None:
            return None
        types = [b"" if v is None else type_proto(v).SerializeToString() for v in inputs]
        text = schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), types
        )
        body.ParseFromString(text)
    else:
        return None
    given = {a.name: a for a in proto.attribute}
    for name, declared in schema.attributes.items():
        if name not in given and declared.default_value.type != onnx.AttributeProto.UNDEFINED:
            given[name] = declared.default_value
    for node in body.node:
        fill_attributes(node, given)
    return body if body.node else None


def is_composite(proto: onnx.NodeProto, opset: int) -> bool:
    """Whether ONNX defines the operator by others."""
    schema: Any = schema_of(proto.domain, proto.op_type, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def fill_attributes(node: onnx.NodeProto, given: dict[str, onnx.AttributeProto]) -> None:
    """Replace references to the function's attributes; a reference to an absent one vanishes."""
    kept = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if (value := given.get(attribute.ref_attr_name)) is None:
                continue
            filled = onnx.AttributeProto()
            filled.CopyFrom(value)
            filled.name = attribute.name
            kept.append(filled)
            continue
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                fill_attributes(inner, given)
        kept.append(attribute)
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend(kept)


def type_proto(value: Value) -> onnx.TypeProto:
    """A value's type in ONNX's form."""
    dtype, shape = (
        (dtype_of(element_type(value)), shape_of(value))
        if isinstance(value, SSAValue)
        else (value.dtype, value.shape)
    )
    return onnx.helper.make_tensor_type_proto(
        onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape)
    )
