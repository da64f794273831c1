"""ONNX models become modules of the graph dialect: `import_onnx`.

Shapes are static afterwards, shape arithmetic is folded away, every op carries its node's name as location,
and every value that is a tensor of the model says so. Inside, float16 and float64 are float32; inputs and outputs
keep their types, with casts behind and before them (so what a float64 model computes beyond float32's range is
infinite). A model that cannot be imported is refused with all
reasons at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, SSAValue

from ...dialects.graph import CastOp
from ...dialects.quant import QDQ
from ...dialects.quant import CastOp as QuantCastOp
from ...dialects.store import Store
from ...dialects.types import FLOATS, element_of, element_type, f16, f64, tensor
from ...errors import ImportFailed
from ..module import module_around, problems_text
from . import (  # noqa: F401  they register importers
    control,
    elementwise,
    indexing,
    linear,
    movement,
    normalization,
    quantised,
    recurrent,
    reduction,
    sampling,
    signal,
    spatial,
)
from .builder import Failed, GraphBuilder, Scope
from .model import graph_inputs, opsets_of, read_model
from .node import inner_element, location_of


def import_onnx(
    model: str | os.PathLike | onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None
) -> ModuleOp:
    """The model as a module with one `func.func @main` in the graph dialect.

    shapes: static shapes by input name, for models whose inputs have open sizes.
    Raises ImportFailed: what is wrong with the file, or every node that cannot be imported with its reason.
    """
    proto = read_model(model)
    graph = proto.graph
    store = Store()
    builder = GraphBuilder(store)
    inputs = graph_inputs(graph, shapes or {})
    values: dict[str, SSAValue | np.ndarray | Failed] = dict(initialisers(graph))
    for item in inputs:
        type_ = tensor(item.shape, element_of(item.dtype))
        argument = builder.block.insert_arg(type_, len(builder.block.args))
        values[item.name] = at_border(argument, inner_element(element_of(item.dtype)), item.name, builder)
    outputs = [o.name for o in graph.output]
    readers = Counter(n for node in graph.node for n in node.input) + Counter(outputs)
    builder.run(graph.node, Scope(values, opsets_of(proto.opset_import) or {"": 1}, readers))
    if builder.problems:
        raise ImportFailed(problems_text(builder.problems, "node"))
    results = [
        at_border(output_value(o.name, values, builder), output_element(o), o.name, builder)
        for o in graph.output
    ]
    builder.append(ReturnOp(*results))
    return module_of([i.name for i in inputs], outputs, builder, results)


def initialisers(graph: onnx.GraphProto) -> Mapping[str, np.ndarray]:
    """The model's constants by name, those that are listed as inputs as well (IR version 3) included."""
    arrays = {}
    for item in graph.initializer:
        try:
            arrays[item.name] = onnx.numpy_helper.to_array(item)
        except KeyError:
            raise ImportFailed(f"the initialiser '{item.name}' is of the unknown type {item.data_type}") from None
        except (ValueError, TypeError, RuntimeError) as error:
            raise ImportFailed(f"the initialiser '{item.name}' is damaged: {error}") from None
    for sparse in graph.sparse_initializer:
        arrays[sparse.values.name] = dense(sparse)
    return arrays


def dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """A sparse initialiser as an array; indices are linear or per axis (onnx.proto, SparseTensorProto)."""
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return array


def output_value(
    name: str, values: Mapping[str, SSAValue | np.ndarray | Failed], builder: GraphBuilder
) -> SSAValue:
    """The value of a graph output; constants become ops."""
    value = values.get(name)
    if isinstance(value, np.ndarray):
        return builder.shared_constant(name, value, location_of(name))
    if not isinstance(value, SSAValue):
        raise ImportFailed(f"output '{name}' is computed by no node")
    return value


def output_element(output: onnx.ValueInfoProto) -> Attribute | None:
    """float16 or float64 where the model declares an output so; None: it is as it is computed."""
    elements: dict[int, Attribute] = {TensorProto.FLOAT16: f16, TensorProto.DOUBLE: f64}
    return elements.get(output.type.tensor_type.elem_type)


def at_border(value: SSAValue, element: Attribute | None, name: str, builder: GraphBuilder) -> SSAValue:
    """A value between the model's interface, which may be float16 or float64, and the network in float32."""
    found = element_type(value)
    if element is None or element == found or not (element in FLOATS and found in FLOATS):
        return value
    cast = CastOp.make(value, location=location_of(name), to=element)
    builder.append(cast)
    return cast.result


def module_of(
    inputs: Sequence[str], outputs: Sequence[str], builder: GraphBuilder, results: Sequence[SSAValue]
) -> ModuleOp:
    """The module around a finished block."""
    module = module_around(builder.block, inputs, outputs, results, builder.store)
    if any(isinstance(op, QuantCastOp) for op in builder.block.ops):
        module.attributes[QDQ] = UnitAttr()
    return module
