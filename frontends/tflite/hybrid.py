"""Dynamic-range quantisation: int8 constants beside float activations, which are imported as the floats they stand for.

LiteRT's kernels for it ("hybrid") quantise the activations of each run by their extremes, multiply integers and scale
the sums back (https://ai.google.dev/edge/litert/models/post_training_quantization). The import leaves the activations
as they are, so that it differs from LiteRT by what that rounds off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...dialects.quant import QuantType
from ...dialects.types import f32
from .casting import real_of
from .model import SourceModel, SourceOperator, SourceTensor
from .node import QUANTISED, Constant, Operand
from .registry import IMPORTERS, Unsupported

NOTE = (
    "the model has dynamic-range quantisation: LiteRT rounds the activations of {count} to 8 bits at run time, "
    "and Nacre computes them in float, so the two agree within that noise only"
)


def hybrid_weights(operator: SourceOperator, tensors: Sequence[SourceTensor]) -> tuple[int, ...]:
    """The inputs of an operator, by place, that are quantised weights while what it computes with them is float."""
    entry = IMPORTERS.get(operator.kind)
    if entry is None or not operator.outputs or tensors[operator.outputs[0]].dtype != np.float32:
        return ()
    quantised = {
        place: tensors[index]
        for place, index in enumerate(operator.inputs)
        if index is not None and tensors[index].dtype in QUANTISED and tensors[index].quantisation is not None
    }
    if any(t.data is None for place, t in quantised.items() if place not in entry.weights):
        return ()  # quantised activations, whose result has to be quantised too
    return tuple(place for place in quantised if place in entry.weights)


def rounded_layers(model: SourceModel) -> list[str]:
    """The layers whose activations LiteRT quantises at run time; a look-up has none."""
    return [o.name for o in model.operators if o.kind != "EMBEDDING_LOOKUP" and hybrid_weights(o, model.tensors)]


def with_float_weights(
    operator: SourceOperator, tensors: Sequence[SourceTensor], inputs: Sequence[Operand | None]
) -> list[Operand | None]:
    """The inputs of an operator, its int8 weights as floats. Raises Unsupported for weights that LiteRT reads as
    something else than their type says."""
    made = list(inputs)
    for place in hybrid_weights(operator, tensors):
        index = operator.inputs[place]
        assert index is not None
        made[place] = float_weights(made[place], tensors[index].name)
    return made


def float_weights(value: Operand | None, name: str) -> Constant:
    """scale · q of an int8 constant.

    LiteRT's hybrid kernels take no account of zero points, and read uint8 as int8: both are refused, since the
    numbers that are meant cannot be told.
    """
    if not isinstance(value, Constant):
        raise Unsupported(
            f"its weights '{name}' are quantised beside floats and computed from the model's inputs, and have to be "
            "constant: convert the model in float or with full integer quantisation"
        )
    element = value.element
    assert isinstance(element, QuantType)
    if value.array.dtype != np.int8 or any(element.data.zeros):
        zeros = ", ".join(str(z) for z in sorted(set(element.data.zeros)))
        raise Unsupported(
            f"its weights '{name}' are {value.array.dtype} with the zero point {zeros} beside floats, and dynamic "
            "range has int8 with the zero point 0: convert the model again with TensorFlow 2"
        )
    return Constant(real_of(value.array, element), f32, name)
