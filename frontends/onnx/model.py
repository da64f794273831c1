"""Reading an ONNX file: external data, old opsets, local functions, and the shapes of the inputs.

Everything a file can be wrong about before its first node is looked at ends here in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from ...dialects.types import ELEMENT_OF
from ...errors import ImportFailed, OpenShapes

OLDEST_OPSET = 7
"""Opset 7 brought numpy's broadcasting; older models go through ONNX's version converter."""


class Input(NamedTuple):
    """A graph input: its name, static shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


def read_model(model: str | os.PathLike | onnx.ModelProto) -> onnx.ModelProto:
    """A model with its data, local functions inlined, at an opset the importers know. Raises ImportFailed."""
    if isinstance(model, onnx.ModelProto):
        label, proto = model.graph.name or "the model", onnx.ModelProto()
        proto.CopyFrom(model)
        for tensor in external_tensors(proto):
            raise ImportFailed(
                f"{label}: '{tensor.name}' lies in an external file whose folder is not known; pass the "
                f"path of the .onnx file, or load it with onnx.load, which reads external data"
            )
    else:
        label, proto = str(model), read_file(Path(model))
    if not proto.graph.node and not proto.graph.output:
        raise ImportFailed(f"'{label}' holds no graph: the file is empty or not an ONNX model")
    if not proto.graph.output:
        raise ImportFailed(f"'{label}' has no outputs, so there is nothing to compute")
    if not proto.opset_import:
        raise ImportFailed(
            f"'{label}' does not say which opset it uses: it is truncated, or older than ONNX 1.0"
        )
    proto = at_known_opset(proto, label)
    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def read_file(path: Path) -> onnx.ModelProto:
    """The model in a file, external data included."""
    if path.is_dir():
        found = sorted(p.name for p in path.glob("*.onnx"))
        hint = f"; it holds {', '.join(found[:3])}" if found else ""
        raise ImportFailed(f"'{path}' is a folder, not an ONNX file{hint}")
    if not path.exists():
        raise ImportFailed(f"'{path}' does not exist")
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except PermissionError:
        raise ImportFailed(f"'{path}' cannot be opened: permission denied") from None
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImportFailed(
            f"'{path}' is no complete ONNX model (truncated or another format): {reason}"
        ) from None
    if not all(isinstance(s, str) for s in strings_of(proto)):  # protobuf gives bytes where it cannot decode
        raise ImportFailed(f"'{path}' is damaged: one of its names is not UTF-8 text")
    for tensor in external_tensors(proto):
        check_external(tensor, path)
    try:
        load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ImportFailed(
            f"'{path}': its external data cannot be read: {str(error).splitlines()[0]}"
        ) from None
    return proto


def strings_of(message: Message) -> Iterator[object]:
    """All strings in a protobuf message."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else (value,)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from values
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in values:
                yield from strings_of(inner)


def check_external(tensor: onnx.TensorProto, path: Path) -> None:
    """A tensor's external file has to be there and long enough."""
    entries = {e.key: e.value for e in tensor.external_data}
    file = path.parent / entries.get("location", "")
    if not file.is_file():
        raise ImportFailed(
            f"'{path}' keeps '{tensor.name}' in '{entries.get('location', '')}', which is not beside it; "
            f"put the file into '{path.parent}'"
        )
    end = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
    if file.stat().st_size < end:
        raise ImportFailed(
            f"'{file}' is too short: '{tensor.name}' ends at byte {end} of {file.stat().st_size}"
        )


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors whose bytes lie outside the model."""
    yield from (t for t in graph_tensors(proto.graph) if uses_external_data(t))


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initialisers and tensor attributes of a graph and its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from graph_tensors(attribute.g)


def opsets_of(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Opset version by domain; the default domain is written '' everywhere."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in imports}


def at_known_opset(proto: onnx.ModelProto, label: str) -> onnx.ModelProto:
    """The model at an opset between the oldest and the newest that is known."""
    version = opsets_of(proto.opset_import).get("", 1)
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise ImportFailed(
            f"'{label}' uses opset {version}, but onnx {onnx.__version__} knows opsets up to {newest}: "
            f"export it with opset {newest} or install a newer onnx"
        )
    if version >= OLDEST_OPSET or set(opsets_of(proto.opset_import)) - {""}:
        return proto
    check_slopes(proto, label)
    listed = {i.name for i in proto.graph.input}
    for item in proto.graph.initializer:  # the converter wants them to be inputs too
        if item.name not in listed:
            value = onnx.helper.make_tensor_value_info(item.name, item.data_type, item.dims)
            proto.graph.input.append(value)
    try:
        return onnx.version_converter.convert_version(proto, OLDEST_OPSET)
    except Exception as error:  # the C++ converter raises RuntimeError and several types of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImportFailed(
            f"'{label}' uses opset {version}, and ONNX's version converter could not bring it to "
            f"{OLDEST_OPSET} ({reason}): export it again with opset 13 or newer"
        ) from None


def check_slopes(proto: onnx.ModelProto, label: str) -> None:
    """Before opset 7 a PRelu slope belonged to the channels; the converter leaves it as it is."""
    scalar = {t.name for t in proto.graph.initializer if list(t.dims) in ([], [1])}
    for node in proto.graph.node:
        if node.op_type == "PRelu" and node.input[1] not in scalar:
            raise ImportFailed(
                f"'{label}', node '{node.name or node.output[0]}': a PRelu with a slope for each channel of "
                f"an opset before 7 cannot be converted: export it again with opset 13 or newer"
            )


# --- input shapes ----------------------------------------------------------------------------------------
def graph_inputs(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> list[Input]:
    """The inputs that are not initialisers, open sizes fixed by `shapes`. Raises ImportFailed."""
    initialised = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    values = [i for i in graph.input if i.name not in initialised]
    unknown = sorted(set(shapes) - {v.name for v in values})
    if unknown:
        names = ", ".join(f"'{v.name}'" for v in values) or "none"
        raise ImportFailed(f"a shape is given for '{unknown[0]}', but the model's inputs are {names}")
    symbols: dict[str, tuple[int, str]] = {}
    fixed = [fix_input(value, shapes.get(value.name), symbols) for value in values]
    open_ones = [(value, f) for value, f in zip(values, fixed) if not isinstance(f, Input)]
    if open_ones:
        raise OpenShapes(
            open_sentence([(value.name, dims) for value, dims in open_ones]), [value.name for value, _ in open_ones]
        )
    return [f for f in fixed if isinstance(f, Input)]


Dims = tuple[int | str, ...] | None


def dims_of(value: onnx.ValueInfoProto) -> Dims:
    """Sizes of an input, a name where it is open, None where not even the rank is known."""
    type_ = value.type.tensor_type
    if not type_.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or "?"
        for d in type_.shape.dim
    )


def fix_input(
    value: onnx.ValueInfoProto, given: Sequence[int] | None, symbols: dict[str, tuple[int, str]]
) -> Input | Dims:
    """The input with a static shape, or its dims where some stay open."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        found = str(kind).removesuffix("_type")
        raise ImportFailed(f"input '{value.name}' is of type {found}, but only tensors can be imported")
    dtype = input_dtype(value)
    dims = dims_of(value)
    if given is None:
        if dims is not None and all(isinstance(d, int) for d in dims):
            return Input(value.name, tuple(int(d) for d in dims), dtype)
        return dims
    shape = tuple(int(d) for d in given)
    text = shape_text(dims)
    if any(d < 1 for d in shape):
        raise ImportFailed(f"the shape {list(shape)} given for input '{value.name}' has a size below 1")
    if dims is not None and (
        len(dims) != len(shape) or any(isinstance(d, int) and d != s for d, s in zip(dims, shape))
    ):
        raise ImportFailed(
            f"the shape {list(shape)} given for input '{value.name}' does not fit the model's {text}"
        )
    for dim, size in zip(dims or (), shape):
        if isinstance(dim, str) and dim != "?":
            known, where = symbols.setdefault(dim, (size, value.name))
            if known != size:
                raise ImportFailed(
                    f"the size '{dim}' is {known} for input '{where}' and {size} for input '{value.name}', "
                    f"but the model says that they are equal"
                )
    return Input(value.name, shape, dtype)


def input_dtype(value: onnx.ValueInfoProto) -> np.dtype:
    """The dtype of a graph input that Nacre has an element type for."""
    elem = value.type.tensor_type.elem_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem))
    except (KeyError, TypeError):
        dtype = np.dtype(object)
    if dtype not in ELEMENT_OF:
        name = (
            onnx.TensorProto.DataType.Name(elem) if elem in onnx.TensorProto.DataType.values() else str(elem)
        )
        raise ImportFailed(f"input '{value.name}' is of type {name.lower()}, which Nacre does not know")
    return dtype


def shape_text(dims: Dims) -> str:
    """Dims as a user reads them."""
    return "unknown rank" if dims is None else f"[{', '.join(str(d) for d in dims)}]"


def example(dims: Dims) -> str:
    """A shape a user could give."""
    if dims is None:
        return "1,3,224,224"
    sizes = [d if isinstance(d, int) else 1 for d in dims]
    if len(dims) == 4:  # an image: which axes are its height and width shows where the channels are
        spatial = (1, 2) if dims[3] in (1, 3, 4) and dims[1] not in (1, 3, 4) else (2, 3)
        for axis in spatial:
            if not isinstance(dims[axis], int):
                sizes[axis] = 224
    return ",".join(map(str, sizes))


def open_sentence(inputs: Sequence[tuple[str, Dims]]) -> str:
    """What is open, and how to close it."""
    what = "; ".join(f"input '{name}' has the shape {shape_text(dims)}" for name, dims in inputs)
    options = " ".join(f"--shape {name}={example(dims)}" for name, dims in inputs)
    only_batch = all(
        dims and isinstance(dims[0], str) and all(isinstance(d, int) for d in dims[1:]) for _, dims in inputs
    )
    which = "only axis 0 (the batch) is open" if only_batch else "sizes that are names or '?' are open"
    return f"{what}; {which}, and Nacre compiles for fixed shapes: give them, for example with {options}"
