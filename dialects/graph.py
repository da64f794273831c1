"""The graph dialect: a small canonical set of tensor operations that front ends normalise into.

Shapes are static. Spatial operations (convolution, pooling, resize, space/depth, lrn) are channels-last: `[N,
W, C]` or `[N, H, W, C]`; all others keep the source's axis order. An op class's `infer` is its shape rule.
Operations that only move values (reshape, transpose, concat, …) work on quantised tensors as well, whose
integers they
move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntegerType, TensorType
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import ConstantLike, Pure

from .declarative import (
    flag,
    integer,
    ints,
    number,
    numbers,
    parse_parameter,
    parse_parameters,
    print_parameter,
    print_parameters,
    string,
    value_of,
)
from .graph_base import GraphOp, axis_of, broadcast_shape, fail
from .graph_index import (  # noqa: F401  OPS takes them in
    CumprodOp,
    CumsumOp,
    GatherElementsOp,
    GridSampleOp,
    ScanOp,
    ScatterElementsOp,
    TopkOp,
)
from .graph_recurrent import GruCellOp, GruResetOp, LstmCellOp  # noqa: F401
from .nacre import array_of, constant_attribute, element_matches, store_of
from .store import Store
from .types import FLOATS, element_of, element_type, f32, i1, i32, i64, shape_of, storage_of, tensor


# --- constants -------------------------------------------------------------------------------------------
class ConstantLikeOp(ConstantLike):
    """Marks `graph.constant` for xDSL."""


@irdl_op_definition
class ConstantOp(GraphOp):
    """A tensor known at compile time; of a quantised type, its stored integers."""

    name = "graph.constant"
    value = prop_def(Attribute)
    result = result_def(TensorType)
    traits = traits_def(Pure(), ConstantLikeOp())

    @classmethod
    def of(
        cls, array: np.ndarray, store: Store, name: str = "", element: Attribute | None = None
    ) -> ConstantOp:
        """A constant from an array; `element` where it is not the dtype's own (a quantised type)."""
        array = np.asarray(array)
        type_ = tensor(array.shape, element if element is not None else element_of(array.dtype))
        return cls.create(properties={"value": constant_attribute(array, store, name)}, result_types=[type_])

    def array(self) -> np.ndarray:
        """The constant's data, shaped; quantised types give their stored integers."""
        return array_of(self.value, self.result.type, self)

    def verify_(self) -> None:
        if not element_matches(self.value, element_type(self.result)):
            raise fail(self, f"the value's elements are not those of {self.result.type}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        print_parameter(printer, self.value)
        print_parameters(printer, self.attributes)
        if getattr(self.value, "type", None) != self.result.type:  # `dense<…> : type` says it already
            printer.print_string(" : ")
            printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> ConstantOp:
        value = parse_parameter(parser)
        attributes = parse_parameters(parser)
        if parser.parse_optional_punctuation(":"):
            type_: Attribute = parser.parse_type()
        elif isinstance(value, DenseIntOrFPElementsAttr):
            type_ = value.type
        else:
            parser.raise_error("a constant in a store needs ': type'")
        op = cls.create(properties={"value": value}, result_types=[type_])
        op.attributes |= attributes
        return op


def constant_of(value: SSAValue) -> np.ndarray | None:
    """The array behind a value if a constant defines it."""
    return value.owner.array() if isinstance(value.owner, ConstantOp) else None


def constant(
    array: np.ndarray, near: Operation, name: str = "", element: Attribute | None = None
) -> ConstantOp:
    """A constant for the module that `near` stands in."""
    return ConstantOp.of(array, store_of(near), name, element)


# --- spatial ---------------------------------------------------------------------------------------------
def spatial(op: Operation, value: SSAValue, what: str = "ifm") -> tuple[int, ...]:
    """The spatial sizes of a channels-last tensor of rank 3 or 4."""
    shape = shape_of(value)
    if len(shape) not in (3, 4):
        raise fail(op, f"the {what} has to be [N, W, C] or [N, H, W, C], but is {list(shape)}")
    return shape[1:-1]


def per_axis(op: Operation, rank: int, **lists: Sequence[int]) -> None:
    """Check that each list has one entry a spatial axis (pads: two)."""
    for name, values in lists.items():
        want = 2 * rank if name == "pads" else rank
        if len(values) != want:
            raise fail(op, f"'{name}' needs {want} entries for {rank} spatial axes, but has {len(values)}")
        low = 0 if name in ("pads", "output_pads") else 1
        if any(v < low for v in values):
            raise fail(op, f"'{name}' = {list(values)} has an entry below {low}")


def window_sizes(
    op: Operation,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Output sizes of a sliding window: floor((in + pads − dilation · (kernel − 1) − 1) / stride) + 1.

    pads: all beginnings, then all ends (https://onnx.ai/onnx/operators/onnx__Conv.html).
    """
    rank, out = len(sizes), []
    for i in range(rank):
        room = sizes[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1
        if room < 0:
            raise fail(op, f"the window of {kernel[i]} does not fit the padded axis of {room + kernel[i]}")
        out.append(room // strides[i] + 1)
    return tuple(out)


@irdl_op_definition
class ConvOp(GraphOp):
    """Convolution. ifm [N, …, C], weight [K…, C / groups, M], bias [M] -> ofm [N, …, M].

    Output channel m belongs to group m // (M / groups); depthwise is groups = C.
    """

    name = "graph.conv"
    ifm = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    ofm = result_def(TensorType)
    strides = ints()
    pads = ints()
    dilations = ints()
    groups = integer(1)

    def infer(self) -> Sequence[Attribute]:
        sizes, weight = spatial(self, self.ifm), shape_of(self.weight)
        n, channels = shape_of(self.ifm)[0], shape_of(self.ifm)[-1]
        p = self.parameters()
        per_axis(self, len(sizes), strides=p.strides, pads=p.pads, dilations=p.dilations)
        if len(weight) != len(sizes) + 2:
            raise fail(self, f"weight {list(weight)} does not fit {len(sizes)} spatial axes")
        if p.groups < 1 or weight[-2] * p.groups != channels or weight[-1] % p.groups:
            raise fail(self, f"weight {list(weight)} with {p.groups} groups does not fit {channels} channels")
        check_bias(self, self.bias, weight[-1])
        out = window_sizes(self, sizes, weight[:-2], p.strides, p.pads, p.dilations)
        return [tensor((n, *out, weight[-1]), element_type(self.ifm))]


@irdl_op_definition
class ConvTransposeOp(GraphOp):
    """Transposed convolution. ifm [N, …, C], weight [K…, C / groups, M], bias [M] -> ofm [N, …, M].

    size = stride · (in − 1) + output_pad + dilation · (kernel − 1) + 1 − pads
    (https://onnx.ai/onnx/operators/onnx__ConvTranspose.html).
    """

    name = "graph.conv_transpose"
    ifm = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    ofm = result_def(TensorType)
    strides = ints()
    pads = ints()
    dilations = ints()
    output_pads = ints()
    groups = integer(1)

    def infer(self) -> Sequence[Attribute]:
        sizes, weight, p = spatial(self, self.ifm), shape_of(self.weight), self.parameters()
        n, channels = shape_of(self.ifm)[0], shape_of(self.ifm)[-1]
        rank = len(sizes)
        per_axis(self, rank, strides=p.strides, pads=p.pads, dilations=p.dilations, output_pads=p.output_pads)
        if len(weight) != rank + 2 or weight[-2] * p.groups != channels or weight[-1] % p.groups:
            raise fail(self, f"weight {list(weight)} with {p.groups} groups does not fit {channels} channels")
        check_bias(self, self.bias, weight[-1])
        out = [
            p.strides[i] * (sizes[i] - 1) + p.output_pads[i] + p.dilations[i] * (weight[i] - 1) + 1
            - p.pads[i] - p.pads[rank + i]
            for i in range(rank)
        ]  # fmt: skip
        if min(out) < 1:
            raise fail(self, f"the output sizes {out} leave nothing")
        return [tensor((n, *out, weight[-1]), element_type(self.ifm))]


def check_bias(op: Operation, bias: SSAValue | None, channels: int) -> None:
    """A bias holds one value an output channel."""
    if bias is not None and shape_of(bias) != (channels,):
        raise fail(op, f"bias {list(shape_of(bias))} should be [{channels}]")


class PoolOp(GraphOp):
    """A window that slides over the spatial axes of ifm [N, …, C]."""

    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    kernel = ints()
    strides = ints()
    pads = ints()
    dilations = ints()

    def infer(self) -> Sequence[Attribute]:
        sizes, p = spatial(self, self.ifm), self.parameters()
        per_axis(self, len(sizes), kernel=p.kernel, strides=p.strides, pads=p.pads, dilations=p.dilations)
        shape = shape_of(self.ifm)
        out = window_sizes(self, sizes, p.kernel, p.strides, p.pads, p.dilations)
        return [tensor((shape[0], *out, shape[-1]), element_type(self.ifm))]


@irdl_op_definition
class MaxPoolOp(PoolOp):
    """Largest value in the window; padding never wins."""

    name = "graph.max_pool"


@irdl_op_definition
class AvgPoolOp(PoolOp):
    """Mean of the window: over the values inside the ifm, or over ifm and `pads` with `count_include_pad`.

    What a last window reaches beyond the pads (ceil mode) never counts: `overhang` says how much of the end
    pads that is, per spatial axis.
    """

    name = "graph.avg_pool"
    count_include_pad = flag(False)
    overhang = ints(())


@irdl_op_definition
class LrnOp(GraphOp):
    """Local response normalisation over channels: x / (bias + alpha / size · Σ x²)^beta, `[…, C]`.

    https://onnx.ai/onnx/operators/onnx__LRN.html
    """

    name = "graph.lrn"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    size = integer()
    alpha = number(1e-4)
    beta = number(0.75)
    bias = number(1.0)

    def infer(self) -> Sequence[Attribute]:
        return [self.ifm.type]


RESIZE_MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@irdl_op_definition
class ResizeOp(GraphOp):
    """Resampling of the spatial axes of ifm [N, …, C] to `sizes`.

    `scales` are the factors of the coordinate transform where they are not sizes / input sizes.
    https://onnx.ai/onnx/operators/onnx__Resize.html
    """

    name = "graph.resize"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    sizes = ints()
    scales = numbers(())
    mode = string("nearest")
    coordinates = string("half_pixel")
    nearest = string("round_prefer_floor")
    cubic_a = number(-0.75)
    exclude_outside = flag(False)

    def infer(self) -> Sequence[Attribute]:
        rank, p, shape = len(spatial(self, self.ifm)), self.parameters(), shape_of(self.ifm)
        per_axis(self, rank, sizes=p.sizes)
        for value, known in (
            (p.mode, RESIZE_MODES),
            (p.coordinates, COORDINATES),
            (p.nearest, NEAREST_MODES),
        ):
            if value not in known:
                raise fail(self, f"'{value}' is none of {', '.join(known)}")
        if len(p.scales) not in (0, rank):
            raise fail(self, f"'scales' needs {rank} entries or none")
        element = element_type(self.ifm)
        if p.mode != "nearest" and element not in FLOATS:
            raise fail(self, f"mode '{p.mode}' computes floats, not {element}; 'nearest' moves integers")
        return [tensor((shape[0], *p.sizes, shape[-1]), element)]


@irdl_op_definition
class DepthToSpaceOp(GraphOp):
    """Channels become blocks of pixels. ifm [N, H, W, C] -> [N, H·b, W·b, C / b²]; `order` DCR or CRD as in
    ONNX.
    """

    name = "graph.depth_to_space"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    block = integer()
    order = string("DCR")

    def infer(self) -> Sequence[Attribute]:
        (n, h, w, c), p = rank4(self, self.ifm), self.parameters()
        if p.block < 1 or c % p.block**2 or p.order not in ("DCR", "CRD"):
            raise fail(self, f"block {p.block}, order {p.order} does not fit {c} channels")
        return [tensor((n, h * p.block, w * p.block, c // p.block**2), element_type(self.ifm))]


@irdl_op_definition
class SpaceToDepthOp(GraphOp):
    """Blocks of pixels become channels. ifm [N, H, W, C] -> [N, H / b, W / b, C·b²], block offset major."""

    name = "graph.space_to_depth"
    ifm = operand_def(TensorType)
    ofm = result_def(TensorType)
    block = integer()

    def infer(self) -> Sequence[Attribute]:
        (n, h, w, c), block = rank4(self, self.ifm), self.parameters().block
        if block < 1 or h % block or w % block:
            raise fail(self, f"blocks of {block} do not fit {h}x{w}")
        return [tensor((n, h // block, w // block, c * block**2), element_type(self.ifm))]


def rank4(op: Operation, value: SSAValue) -> tuple[int, int, int, int]:
    """The shape of a `[N, H, W, C]` tensor."""
    shape = shape_of(value)
    if len(shape) != 4:
        raise fail(op, f"needs [N, H, W, C], but has {list(shape)}")
    return shape  # pyright: ignore[reportReturnType]


# --- linear algebra --------------------------------------------------------------------------------------
@irdl_op_definition
class MatmulOp(GraphOp):
    """Matrix product with broadcast batch axes. a […, M, K], b […, K, N], bias [N] -> […, M, N]."""

    name = "graph.matmul"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)

    def infer(self) -> Sequence[Attribute]:
        a, b = shape_of(self.a), shape_of(self.b)
        if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
            raise fail(self, f"{list(a)} and {list(b)} do not multiply")
        check_bias(self, self.bias, b[-1])
        batch = broadcast_shape(self, a[:-2], b[:-2])
        return [tensor((*batch, a[-2], b[-1]), element_type(self.a))]


# --- elementwise -----------------------------------------------------------------------------------------
class BinaryOp(GraphOp):
    """An elementwise function of two tensors with numpy's broadcasting."""

    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    def infer(self) -> Sequence[Attribute]:
        if element_type(self.a) != element_type(self.b):
            raise fail(self, f"element types differ: {element_type(self.a)}, {element_type(self.b)}")
        return [tensor(broadcast_shape(self, shape_of(self.a), shape_of(self.b)), element_type(self.a))]


@irdl_op_definition
class AddOp(BinaryOp):
    """a + b."""

    name = "graph.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """a − b."""

    name = "graph.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """a · b."""

    name = "graph.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """a / b; integers truncate towards zero."""

    name = "graph.div"


@irdl_op_definition
class MinOp(BinaryOp):
    """The smaller one."""

    name = "graph.min"


@irdl_op_definition
class MaxOp(BinaryOp):
    """The larger one."""

    name = "graph.max"


@irdl_op_definition
class PowOp(BinaryOp):
    """a to the power of b."""

    name = "graph.pow"


@irdl_op_definition
class FmodOp(BinaryOp):
    """a − b · n with the whole number n that leaves a's sign and less than |b|: exact, as C's fmod and %.

    By 0 it is NaN, of integers 0.
    """

    name = "graph.fmod"


BITWISE = ("and", "or", "xor", "left", "right")


@irdl_op_definition
class BitwiseOp(BinaryOp):
    """An operation on the bits of integers: and, or, xor, or a shift of a by b bits, left or right.

    Shifts to the right copy the sign of signed integers; by as many bits as there are, or more, nothing else is left.
    """

    name = "graph.bitwise"
    operation = string()

    def infer(self) -> Sequence[Attribute]:
        if self.parameters().operation not in BITWISE:
            raise fail(self, f"the operation is one of {', '.join(BITWISE)}")
        if not isinstance(storage_of(element_type(self.a)), IntegerType):
            raise fail(self, f"integers are expected, not {element_type(self.a)}")
        return super().infer()


@irdl_op_definition
class PreluOp(BinaryOp):
    """a where a ≥ 0, a · b elsewhere (b: the slope)."""

    name = "graph.prelu"


PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")


@irdl_op_definition
class CompareOp(GraphOp):
    """An elementwise comparison with numpy's broadcasting; `predicate` is one of eq ne lt le gt ge."""

    name = "graph.compare"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)
    predicate = string()

    def infer(self) -> Sequence[Attribute]:
        if self.parameters().predicate not in PREDICATES:
            raise fail(self, f"the predicate is one of {', '.join(PREDICATES)}")
        return [tensor(broadcast_shape(self, shape_of(self.a), shape_of(self.b)), i1)]


@irdl_op_definition
class SelectOp(GraphOp):
    """a where the condition holds, b elsewhere, with numpy's broadcasting."""

    name = "graph.select"
    condition = operand_def(TensorType)
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    def infer(self) -> Sequence[Attribute]:
        if element_type(self.condition) != i1 or element_type(self.a) != element_type(self.b):
            raise fail(self, "needs an i1 condition and two tensors of one element type")
        shapes = (shape_of(self.condition), shape_of(self.a), shape_of(self.b))
        return [tensor(broadcast_shape(self, *shapes), element_type(self.a))]


class UnaryOp(GraphOp):
    """An elementwise function of one tensor."""

    input = operand_def(TensorType)
    result = result_def(TensorType)

    def infer(self) -> Sequence[Attribute]:
        return [self.input.type]


@irdl_op_definition
class NegOp(UnaryOp):
    """−x."""

    name = "graph.neg"


@irdl_op_definition
class AbsOp(UnaryOp):
    """|x|."""

    name = "graph.abs"


@irdl_op_definition
class ExpOp(UnaryOp):
    """e^x."""

    name = "graph.exp"


@irdl_op_definition
class LogOp(UnaryOp):
    """Natural logarithm."""

    name = "graph.log"


@irdl_op_definition
class SqrtOp(UnaryOp):
    """Square root."""

    name = "graph.sqrt"


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """1 / √x."""

    name = "graph.rsqrt"


@irdl_op_definition
class ErfOp(UnaryOp):
    """Gauss's error function."""

    name = "graph.erf"


@irdl_op_definition
class FloorOp(UnaryOp):
    """The next integer below."""

    name = "graph.floor"


@irdl_op_definition
class CeilOp(UnaryOp):
    """The next integer above."""

    name = "graph.ceil"


@irdl_op_definition
class RoundOp(UnaryOp):
    """The nearest integer, ties to even."""

    name = "graph.round"


@irdl_op_definition
class SinOp(UnaryOp):
    """Sine."""

    name = "graph.sin"


@irdl_op_definition
class CosOp(UnaryOp):
    """Cosine."""

    name = "graph.cos"


@irdl_op_definition
class AtanOp(UnaryOp):
    """Arc tangent, in (−π/2, π/2)."""

    name = "graph.atan"


@irdl_op_definition
class ReluOp(UnaryOp):
    """max(x, 0)."""

    name = "graph.relu"


@irdl_op_definition
class ClampOp(UnaryOp):
    """min(max(x, low), high)."""

    name = "graph.clamp"
    low = number(-math.inf)
    high = number(math.inf)


@irdl_op_definition
class LeakyReluOp(UnaryOp):
    """x where x ≥ 0, alpha · x elsewhere."""

    name = "graph.leaky_relu"
    alpha = number(0.01)


@irdl_op_definition
class EluOp(UnaryOp):
    """x where x ≥ 0, alpha · (e^x − 1) elsewhere."""

    name = "graph.elu"
    alpha = number(1.0)


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """1 / (1 + e^−x)."""

    name = "graph.sigmoid"


@irdl_op_definition
class HardSigmoidOp(UnaryOp):
    """max(0, min(1, alpha · x + beta))."""

    name = "graph.hard_sigmoid"
    alpha = number(0.2)
    beta = number(0.5)


@irdl_op_definition
class TanhOp(UnaryOp):
    """Hyperbolic tangent."""

    name = "graph.tanh"


@irdl_op_definition
class GeluOp(UnaryOp):
    """x / 2 · (1 + erf(x / √2)), or its tanh approximation (https://onnx.ai/onnx/operators/onnx__Gelu.html)."""

    name = "graph.gelu"
    approximate = flag(False)


@irdl_op_definition
class HardSwishOp(UnaryOp):
    """x · max(0, min(1, x / 6 + 1/2))."""

    name = "graph.hard_swish"


@irdl_op_definition
class CastOp(GraphOp):
    """A change of element type, as numpy's astype; to i1: whether it is not zero."""

    name = "graph.cast"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    to = prop_def(Attribute)

    def infer(self) -> Sequence[Attribute]:
        return [tensor(shape_of(self.input), self.to)]


# --- along axes ------------------------------------------------------------------------------------------
@irdl_op_definition
class SoftmaxOp(GraphOp):
    """e^(x − max) / Σ e^(x − max) along one axis."""

    name = "graph.softmax"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()

    def infer(self) -> Sequence[Attribute]:
        axis_of(self, self.parameters().axis, len(shape_of(self.input)))
        return [self.input.type]


class ReduceOp(GraphOp):
    """A reduction over `axes`; they stay with size 1 when `keepdims`."""

    input = operand_def(TensorType)
    result = result_def(TensorType)
    axes = ints()
    keepdims = flag(True)

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        axes = {axis_of(self, a, len(shape)) for a in p.axes}
        return [tensor(reduced_shape(shape, axes, p.keepdims), element_type(self.input))]


def reduced_shape(shape: Sequence[int], axes: set[int], keepdims: bool) -> tuple[int, ...]:
    """A shape after a reduction over some axes."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes)


@irdl_op_definition
class ReduceSumOp(ReduceOp):
    """Sum."""

    name = "graph.reduce_sum"


@irdl_op_definition
class ReduceProdOp(ReduceOp):
    """Product."""

    name = "graph.reduce_prod"


@irdl_op_definition
class ReduceMeanOp(ReduceOp):
    """Mean."""

    name = "graph.reduce_mean"


@irdl_op_definition
class ReduceMaxOp(ReduceOp):
    """Maximum."""

    name = "graph.reduce_max"


@irdl_op_definition
class ReduceMinOp(ReduceOp):
    """Minimum."""

    name = "graph.reduce_min"


@irdl_op_definition
class ArgmaxOp(GraphOp):
    """Index of the largest value along an axis (i64), the first one of several, or the last with
    `select_last`.
    """

    name = "graph.argmax"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()
    keepdims = flag(True)
    select_last = flag(False)

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        return [tensor(reduced_shape(shape, {axis_of(self, p.axis, len(shape))}, p.keepdims), i64)]


@irdl_op_definition
class BatchNormOp(GraphOp):
    """(x − mean) / √(variance + epsilon) · scale + bias, each `[C]`, C being the size of `axis`."""

    name = "graph.batch_norm"
    input = operand_def(TensorType)
    scale = operand_def(TensorType)
    bias = operand_def(TensorType)
    mean = operand_def(TensorType)
    variance = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()
    epsilon = number(1e-5)

    def infer(self) -> Sequence[Attribute]:
        shape = shape_of(self.input)
        channels = shape[axis_of(self, self.parameters().axis, len(shape))]
        for operand in list(self.operands)[1:]:
            check_bias(self, operand, channels)
        return [self.input.type]


@irdl_op_definition
class LayerNormOp(GraphOp):
    """(x − mean) / √(variance + epsilon) · scale + bias over the axes from `axis` on.

    scale and bias broadcast to the input. https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
    """

    name = "graph.layer_norm"
    input = operand_def(TensorType)
    scale = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()
    epsilon = number(1e-5)

    def infer(self) -> Sequence[Attribute]:
        shape = shape_of(self.input)
        axis_of(self, self.parameters().axis, len(shape))
        for operand in list(self.operands)[1:]:
            if broadcast_shape(self, shape, shape_of(operand)) != shape:
                raise fail(self, f"{list(shape_of(operand))} does not broadcast to {list(shape)}")
        return [self.input.type]


# --- moving values ---------------------------------------------------------------------------------------
@irdl_op_definition
class ReshapeOp(GraphOp):
    """The same values in the same order in another shape."""

    name = "graph.reshape"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    shape = ints()

    def infer(self) -> Sequence[Attribute]:
        shape, old = self.parameters().shape, shape_of(self.input)
        if math.prod(shape) != math.prod(old) or any(d < 0 for d in shape):
            raise fail(self, f"{list(old)} does not reshape to {list(shape)}")
        return [tensor(shape, element_type(self.input))]


@irdl_op_definition
class TransposeOp(GraphOp):
    """Axis i of the result is axis permutation[i] of the input."""

    name = "graph.transpose"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    permutation = ints()

    def infer(self) -> Sequence[Attribute]:
        shape, permutation = shape_of(self.input), self.parameters().permutation
        if sorted(permutation) != list(range(len(shape))):
            raise fail(self, f"{list(permutation)} is no permutation of {len(shape)} axes")
        return [tensor([shape[i] for i in permutation], element_type(self.input))]


@irdl_op_definition
class BroadcastOp(GraphOp):
    """The input repeated along axes of size 1 (or missing in front) until it has the given shape."""

    name = "graph.broadcast"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    shape = ints()

    def infer(self) -> Sequence[Attribute]:
        shape = self.parameters().shape
        if broadcast_shape(self, shape_of(self.input), shape) != tuple(shape):
            raise fail(self, f"{list(shape_of(self.input))} does not broadcast to {list(shape)}")
        return [tensor(shape, element_type(self.input))]


@irdl_op_definition
class ConcatOp(GraphOp):
    """The inputs one after the other along an axis."""

    name = "graph.concat"
    inputs = var_operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer()

    def infer(self) -> Sequence[Attribute]:
        if not self.inputs:
            raise fail(self, "needs at least one input")
        shapes = [shape_of(v) for v in self.inputs]
        axis = axis_of(self, self.parameters().axis, len(shapes[0]))
        rest = {(*s[:axis], *s[axis + 1 :]) for s in shapes}
        elements = {element_type(v) for v in self.inputs}
        if len(rest) != 1 or len(elements) != 1 or len({len(s) for s in shapes}) != 1:
            raise fail(
                self, f"the inputs {', '.join(str(v.type) for v in self.inputs)} do not join along {axis}"
            )
        total = sum(s[axis] for s in shapes)
        return [tensor((*shapes[0][:axis], total, *shapes[0][axis + 1 :]), elements.pop())]


@irdl_op_definition
class SplitOp(GraphOp):
    """Consecutive parts along an axis, of the given sizes."""

    name = "graph.split"
    input = operand_def(TensorType)
    parts = var_result_def(TensorType)
    axis = integer()
    sizes = ints()

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        axis = axis_of(self, p.axis, len(shape))
        if sum(p.sizes) != shape[axis] or any(s < 0 for s in p.sizes):
            raise fail(self, f"the sizes {list(p.sizes)} do not add up to {shape[axis]}")
        element = element_type(self.input)
        return [tensor((*shape[:axis], size, *shape[axis + 1 :]), element) for size in p.sizes]


@irdl_op_definition
class SliceOp(GraphOp):
    """result[i…] = input[start + i · step …]; one entry an axis, steps may be negative."""

    name = "graph.slice"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    starts = ints()
    sizes = ints()
    steps = ints()

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        if not len(shape) == len(p.starts) == len(p.sizes) == len(p.steps):
            raise fail(self, f"starts, sizes and steps need {len(shape)} entries each")
        for d, start, size, step in zip(shape, p.starts, p.sizes, p.steps):
            last = start + (size - 1) * step
            if size < 0 or step == 0 or (size and not (0 <= start < d and 0 <= last < d)):
                raise fail(
                    self, f"{size} elements from {start} in steps of {step} do not lie in an axis of {d}"
                )
        return [tensor(p.sizes, element_type(self.input))]


PAD_MODES = ("constant", "reflect", "edge")


@irdl_op_definition
class PadOp(GraphOp):
    """Values around the input: `low` before and `high` after, an entry an axis. `value` is what is stored: of
    a quantised tensor, its integer. Modes as in ONNX: constant, reflect, edge."""

    name = "graph.pad"
    input = operand_def(TensorType)
    result = result_def(TensorType)
    low = ints()
    high = ints()
    mode = string("constant")
    value = number(0.0)

    def infer(self) -> Sequence[Attribute]:
        shape, p = shape_of(self.input), self.parameters()
        if not len(shape) == len(p.low) == len(p.high) or min((*p.low, *p.high, 0)) < 0:
            raise fail(self, f"low and high need {len(shape)} entries each, none below 0")
        if p.mode not in PAD_MODES:
            raise fail(self, f"the mode is one of {', '.join(PAD_MODES)}")
        if p.mode == "reflect" and any(
            max(lo, hi) >= d for d, lo, hi in zip(shape, p.low, p.high) if lo or hi
        ):
            raise fail(self, f"a reflection of {list(p.low)}, {list(p.high)} is longer than {list(shape)}")
        padded = [d + lo + hi for d, lo, hi in zip(shape, p.low, p.high)]
        return [tensor(padded, element_type(self.input))]


@irdl_op_definition
class GatherOp(GraphOp):
    """result[…, i…, …] = data[…, indices[i…], …] along one axis; a negative index counts from the end."""

    name = "graph.gather"
    data = operand_def(TensorType)
    indices = operand_def(TensorType)
    result = result_def(TensorType)
    axis = integer(0)

    def infer(self) -> Sequence[Attribute]:
        data, indices = shape_of(self.data), shape_of(self.indices)
        axis = axis_of(self, self.parameters().axis, len(data))
        if element_type(self.indices) not in (i32, i64):
            raise fail(self, f"the indices have to be i32 or i64, not {element_type(self.indices)}")
        return [tensor((*data[:axis], *indices, *data[axis + 1 :]), element_type(self.data))]


OPS: tuple[type[Operation], ...] = tuple(
    op for op in list(globals().values())
    if isinstance(op, type) and issubclass(op, GraphOp) and op.__dict__.get("name", "").startswith("graph.")
)  # fmt: skip

GRAPH = Dialect("graph", list(OPS), [])

__all__ = ["GRAPH", "OPS", "f32", "value_of", *(op.__name__ for op in OPS)]
