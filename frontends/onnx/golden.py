"""What the source framework computes: every tensor of an ONNX model for given inputs.

ONNX Runtime runs the model with all its tensors as outputs, each node by itself; where it is not
installed, or cannot run the model, ONNX's own reference evaluator does, and says so. Tensors inside branches
have no value of their own and are left out.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ...dialects.store import Store
from ...errors import ImportFailed, InputError
from ...runtime.comparison import Feeds, SourceTensor, in_portions
from .builder import GraphBuilder
from .model import graph_inputs, read_model

if TYPE_CHECKING:
    import onnxruntime

UNKNOWN_BYTES = 2**20
"""What a tensor is taken to need whose shape ONNX's inference does not find."""

Runner = Callable[[Feeds, Sequence[str]], list[object]]


class OnnxGolden:
    """An ONNX model in its source framework; the same reading of the file that `import_onnx` makes.

    Raises ImportFailed for a file that cannot be read; `say` is called with what a user should know.
    """

    rounds = False

    def __init__(
        self,
        model: str | os.PathLike[str] | onnx.ModelProto,
        shapes: Mapping[str, Sequence[int]] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        proto = read_model(model)
        inputs = graph_inputs(proto.graph, shapes or {})
        self.inputs = {i.name: (i.shape, i.dtype) for i in inputs}
        self.outputs = [o.name for o in proto.graph.output]
        fix_shapes(proto, {i.name: i.shape for i in inputs})
        self._bytes = tensor_bytes(proto)
        self.tensors = list(computed_tensors(proto, set(self.inputs)))
        self.framework, self._run = runner_of(proto, [t.name for t in self.tensors], say)

    def run(self, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The named tensors. Raises InputError when the framework cannot run the inputs."""
        found = dict(zip(names, self._run(feeds, names)))
        return {name: np.asarray(a) for name, a in found.items() if isinstance(a, (np.ndarray, np.generic))}

    def portions(self, limit: int) -> Iterator[list[SourceTensor]]:
        """All tensors in the model's order, in portions of about `limit` bytes each."""
        return in_portions(self.tensors, lambda t: self._bytes.get(t.name, UNKNOWN_BYTES), limit)


def computed_tensors(proto: onnx.ModelProto, inputs: set[str]) -> Iterator[SourceTensor]:
    """The outputs of the graph's own nodes that depend on its inputs, under the layer names of the import."""
    names = GraphBuilder(Store())
    variable = set(inputs)
    for node in proto.graph.node:
        layer = names.unique_name(node)
        read = [name for name in [*node.input, *outer_names(node)] if name in variable]
        if not read:
            continue  # a constant, which the import folds
        for output in node.output:
            if output:
                variable.add(output)
                yield SourceTensor(output, layer, node.op_type, tuple(dict.fromkeys(read)))


def outer_names(node: onnx.NodeProto) -> Iterator[str]:
    """What a node's branches read from around it, besides what they define themselves."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from inner.input
                yield from outer_names(inner)
            yield from (o.name for o in attribute.g.output)


def fix_shapes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Write static shapes into the model's inputs."""
    for value in proto.graph.input:
        if value.name in shapes:
            tensor = value.type.tensor_type
            tensor.shape.Clear()
            for size in shapes[value.name]:
                tensor.shape.dim.add().dim_value = int(size)


def tensor_bytes(proto: onnx.ModelProto) -> dict[str, int]:
    """The size of each tensor whose type ONNX's shape inference finds."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]  # may have been written for other shapes
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:  # its C++ errors are of several types; sizes are only asked for to split the work
        return {}
    sizes = {}
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        type_ = value.type.tensor_type
        dims = [d.dim_value for d in type_.shape.dim]
        if type_.HasField("shape") and all(d > 0 for d in dims) and type_.elem_type:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type)
            sizes[value.name] = math.prod(dims) * np.dtype(dtype).itemsize
    return sizes


# --- the frameworks --------------------------------------------------------------------------------------
def runner_of(
    proto: onnx.ModelProto, names: Sequence[str], say: Callable[[str], None]
) -> tuple[str, Runner]:
    """The framework's name and what runs the model in it."""
    if importlib.util.find_spec("onnxruntime") is None:
        say(
            "onnxruntime is not installed (it comes with nacre[verify]): "
            "the model runs in ONNX's reference evaluator, which is slow"
        )
        return "onnx.reference", reference_runner(proto)
    import onnxruntime

    try:
        return f"onnxruntime {onnxruntime.__version__}", onnxruntime_runner(proto, names)
    except Exception as error:  # onnxruntime raises about ten classes that share no base but Exception
        say(f"onnxruntime cannot load the model ({first_line(error)}): ONNX's reference evaluator runs it")
        return "onnx.reference", reference_runner(proto)


def onnxruntime_runner(proto: onnx.ModelProto, names: Sequence[str]) -> Runner:
    """A session that gives any of the named tensors."""
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    known = {o.name for o in exposed.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    content = exposed.SerializeToString()
    session = onnxruntime.InferenceSession(content, node_by_node(proto), providers=["CPUExecutionProvider"])

    def run(feeds: Feeds, wanted: Sequence[str]) -> list[object]:
        try:
            return session.run(list(wanted), dict(feeds))
        except Exception as error:
            raise InputError(f"onnxruntime cannot run the model on this input: {first_line(error)}") from None

    return run


INTEGER_PRODUCTS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"}


def node_by_node(proto: onnx.ModelProto) -> onnxruntime.SessionOptions:
    """Options under which ONNX Runtime computes each node as ONNX defines it.

    Without optimisation, as it joins and reorders nodes; but integer products need one to be exact.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if any(node.op_type in INTEGER_PRODUCTS for node in proto.graph.node):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        exact_products(options)
    return options


def exact_products(options: onnxruntime.SessionOptions) -> None:
    """Let ONNX Runtime's optimiser turn int8 weights into uint8 on x86 without VNNI instructions.

    Pairwise sums of int8 products saturate at 16 bits there (onnxruntime_session_options_config_keys.h).
    """
    options.add_session_config_entry("session.x64quantprecision", "1")


def reference_runner(proto: onnx.ModelProto) -> Runner:
    """ONNX's reference evaluator."""
    try:
        evaluator = ReferenceEvaluator(proto)
    except Exception as error:  # an operator it does not implement, among others
        raise ImportFailed(f"ONNX's reference evaluator cannot load the model: {first_line(error)}") from None

    def run(feeds: Feeds, wanted: Sequence[str]) -> list[object]:
        try:
            with np.errstate(all="ignore"):
                found = evaluator.run(None, dict(feeds), intermediate=True)
        except Exception as error:
            raise InputError(
                f"ONNX's reference evaluator cannot run the model on this input: {first_line(error)}"
            ) from None
        assert isinstance(found, dict)
        return [found.get(name) for name in wanted]

    return run


def first_line(error: Exception) -> str:
    """An exception in a line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
