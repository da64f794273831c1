"""How the operators that only TFLite's quantised models have become instructions of the fixed engines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dialects import npu_instructions as npu
from ...dialects import qnn
from ...dialects.npu import buffer_type
from ...dialects.quant import storage_range
from ...dialects.rounding import Rounding
from ...dialects.types import dtype_of, element_type, shape_of, storage_of
from ...runtime.kernels.quantised_pool import mean_factor
from .decompose import write_as
from .select import Selector, selects


@selects(qnn.MeanOp, qnn.SumOp)
def mean_or_sum(op: qnn.MeanOp | qnn.SumOp, s: Selector) -> None:
    """A product with ones on the NN engine: depthwise over the image, else a column behind a transposition.

    The sum of (q − zero) and its one requantisation are those of the kernel, so the bits are the same.
    """
    p, shape = op.parameters(), shape_of(op.input)
    axes = sorted(p.axes)
    count = math.prod(shape[a] for a in axes)
    factor = mean_factor(count, p.multiplier, p.shift) if isinstance(op, qnn.MeanOp) else (p.multiplier, p.shift)
    low, high = storage_range(storage_of(element_type(op.result)))
    ports: dict[str, Any] = {
        name: s.constant(np.array([v], np.int32), name) for name, v in zip(("multiplier", "shift"), factor)
    }
    fields: dict[str, Any] = {
        "ifm_zero": p.input_zero, "weight_zero": 0, "ofm_zero": p.result_zero, "low": low, "high": high,
        "rounding": int(Rounding.DOUBLE),
    }  # fmt: skip
    ones = np.uint8 if dtype_of(element_type(op.input)) == np.uint8 else np.int8
    if len(shape) == 4 and set(axes) <= {1, 2}:
        over_image(op, s, axes, ones, ports, fields)
        return
    kept = [a for a in range(len(shape)) if a not in axes]
    rows, x = math.prod(shape[a] for a in kept), s.buffer(op.input)
    if [*kept, *axes] != list(range(len(shape))):
        turned = s.alloc([shape[a] for a in (*kept, *axes)], buffer_type(x).element)
        s.emit(npu.TransposeOp, {"src": x, "dst": turned}, permutation=(*kept, *axes))
        x = turned
    else:
        x = s.dense(op.input)
    ports |= {"ifm": s.reshape(x, (rows, count)), "weight": s.constant(np.ones((count, 1), ones), "ones")}
    write_as(s, op.result, (rows, 1), lambda ofm: s.emit(npu.MatmulOp, {**ports, "ofm": ofm}, **fields))


def over_image(
    op: Any, s: Selector, axes: list[int], ones: type, ports: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Over rows, columns or both of [N, H, W, C]."""
    n, *size, channels = shape_of(op.input)
    kernel = [d if 1 + i in axes else 1 for i, d in enumerate(size)]
    out = (n, *(d // k for d, k in zip(size, kernel)), channels)
    ports |= {"ifm": s.buffer(op.input), "weight": s.constant(np.ones((*kernel, channels, 1), ones), "ones")}
    window = {
        "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "pad_top": 0, "pad_left": 0,
        "pad_bottom": 0, "pad_right": 0,
    }  # fmt: skip
    write_as(s, op.result, out, lambda ofm: s.emit(npu.DepthwiseOp, {**ports, "ofm": ofm}, **fields, **window))
