"""Operations of the graph dialect that go by places: scans along an axis, the largest values, gathering and scattering
by an index an element, sampling at computed coordinates.

They are part of graph.py's dialect, which names them as its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, result_def

from .declarative import flag, integer, string
from .graph_base import GraphOp, axis_of, broadcast_shape, fail
from .types import element_type, f32, i32, i64, shape_of, tensor


# --- scans -----------------------------------------------------------------------------------------------
class ScanOp(GraphOp):
    """What a reduction has come to at each element of an axis.

    `exclusive` leaves the element itself out; `reverse` goes from the last element to the first.
    """

    input = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()
    exclusive = flag(False)
    reverse = flag(False)

    def infer(self) -> Sequence[Attribute]:
        axis_of(self, self.parameters().axis, len(shape_of(self.input)))
        return [self.input.type]


@irdl_op_definition
class CumsumOp(ScanOp):
    """Sums in the order of the axis, from 0 on (https://onnx.ai/onnx/operators/onnx__CumSum.html)."""

    name = "graph.cumsum"


@irdl_op_definition
class CumprodOp(ScanOp):
    """Products in the order of the axis, from 1 on (https://onnx.ai/onnx/operators/onnx__CumProd.html)."""

    name = "graph.cumprod"


@irdl_op_definition
class TopkOp(GraphOp):
    """The k largest values along an axis in falling order, or the k smallest in rising order, and where they were.

    Of equal values the one in front comes first; NaN is larger than any number. input […, D, …] -> values and indices
    (i64) […, k, …].
    """

    name = "graph.topk"
    input = operand_def(TensorType)
    values = result_def(TensorType)
    indices = result_def(TensorType)
    axis = integer()
    k = integer()
    largest = flag(True)

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        axis = axis_of(self, p.axis, len(shape))
        if not 0 <= p.k <= shape[axis]:
            raise fail(self, f"k = {p.k} values are asked of an axis of {shape[axis]}")
        chosen = (*shape[:axis], p.k, *shape[axis + 1 :])
        return [tensor(chosen, element_type(self.input)), tensor(chosen, i64)]


# --- gathering and scattering ----------------------------------------------------------------------------
def check_indices(op: Operation, indices: SSAValue) -> None:
    """Indices are i32 or i64."""
    if element_type(indices) not in (i32, i64):
        raise fail(op, f"the indices have to be i32 or i64, not {element_type(indices)}")


@irdl_op_definition
class GatherElementsOp(GraphOp):
    """result[…, j, …] = data[…, indices[…, j, …], …]: an index for each element, along one axis.

    data […, D, …], indices […, J, …] -> […, J, …]; along the other axes the indices have data's size, or 1 where they
    serve all of it. A negative index counts from the end.
    """

    name = "graph.gather_elements"
    data = operand_def(TensorType)
    indices = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()

    def infer(self) -> Sequence[Attribute]:
        data, indices = shape_of(self.data), shape_of(self.indices)
        axis = axis_of(self, self.parameters().axis, len(data))
        check_indices(self, self.indices)
        fits = len(data) == len(indices) and all(
            i == axis or n in (1, d) for i, (d, n) in enumerate(zip(data, indices))
        )
        if not fits:
            raise fail(self, f"indices {list(indices)} along axis {axis} do not fit data {list(data)}")
        return [tensor((*data[:axis], indices[axis], *data[axis + 1 :]), element_type(self.data))]


REDUCTIONS = ("none", "add", "mul", "min", "max")


@irdl_op_definition
class ScatterElementsOp(GraphOp):
    """data with result[…, indices[…, j, …], …] = updates[…, j, …], for j from the first to the last.

    The last update of an element stays; with a `reduction` (add, mul, min, max) each is combined with what is there.
    data […, D, …], updates […, J, …] with no more than data's size along the other axes, where the rest of the data
    stays as it is; indices broadcast to the updates. A negative index counts from the end.
    """

    name = "graph.scatter_elements"
    data = operand_def(TensorType)
    indices = operand_def(TensorType)
    updates = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()
    reduction = string("none")

    def infer(self) -> Sequence[Attribute]:
        data, indices, updates = shape_of(self.data), shape_of(self.indices), shape_of(self.updates)
        p = self.parameters()
        axis = axis_of(self, p.axis, len(data))
        check_indices(self, self.indices)
        if p.reduction not in REDUCTIONS:
            raise fail(self, f"the reduction '{p.reduction}' is none of {', '.join(REDUCTIONS)}")
        fits = len(data) == len(updates) == len(indices) and all(
            i == axis or n <= d for i, (d, n) in enumerate(zip(data, updates))
        )
        if not fits or broadcast_shape(self, indices, updates) != updates:
            raise fail(
                self,
                f"updates {list(updates)} with indices {list(indices)} along axis {axis} do not fit {list(data)}",
            )
        if element_type(self.data) != element_type(self.updates):
            raise fail(self, f"element types differ: {element_type(self.data)}, {element_type(self.updates)}")
        return [self.data.type]


# --- sampling --------------------------------------------------------------------------------------------
SAMPLE_MODES = ("nearest", "linear", "cubic")
PADDINGS = ("zeros", "border", "reflection")


@irdl_op_definition
class GridSampleOp(GraphOp):
    """Values of an image at given coordinates. ifm [N, H, W, C], grid [N, H', W', 2] of (x, y) -> [N, H', W', C].

    −1 and 1 are the outer edges of the first and the last pixel, with `align_corners` their centres. Outside lie
    zeros, the `border`'s values, or the image mirrored there. https://onnx.ai/onnx/operators/onnx__GridSample.html
    """

    name = "graph.grid_sample"
    ifm = operand_def(TensorType)
    grid = operand_def(TensorType)
    ofm = result_def(TensorType)
    mode = string("linear")
    padding = string("zeros")
    align_corners = flag(False)

    def infer(self) -> Sequence[Attribute]:
        ifm, grid, p = shape_of(self.ifm), shape_of(self.grid), self.parameters()
        if len(ifm) != 4 or len(grid) != 4 or grid[0] != ifm[0] or grid[3] != 2 or not all(ifm[1:3]):
            raise fail(self, f"ifm [N, H, W, C] and grid [N, H, W, 2] are expected, not {list(ifm)} and {list(grid)}")
        if element_type(self.grid) != f32 or element_type(self.ifm) != f32:
            raise fail(self, f"floats are sampled at floats, not {element_type(self.ifm)} at {element_type(self.grid)}")
        for value, known in ((p.mode, SAMPLE_MODES), (p.padding, PADDINGS)):
            if value not in known:
                raise fail(self, f"'{value}' is none of {', '.join(known)}")
        return [tensor((*grid[:3], ifm[3]), f32)]
