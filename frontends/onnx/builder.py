"""Walks the nodes of an ONNX graph: folds constants, calls importers, collects what cannot be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from ...dialects.graph import ConstantOp
from ...dialects.nacre import Source, set_sources, sources_of
from ...dialects.store import Store
from ...dialects.types import shape_of
from ..module import Problem
from .fold import fold, foldable, has_subgraph
from .functions import function_of, is_composite
from .model import opsets_of
from .node import Node, element_of_array, inner_array, schema_of
from .registry import Unsupported, Value, importer_of


class Failed:
    """Stands for a tensor whose node could not be imported: causes are reported, not their consequences."""


FAILED = Failed()


class Scope(NamedTuple):
    """Where names are looked up: a graph, a subgraph or a function's body.

    layer: the name all ops get inside a function's body; None where nodes have names of their own.
    """

    values: MutableMapping[str, Value | Failed]
    opsets: Mapping[str, int]
    readers: Mapping[str, int]
    layer: str | None = None


class GraphBuilder:
    """Appends graph ops to a block, node by node."""

    def __init__(self, store: Store):
        self.store = store
        self.block = Block()
        self.problems: list[Problem] = []
        self._names: set[str] = set()
        self._shared: dict[tuple[str, int], tuple[np.ndarray, SSAValue]] = {}
        self._inner: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by id, as below
        self._checked: dict[int, np.ndarray] = {}  # by id; keeping the array keeps its id its own

    # -- building
    def append(self, op: Operation) -> None:
        """Put an op at the block's end."""
        self.block.add_op(op)

    def shared_constant(self, name: str, array: np.ndarray, location: LocationAttr) -> SSAValue:
        """The one `graph.constant` of a constant tensor, made at its first use."""
        if (known := self._shared.get((name, id(array)))) is not None:
            return known[1]
        element_of_array(array.dtype, f"constant '{name}'")
        made = ConstantOp.of(array, self.store, name)
        made.location = location
        self.append(made)
        self._shared[name, id(array)] = (array, made.result)  # the array stays alive, so its id stays its own
        return made.result

    # -- walking
    def run(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        """Import nodes in order."""
        for proto in nodes:
            self.run_node(proto, scope)

    def run_node(self, proto: onnx.NodeProto, scope: Scope) -> None:
        """Import one node and bind its outputs; a problem is written down and its outputs fail quietly."""
        name = scope.layer or self.unique_name(proto)
        proto = in_default_domain(proto)
        try:
            inputs = self.inputs_of(proto, scope)
            if any(isinstance(v, Failed) for v in inputs):
                check_known(proto, scope)
                results: Sequence[Value | Failed] = [FAILED] * len(proto.output)
            else:
                results = self.results_of(
                    proto, name, [v for v in inputs if not isinstance(v, Failed)], scope
                )
        except (Unsupported, VerifyException) as error:
            self.problems.append(Problem(name, proto.op_type, str(error)))
            results = [FAILED] * len(proto.output)
        for output, value in zip(proto.output, results):
            if output:
                scope.values[output] = value
                if scope.layer is None and isinstance(value, SSAValue):
                    add_source(value, output)

    def results_of(
        self, proto: onnx.NodeProto, name: str, inputs: Sequence[Value | None], scope: Scope
    ) -> Sequence[Value | Failed]:
        """The node's outputs: folded, imported, or through ONNX's definition of a composite operator."""
        opset = scope.opsets.get(proto.domain, 1)
        check_node(proto, scope.opsets)
        constants = [v for v in inputs if not isinstance(v, SSAValue)]
        if len(constants) == len(inputs) and foldable(proto, opset):
            return fold(proto, scope.opsets, constants)
        function = importer_of(proto.domain, proto.op_type, opset)
        if function is not None:
            inputs = [self.inner(v) if isinstance(v, np.ndarray) else v for v in inputs]
            used = [bool(o) and scope.readers.get(o, 0) > 0 for o in proto.output]
            results = function(Node(proto, name, opset, inputs, used, self, scope))
            results = results if isinstance(results, tuple) else (results,)
            return [v if isinstance(v, SSAValue) else np.asarray(v) for v in results]
        if proto.domain in scope.opsets and (body := function_of(proto, opset, inputs)) is not None:
            return self.run_function(body, name, inputs, scope.opsets)
        raise Unsupported(unknown_reason(proto, opset))

    def inner(self, array: np.ndarray) -> np.ndarray:
        """A constant in the network's float type, converted once."""
        if id(array) not in self._inner:
            self._inner[id(array)] = (array, inner_array(array))
        return self._inner[id(array)][1]

    def run_function(
        self, body: onnx.FunctionProto, name: str, inputs: Sequence[Value | None], opsets: Mapping[str, int]
    ) -> Sequence[Value | Failed]:
        """Import the body of a composite operator in place; its ops get the node's name."""
        values: dict[str, Value | Failed] = {n: v for n, v in zip(body.input, inputs) if v is not None}
        readers = Counter(n for node in body.node for n in node.input) + Counter(body.output)
        known = len(self.problems)
        opsets = {**opsets, **opsets_of(body.opset_import)}
        self.run(body.node, Scope(values, opsets, readers, layer=name))
        if inner := self.problems[known:]:
            del self.problems[known:]
            raise Unsupported("ONNX defines it by " + "; ".join(f"{p.kind}: {p.reason}" for p in inner))
        return [values.get(o, FAILED) for o in body.output]

    def run_subgraph(self, graph: onnx.GraphProto, scope: Scope) -> tuple[Value | Failed, ...]:
        """Import a subgraph in place and give its outputs; it sees the names around it."""
        values = dict(scope.values)
        values |= {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        readers = Counter(n for node in graph.node for n in node.input) + Counter(
            o.name for o in graph.output
        )
        self.run(graph.node, Scope(values, scope.opsets, readers, scope.layer))
        return tuple(values.get(o.name, FAILED) for o in graph.output)

    # -- checks
    def unique_name(self, proto: onnx.NodeProto) -> str:
        """The layer's name: the node's, else its first output's; outputs tell nodes of one name apart."""
        output = next((o for o in proto.output if o), proto.op_type)
        name = proto.name or output
        if name in self._names:
            name = output if output not in self._names else f"{name}/{output}"
        count, base = 1, name
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def inputs_of(self, proto: onnx.NodeProto, scope: Scope) -> list[Value | Failed | None]:
        """The node's inputs, None for absent optional ones."""
        inputs: list[Value | Failed | None] = []
        for name in proto.input:
            if not name:
                inputs.append(None)
                continue
            if name not in scope.values:
                if scope.layer is not None:  # an optional input of the function that the node does not have
                    inputs.append(None)
                    continue
                raise Unsupported(f"reads the tensor '{name}', which nothing before it defines")
            value = scope.values[name]
            if isinstance(value, np.ndarray):
                self.check_nan(name, value)
            inputs.append(value)
        return inputs

    def check_nan(self, name: str, array: np.ndarray) -> None:
        """Constants hold numbers. Infinities are legitimate: masks use them."""
        if id(array) in self._checked:
            return
        if array.dtype.kind == "f" and (count := int(np.isnan(array).sum())):
            raise Unsupported(f"its constant '{name}' holds NaN ({count} of {array.size} values)")
        self._checked[id(array)] = array


def in_default_domain(proto: onnx.NodeProto) -> onnx.NodeProto:
    """The node with the default domain's other name, ai.onnx, replaced."""
    if proto.domain != "ai.onnx":
        return proto
    renamed = onnx.NodeProto()
    renamed.CopyFrom(proto)
    renamed.domain = ""
    return renamed


def check_known(proto: onnx.NodeProto, scope: Scope) -> None:
    """Name an unknown operator even where its inputs could not be imported."""
    opset = scope.opsets.get(proto.domain, 1)
    if importer_of(proto.domain, proto.op_type, opset) is None and not is_composite(proto, opset):
        raise Unsupported(unknown_reason(proto, opset))


def check_node(proto: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """Attributes and the numbers of inputs and outputs have to be those of ONNX's definition."""
    if schema_of(proto.domain, proto.op_type, opsets.get(proto.domain, 1)) is None or has_subgraph(proto):
        return
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = dict(opsets)
    try:
        onnx.checker.check_node(proto, context)
    except onnx.checker.ValidationError as error:
        raise Unsupported(f"it is no valid node: {str(error).strip().splitlines()[0]}") from None


def add_source(value: SSAValue, tensor: str) -> None:
    """Record that a value holds a source tensor, axis by axis."""
    source = Source(tensor, tuple(range(len(shape_of(value)))))
    if source not in sources_of(value):
        set_sources(value, (*sources_of(value), source))


def unknown_reason(proto: onnx.NodeProto, opset: int) -> str:
    """Why nothing can be done with an operator nobody registered."""
    if proto.domain:
        return f"no importer is registered for the operator {proto.op_type} of the domain '{proto.domain}'"
    if schema_of(proto.domain, proto.op_type, opset) is None:
        return f"ONNX has no operator {proto.op_type} in opset {opset}, and no importer is registered for it"
    return "this operator cannot be imported yet"
