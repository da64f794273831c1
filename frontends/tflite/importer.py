"""TFLite models become modules: `import_tflite`.

Float tensors are graph ops; quantised ones carry their scales in their types, and qnn ops on them the
integers that TFLite computes from the scales. A model that cannot be imported is refused with all reasons at
once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import SSAValue

from ...errors import ImportFailed
from ..module import module_around, problems_text
from . import (  # noqa: F401  they register importers
    activation,
    casting,
    comparison,
    elementwise,
    indexing,
    linear,
    movement,
    pooling,
    recurrent,
    reduction,
    resampling,
)
from .builder import GraphBuilder
from .model import SourceModel, read_model
from .node import Constant, location_of
from .registry import Unsupported


def import_tflite(model: str | os.PathLike[str] | bytes, shapes: Mapping[str, Sequence[int]] | None = None) -> ModuleOp:
    """The model as a module with one `func.func @main`; a quantised input is an argument of quantised type.

    shapes: other shapes than the file's by input name.
    Raises ImportFailed: what is wrong with the file, or every operator that cannot be imported with its
    reason.
    """
    source = read_model(model)
    sizes = input_shapes(source, shapes or {})
    builder = GraphBuilder(source, any(sizes[i] != source.tensors[i].shape for i in source.inputs))
    for index in source.inputs:
        builder.argument(index, sizes[index])
    builder.run()
    if builder.problems:
        raise ImportFailed(problems_text(builder.problems))
    results = [output_value(builder, index) for index in source.outputs]
    builder.append(ReturnOp(*results))
    names = [[source.tensors[i].name for i in side] for side in (source.inputs, source.outputs)]
    states = list(builder.states.values())
    return module_around(builder.block, *names, results, builder.store, states)  # type: ignore[arg-type, call-arg]


def input_shapes(source: SourceModel, given: Mapping[str, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Shape by input: the user's, or the file's. Raises ImportFailed for shapes that fit no input."""
    names = {source.tensors[i].name: i for i in source.inputs}
    if len(names) != len(source.inputs) or not source.outputs:
        raise ImportFailed("the model names an input twice, or has no output")
    sizes = {i: source.tensors[i].shape for i in source.inputs}
    for name, shape in given.items():
        if name not in names:
            raise ImportFailed(f"there is no input '{name}' to give a shape; the inputs are {', '.join(names)}")
        chosen = tuple(int(d) for d in shape)
        if len(chosen) != len(sizes[names[name]]) or min(chosen, default=1) < 1:
            raise ImportFailed(
                f"the input '{name}' is {list(sizes[names[name]])}, which cannot take the shape {list(chosen)}"
            )
        sizes[names[name]] = chosen
    return sizes


def output_value(builder: GraphBuilder, index: int) -> SSAValue:
    """The value of an output of the model; constants become ops."""
    name = builder.model.tensors[index].name
    try:
        value = builder.value_of(index)
    except Unsupported as error:
        raise ImportFailed(f"output '{name}' is computed by no operator: {error}") from None
    if isinstance(value, Constant):
        return builder.shared_constant(value, location_of(name))
    assert isinstance(value, SSAValue), "a failed operator is a problem, which was raised before"
    return value
