"""The quantised tensor dialect: operators on quantised tensors in integer arithmetic.

Scales are gone from here on: what was real-valued has become Q31 multipliers and shifts, as operands where
there is one a channel and as parameters where there is one a tensor. Types say what the integers stand for.
Value-preserving ops (reshape, transpose, concat, max_pool, …) are graph ops on quantised tensors.
"""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Dialect, Operation, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, result_def
from xdsl.utils.exceptions import VerifyException

from .declarative import flag, integer, ints, string
from .graph import axis_of, broadcast_shape, check_bias, fail, per_axis, rank4, reduced_shape, window_sizes
from .qnn_base import QnnOp, check_storage
from .qnn_recurrent import LstmCellOp, NormLstmCellOp  # noqa: F401
from .rounding import Rounding
from .types import dtype_of, element_type, i16, shape_of, storage_of


class RequantisingOp(QnnOp):
    """Sums of products in i32 (i64 of 16-bit activations), requantised per output channel and clamped."""

    ofm_zero = integer(0)
    low = integer(-128)
    high = integer(127)
    rounding = integer(int(Rounding.DOUBLE))


def check_channels(op: Operation, channels: int, *vectors: SSAValue | None) -> None:
    """Multiplier and shift hold one value, or one an output channel."""
    for vector in vectors:
        if vector is not None and shape_of(vector) not in ((1,), (channels,)):
            raise fail(op, f"{list(shape_of(vector))} should be [1] or [{channels}]")


@irdl_op_definition
class ConvOp(RequantisingOp):
    """Convolution. ifm [N, H, W, C], weight [KH, KW, C / groups, M], bias [M] -> ofm [N, H', W', M]."""

    name = "qnn.conv"
    ifm = operand_def(TensorType)
    weight = operand_def(TensorType)
    multiplier = operand_def(TensorType)
    shift = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    ofm = result_def(TensorType)
    strides = ints()
    pads = ints()
    dilations = ints()
    groups = integer(1)
    ifm_zero = integer(0)
    weight_zero = integer(0)

    def shape(self) -> tuple[int, ...]:
        n, h, w, c = rank4(self, self.ifm)
        weight, p = shape_of(self.weight), self.parameters()
        per_axis(self, 2, strides=p.strides, pads=p.pads, dilations=p.dilations)
        if len(weight) != 4 or weight[2] * p.groups != c or weight[3] % p.groups:
            raise fail(self, f"weight {list(weight)} with {p.groups} groups does not fit {c} channels")
        check_bias(self, self.bias, weight[3])
        check_channels(self, weight[3], self.multiplier, self.shift)
        return (n, *window_sizes(self, (h, w), weight[:2], p.strides, p.pads, p.dilations), weight[3])


@irdl_op_definition
class MatmulOp(RequantisingOp):
    """Matrix product. a […, M, K], b […, K, N], bias [N] -> […, M, N], stored as a is, or as `to` says."""

    name = "qnn.matmul"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    multiplier = operand_def(TensorType)
    shift = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)
    a_zero = integer(0)
    b_zero = integer(0)
    to = string("")

    def verify_(self) -> None:
        super().verify_()
        check_storage(self, self.a, self.result)

    def shape(self) -> tuple[int, ...]:
        a, b = shape_of(self.a), shape_of(self.b)
        if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
            raise fail(self, f"{list(a)} and {list(b)} do not multiply")
        check_bias(self, self.bias, b[-1])
        check_channels(self, b[-1], self.multiplier, self.shift)
        return (*broadcast_shape(self, a[:-2], b[:-2]), a[-2], b[-1])


class ElementwiseOp(QnnOp):
    """Two feature maps element by element, with numpy's broadcasting."""

    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    def shape(self) -> tuple[int, ...]:
        return broadcast_shape(self, shape_of(self.a), shape_of(self.b))


@irdl_op_definition
class AddOp(ElementwiseOp):
    """Rescaled a + b, or a − b with `subtract`; `rescale` holds the twelve integers of TFLite's ADD."""

    name = "qnn.add"
    rescale = ints()
    subtract = flag(False)

    def shape(self) -> tuple[int, ...]:
        if len(self.parameters().rescale) != 12:
            raise fail(self, "'rescale' has twelve entries")
        return super().shape()


@irdl_op_definition
class MulOp(ElementwiseOp):
    """(a − zero) · (b − zero), requantised with one multiplier and clamped."""

    name = "qnn.mul"
    a_zero = integer(0)
    b_zero = integer(0)
    ofm_zero = integer(0)
    multiplier = integer()
    shift = integer()
    low = integer(-128)
    high = integer(127)


@irdl_op_definition
class PreluOp(ElementwiseOp):
    """a where it is not negative, a · b elsewhere; `rescale` holds the seven integers of TFLite's PRELU."""

    name = "qnn.prelu"
    rescale = ints()

    def shape(self) -> tuple[int, ...]:
        if len(self.parameters().rescale) != 7:
            raise fail(self, "'rescale' has seven entries")
        return super().shape()


class SameShapeOp(QnnOp):
    """One feature map element by element."""

    input = operand_def(TensorType)
    result = result_def(TensorType)

    def shape(self) -> tuple[int, ...]:
        return shape_of(self.input)


@irdl_op_definition
class RequantiseOp(SameShapeOp):
    """A change of scale and zero point; the storage type stays, or becomes `to` (i8, u8 or i16)."""

    name = "qnn.requantise"
    multiplier = integer()
    shift = integer()
    input_zero = integer(0)
    result_zero = integer(0)
    to = string("")

    def verify_(self) -> None:
        super().verify_()
        check_storage(self, self.input, self.result)


@irdl_op_definition
class ClampOp(SameShapeOp):
    """min(max(q, low), high) on stored integers."""

    name = "qnn.clamp"
    low = integer()
    high = integer()


@irdl_op_definition
class TableOp(QnnOp):
    """result = table[bits of q]; the table has 256 entries of the result's type.

    For 16 bits it has 513 samples, between which is interpolated: every 128th value, and one behind the last.
    """

    name = "qnn.table"
    input = operand_def(TensorType)
    table = operand_def(TensorType)
    result = result_def(TensorType)

    def shape(self) -> tuple[int, ...]:
        entries = 256 if dtype_of(element_type(self.input)).itemsize == 1 else 513
        if shape_of(self.table) != (entries,):
            raise fail(self, f"the table has {entries} entries, not {list(shape_of(self.table))}")
        return shape_of(self.input)


@irdl_op_definition
class AvgPoolOp(QnnOp):
    """TFLite's AVERAGE_POOL_2D: scale and zero point stay, the mean is over what lies inside."""

    name = "qnn.avg_pool"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    kernel = ints()
    strides = ints()
    pads = ints()
    low = integer(-128)
    high = integer(127)

    def shape(self) -> tuple[int, ...]:
        (n, h, w, c), p = rank4(self, self.ifm), self.parameters()
        per_axis(self, 2, kernel=p.kernel, strides=p.strides, pads=p.pads)
        return (n, *window_sizes(self, (h, w), p.kernel, p.strides, p.pads, (1, 1)), c)


class ReduceOp(QnnOp):
    """A reduction over `axes`, requantised once; they stay with size 1 when `keepdims`."""

    input = operand_def(TensorType)
    result = result_def(TensorType)
    axes = ints()
    keepdims = flag(True)
    multiplier = integer()
    shift = integer()
    input_zero = integer(0)
    result_zero = integer(0)

    def shape(self) -> tuple[int, ...]:
        shape, p = shape_of(self.input), self.parameters()
        axes = {axis_of(self, a, len(shape)) for a in p.axes}
        if len(axes) != len(p.axes) or any(shape[a] == 0 for a in axes):
            raise fail(
                self, f"the axes {list(p.axes)} of {list(shape)} are not all different and above size 0"
            )
        return reduced_shape(shape, axes, p.keepdims)


@irdl_op_definition
class MeanOp(ReduceOp):
    """TFLite's MEAN: the multiplier is that of scale_in / scale_out; the kernel divides it by the count."""

    name = "qnn.mean"


@irdl_op_definition
class SumOp(ReduceOp):
    """TFLite's SUM between different quantisations."""

    name = "qnn.sum"


@irdl_op_definition
class SoftmaxOp(SameShapeOp):
    """TFLite's fixed-point softmax over the last axis; the result's scale is 1/256."""

    name = "qnn.softmax"
    multiplier = integer()
    left_shift = integer()
    smallest_difference = integer()


@irdl_op_definition
class ResizeOp(QnnOp):
    """Resampling by tables: [lower index, upper index, 1024 · weight of the upper] a row or column."""

    name = "qnn.resize"
    ifm = operand_def(TensorType)
    rows = operand_def(TensorType)
    cols = operand_def(TensorType)
    ofm = result_def(TensorType)
    mode = string("linear")

    def shape(self) -> tuple[int, ...]:
        n, _, _, c = rank4(self, self.ifm)
        for table in (self.rows, self.cols):
            if len(shape_of(table)) != 2 or shape_of(table)[1] != 3:
                raise VerifyException(f"{self.name}: a table is [n, 3], not {list(shape_of(table))}")
        return (n, shape_of(self.rows)[0], shape_of(self.cols)[0], c)


@irdl_op_definition
class ResizeFloatOp(QnnOp):
    """TFLite's RESIZE_BILINEAR of uint8, which interpolates the stored integers in float32."""

    name = "qnn.resize_float"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    sizes = ints()
    align_corners = flag(False)
    half_pixel = flag(False)

    def shape(self) -> tuple[int, ...]:
        n, h, w, c = rank4(self, self.ifm)
        sizes = self.parameters().sizes
        if len(sizes) != 2 or min(*sizes, h, w) < 1:
            raise fail(self, f"{h}x{w} pixels cannot be resized to {list(sizes)}")
        return (n, *sizes, c)


class Int16Op(SameShapeOp):
    """One int16 feature map element by element, or row by row."""

    def verify_(self) -> None:
        super().verify_()
        for value in (self.input, self.result):
            if storage_of(element_type(value)) != i16:
                raise fail(self, f"works on i16, not on {storage_of(element_type(value))}")


@irdl_op_definition
class Softmax16Op(Int16Op):
    """TFLite's softmax of int16 over the last axis, from interpolated tables; the result's scale is
    1/32768.
    """

    name = "qnn.softmax16"
    multiplier = integer()
    shift = integer()


@irdl_op_definition
class LeakyReluOp(SameShapeOp):
    """x where it is not negative, alpha · x elsewhere; `rescale` holds the seven integers of TFLite's
    LEAKY_RELU.
    """

    name = "qnn.leaky_relu"
    rescale = ints()

    def shape(self) -> tuple[int, ...]:
        if len(self.parameters().rescale) != 7:
            raise fail(self, "'rescale' has seven entries")
        return super().shape()


@irdl_op_definition
class LogisticOp(Int16Op):
    """TFLite's LOGISTIC of int16, interpolated; the result's scale is 1/32768."""

    name = "qnn.logistic"
    multiplier = integer()
    shift = integer()


@irdl_op_definition
class TanhOp(Int16Op):
    """TFLite's TANH of int16, interpolated; the result's scale is 1/32768."""

    name = "qnn.tanh"
    multiplier = integer()
    shift = integer()


@irdl_op_definition
class L2NormalizeOp(SameShapeOp):
    """TFLite's L2_NORMALIZATION over the last axis; the result's scale is 1/128."""

    name = "qnn.l2_normalize"
    input_zero = integer(0)


@irdl_op_definition
class SquaredDifferenceOp(ElementwiseOp):
    """(a − b)², both rescaled first; `rescale` holds the twelve integers of TFLite's SQUARED_DIFFERENCE."""

    name = "qnn.squared_difference"
    rescale = ints()

    def shape(self) -> tuple[int, ...]:
        if len(self.parameters().rescale) != 12:
            raise fail(self, "'rescale' has twelve entries")
        return super().shape()


OPS: tuple[type[Operation], ...] = tuple(
    op for op in list(globals().values())
    if isinstance(op, type) and issubclass(op, QnnOp) and op.__dict__.get("name", "").startswith("qnn.")
)  # fmt: skip

QNN = Dialect("qnn", list(OPS), [])
