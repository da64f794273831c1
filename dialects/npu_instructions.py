"""The instruction set of the NPU, and the few ops of the npu dialect that are no instructions.

Feature maps are `[N, H, W, C]`, dense weights `[KH, KW, C, M]`, depthwise weights `[KH, KW, C, 1]`, matrices
`[…, M, K] · […, K, N]`. What each instruction computes is defined in runtime/execute.py, what it costs in
runtime/cost.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from .declarative import (
    Parameters,
    attribute_of,
    parse_operands,
    parse_parameter,
    parse_parameters,
    print_parameter,
    print_parameters,
    value_of,
)
from .nacre import SourceAttr, element_matches
from .npu import (
    INSTRUCTIONS,
    Arity,
    BufferType,
    Instruction,
    Queue,
    Region,
    RegionAttr,
    RegionsAttr,
    Space,
    TokenType,
    buffer,
    buffer_type,
    dense_strides,
    field,
    instruction,
    itemsize,
    reads,
    writes,
)
from .rounding import Rounding


class PoolKind(IntEnum):
    """What a pooling window gives."""

    NONE = 0
    MAX = 1
    AVERAGE = 2


class ResizeKind(IntEnum):
    """How a resize weighs its neighbours."""

    NEAREST = 0
    BILINEAR = 1


OPTIONAL, MANY = Arity.OPTIONAL, Arity.MANY


# --- blocks of ports and fields that instructions share --------------------------------------------------
class _Window:
    stride_h = field("H", 1)
    stride_w = field("H", 1)
    pad_top = field("H", 0)
    pad_left = field("H", 0)
    pad_bottom = field("H", 0)
    pad_right = field("H", 0)
    dilation_h = field("H", 1)
    dilation_w = field("H", 1)


class _Requantise:
    bias = reads("i32 [M] (i64 for a 16-bit ifm), in units of ifm scale · weight scale", OPTIONAL)
    multiplier = reads(
        "i32 Q31 multipliers, [M] or [1]; absent: the ofm is the i32 (i64) accumulator", OPTIONAL
    )
    shift = reads("i32 exponents of the multipliers, positive to the left", OPTIONAL)
    acc = reads("i32 (i64) partial sums that the products are added to", OPTIONAL)
    table = reads("256 entries that map the requantised value, indexed by its bits", OPTIONAL)
    ofm_zero = field("i", 0)
    low = field("i", -128, "lower clamp, after the zero point")
    high = field("i", 127, "upper clamp, after the zero point")
    rounding = field("B", Rounding.DOUBLE, enum=Rounding)


class _Residual:
    residual = reads("a second feature map, added to the requantised (and mapped) one", OPTIONAL)
    residual_parameters = field(
        "list", (), "the twelve integers of npu.add, the convolution's result being its operand a"
    )


class _Pooled:
    pool = field("B", PoolKind.NONE, "pooling of the result before it is written", enum=PoolKind)
    pool_window = field("list", (), "kernel h, w, stride h, w, pads top, left, bottom, right")


# --- DMA -------------------------------------------------------------------------------------------------
@instruction(0x01, Queue.LOAD)
class LoadOp(Instruction):
    """Copy a strided array of up to four axes from DRAM to SRAM."""

    name = "npu.load"
    src = reads(space=Space.DRAM)
    dst = writes(space=Space.SRAM)

    def check(self) -> None:
        check_copy(self)


@instruction(0x02, Queue.STORE)
class StoreOp(Instruction):
    """Copy a strided array of up to four axes from SRAM to DRAM."""

    name = "npu.store"
    src = reads(space=Space.SRAM)
    dst = writes(space=Space.DRAM)

    def check(self) -> None:
        check_copy(self)


# --- NN engine -------------------------------------------------------------------------------------------
@instruction(0x10, Queue.NN)
class ConvOp(_Window, _Requantise, _Residual, _Pooled, Instruction):
    """Dense convolution of an integer feature map; padding counts as the ifm's zero point."""

    name = "npu.conv"
    ifm = reads()
    weight = reads("[KH, KW, C, M]")
    ofm = writes()
    ifm_zero = field("i", 0)
    weight_zero = field("i", 0)
    EPILOGUE = frozenset({"bias", "multiplier", "shift", "table", "residual"})

    def check(self) -> None:
        check_requantise(self)


@instruction(0x11, Queue.NN)
class DepthwiseOp(_Window, _Requantise, _Residual, _Pooled, Instruction):
    """Depthwise convolution: output channel c · M + m is input channel c with filter m."""

    name = "npu.depthwise"
    ifm = reads()
    weight = reads("[KH, KW, C, M]")
    ofm = writes()
    ifm_zero = field("i", 0)
    weight_zero = field("i", 0)
    EPILOGUE = frozenset({"bias", "multiplier", "shift", "table", "residual"})

    def check(self) -> None:
        check_requantise(self)


@instruction(0x12, Queue.NN)
class MatmulOp(_Requantise, Instruction):
    """Product of two integer matrices, batch axes in front; b may be an activation."""

    name = "npu.matmul"
    ifm = reads("[…, M, K]")
    weight = reads("[…, K, N]")
    ofm = writes("[…, M, N]")
    ifm_zero = field("i", 0)
    weight_zero = field("i", 0)
    EPILOGUE = frozenset({"bias", "multiplier", "shift", "table"})

    def check(self) -> None:
        check_requantise(self)


# --- fabric ----------------------------------------------------------------------------------------------
@instruction(0x20, Queue.FABRIC)
class CopyOp(Instruction):
    """Copy on chip between strided arrays of one shape."""

    name = "npu.copy"
    src = reads()
    dst = writes()

    def check(self) -> None:
        check_copy(self)


@instruction(0x21, Queue.FABRIC)
class TransposeOp(Instruction):
    """Axis i of dst is axis permutation[i] of src."""

    name = "npu.transpose"
    src = reads()
    dst = writes()
    permutation = field("list", ())


@instruction(0x22, Queue.FABRIC)
class FillOp(Instruction):
    """Write one value everywhere."""

    name = "npu.fill"
    dst = writes()
    value = field("i", 0)


@instruction(0x23, Queue.FABRIC)
class PadOp(Instruction):
    """src with `value` around it: `low` before and an own count after, an entry an axis."""

    name = "npu.pad"
    src = reads()
    dst = writes()
    low = field("list", ())
    value = field("i", 0)


@instruction(0x24, Queue.FABRIC)
class PoolOp(_Window, Instruction):
    """Max or average pooling; the average is over the values inside, rounded half away from zero.

    Max goes on from `acc`, for windows that do not fit on chip; averages of such come from npu.pool_sum.
    """

    name = "npu.pool"
    ifm = reads()
    acc = reads("largest values so far", OPTIONAL)
    ofm = writes()
    kind = field("B", PoolKind.MAX, enum=PoolKind)
    kernel_h = field("H", 1)
    kernel_w = field("H", 1)
    low = field("i", -128)
    high = field("i", 127)


@instruction(0x25, Queue.FABRIC)
class PoolSumOp(_Window, Instruction):
    """Sums of a pooling window's values, for windows that do not fit on chip."""

    name = "npu.pool_sum"
    ifm = reads()
    acc = reads("i32 sums so far", OPTIONAL)
    ofm = writes("i32")
    kernel_h = field("H", 1)
    kernel_w = field("H", 1)


@instruction(0x26, Queue.FABRIC)
class AverageOp(Instruction):
    """acc / count, rounded half away from zero and clamped."""

    name = "npu.average"
    acc = reads("i32")
    ofm = writes()
    count = field("i", 1)
    low = field("i", -128)
    high = field("i", 127)


@instruction(0x27, Queue.FABRIC)
class AddOp(Instruction):
    """Rescaled addition, TFLite's ADD (or SUB); `parameters` as AddParameters in runtime/kernels lists
    them.
    """

    name = "npu.add"
    a = reads()
    b = reads()
    ofm = writes()
    parameters = field("list", ())
    subtract = field("B", 0)


@instruction(0x28, Queue.FABRIC)
class MulOp(Instruction):
    """(a − zero) · (b − zero), requantised."""

    name = "npu.mul"
    a = reads()
    b = reads()
    ofm = writes()
    a_zero = field("i", 0)
    b_zero = field("i", 0)
    ofm_zero = field("i", 0)
    multiplier = field("i", 0)
    shift = field("i", 0)
    low = field("i", -128)
    high = field("i", 127)
    rounding = field("B", Rounding.DOUBLE, enum=Rounding)


@instruction(0x29, Queue.FABRIC)
class RequantiseOp(Instruction):
    """A change of scale and zero point, or of integer type."""

    name = "npu.requantise"
    src = reads()
    dst = writes()
    multiplier = field("i", 0)
    shift = field("i", 0)
    src_zero = field("i", 0)
    dst_zero = field("i", 0)


@instruction(0x2A, Queue.FABRIC)
class TableOp(Instruction):
    """dst = table[bits of src]; 16-bit values lie between two of 513 samples, and are interpolated."""

    name = "npu.table"
    src = reads()
    table = reads("256 entries; 513 for 16 bits")
    dst = writes()


@instruction(0x2B, Queue.FABRIC)
class ClampOp(Instruction):
    """min(max(src, low), high)."""

    name = "npu.clamp"
    src = reads()
    dst = writes()
    low = field("i", -128)
    high = field("i", 127)


@instruction(0x2C, Queue.FABRIC)
class ExtremumOp(Instruction):
    """The smaller (or larger) of two feature maps of one quantisation."""

    name = "npu.extremum"
    a = reads()
    b = reads()
    ofm = writes()
    larger = field("B", 0)


@instruction(0x2D, Queue.FABRIC)
class ResizeOp(Instruction):
    """Resampling by index tables, an entry an output row or column: neighbours and a weight of 10 bits.

    `rows` and `cols` are i32 [n, 3]: lower index, upper index, weight of the upper one in 1/1024; indices
    count from row_offset and col_offset.
    """

    name = "npu.resize"
    ifm = reads()
    rows = reads("i32 [OH, 3]")
    cols = reads("i32 [OW, 3]")
    ofm = writes()
    kind = field("B", ResizeKind.NEAREST, enum=ResizeKind)
    row_offset = field("i", 0)
    col_offset = field("i", 0)


# --- programmable engine ---------------------------------------------------------------------------------
@instruction(0x30, Queue.PPU)
class QuantiseOp(Instruction):
    """q = clamp(round(x / scale) + zero), half away from zero."""

    name = "npu.quantise"
    src = reads("f32")
    dst = writes()
    scale = field("f", 1.0)
    zero = field("i", 0)


@instruction(0x31, Queue.PPU)
class DequantiseOp(Instruction):
    """x = scale · (q − zero)."""

    name = "npu.dequantise"
    src = reads()
    dst = writes("f32")
    scale = field("f", 1.0)
    zero = field("i", 0)


@instruction(0x33, Queue.PPU)
class ConvertOp(Instruction):
    """dst = src as another floating-point type, rounded to the nearest."""

    name = "npu.convert"
    src = reads("f16, f32 or f64")
    dst = writes("f16, f32 or f64")


@instruction(0x32, Queue.PPU)
class LaunchOp(Instruction):
    """Run a kernel on buffers, for every work item of a grid.

    Its pointers are the inputs, the partial results (if it takes any), the outputs; its numbers the scalars. `kernel`
    names an npu.kernel in buffer form, whose parameters tiling asks for, and the ppu.func itself in address form.
    """

    name = "npu.launch"
    inputs = reads(arity=MANY)
    acc = reads("partial results that this launch goes on from", OPTIONAL)
    outputs = writes(arity=MANY)
    kernel = field("symbol")
    scalars = field("list", ())
    grid = field("list", (1,), "work items along one to three dimensions, the fastest first")


def check_copy(op: Instruction) -> None:
    """A copy has one shape and one element type on both sides."""
    if op.address_form:
        (src,), (dst,) = op.regions_at("src"), op.regions_at("dst")
        same = (src.shape, src.element) == (dst.shape, dst.element)
    else:
        src_, dst_ = buffer_type(op.buffers("src")[0]), buffer_type(op.buffers("dst")[0])
        same = src_[:2] == dst_[:2]
    if not same:
        raise VerifyException(f"{op.name}: source and destination differ in shape or element type")


def check_requantise(op: Instruction) -> None:
    """Multiplier and shift come together."""
    found = [bool(op.buffers(p)) or bool(op.regions_at(p)) for p in ("multiplier", "shift")]
    if found[0] != found[1]:
        raise VerifyException(f"{op.name}: multiplier and shift come together")


# --- buffer form: where buffers come from ----------------------------------------------------------------
class AllocEffect(MemoryEffect):
    """An allocation without a use may go."""

    @classmethod
    def get_effects(cls, op: object) -> set[EffectInstance]:
        return {EffectInstance(MemoryEffectKind.ALLOC, op.results[0])}  # type: ignore[attr-defined]


@irdl_op_definition
class AllocOp(IRDLOperation):
    """A buffer, its address still open."""

    name = "npu.alloc"
    result = result_def(BufferType)
    traits = traits_def(AllocEffect())
    assembly_format = "attr-dict `:` type($result)"


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A buffer in DRAM that holds a constant and is never written."""

    name = "npu.constant"
    value = prop_def(Attribute)
    result = result_def(BufferType)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        if buffer_type(self.result).space is not Space.DRAM:
            raise VerifyException("npu.constant: a constant lies in dram")
        if not element_matches(self.value, buffer_type(self.result).element):
            raise VerifyException("npu.constant: the value's elements are not those of the buffer")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        print_parameter(printer, self.value)
        print_parameters(printer, self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> ConstantOp:
        value = parse_parameter(parser)
        attributes = parse_parameters(parser)
        parser.parse_punctuation(":")
        op = cls.create(properties={"value": value}, result_types=[parser.parse_type()])
        op.attributes |= attributes
        return op


@irdl_op_definition
class ViewOp(IRDLOperation):
    """A box of a buffer: element i… of the view is element offset + i · step … of the source. Moves
    nothing.
    """

    name = "npu.view"
    source = operand_def(BufferType)
    offsets = prop_def(DenseArrayBase)
    steps = prop_def(DenseArrayBase)
    result = result_def(BufferType)
    traits = traits_def(Pure())

    @staticmethod
    def of(
        source: SSAValue,
        offsets: tuple[int, ...],
        sizes: tuple[int, ...],
        steps: tuple[int, ...] | None = None,
    ) -> ViewOp:
        """A view of `sizes` elements from `offsets`."""
        whole = buffer_type(source)
        steps = steps or (1,) * len(sizes)
        return ViewOp.create(
            operands=[source],
            properties={"offsets": attribute_of(offsets), "steps": attribute_of(steps)},
            result_types=[buffer(sizes, whole.element, whole.space)],
        )

    def verify_(self) -> None:
        whole, part = buffer_type(self.source), buffer_type(self.result)
        offsets, steps = value_of(self.offsets), value_of(self.steps)
        if not len(whole.shape) == len(part.shape) == len(offsets) == len(steps) or whole[1:] != part[1:]:
            raise VerifyException("npu.view: rank, element type and memory have to be the source's")
        for d, o, n, s in zip(whole.shape, offsets, part.shape, steps):
            if o < 0 or s < 1 or o + (n - 1) * s >= d + (n == 0):
                raise VerifyException(f"npu.view: {n} elements from {o} in steps of {s} leave an axis of {d}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.source)
        printer.print_string(f" [{', '.join(map(str, value_of(self.offsets)))}]")
        if any(s != 1 for s in value_of(self.steps)):
            printer.print_string(f" steps [{', '.join(map(str, value_of(self.steps)))}]")
        print_parameters(printer, self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    @classmethod
    def parse(cls, parser: Parser) -> ViewOp:
        (source,) = parse_operands(parser)
        offsets = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        steps = [1] * len(offsets)
        if parser.parse_optional_keyword("steps"):
            steps = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        attributes = parse_parameters(parser)
        parser.parse_punctuation(":")
        op = cls.create(
            operands=[source],
            properties={"offsets": attribute_of(tuple(offsets)), "steps": attribute_of(tuple(steps))},
            result_types=[parser.parse_type()],
        )
        op.attributes |= attributes
        return op


@irdl_op_definition
class ReshapeOp(IRDLOperation):
    """The same bytes in another shape; the source has to be dense. Moves nothing."""

    name = "npu.reshape"
    source = operand_def(BufferType)
    result = result_def(BufferType)
    traits = traits_def(Pure())
    assembly_format = "$source attr-dict `:` type($source) `to` type($result)"

    def verify_(self) -> None:
        source, result = buffer_type(self.source), buffer_type(self.result)
        if source[1:] != result[1:] or self.source.type.nbytes != self.result.type.nbytes:  # type: ignore[attr-defined]
            raise VerifyException("npu.reshape: size, element type and memory have to be the source's")
        if dense_layout(self.source) is None:
            raise VerifyException("npu.reshape: the source is a view that is not dense")


class Layout:
    """Where a view lies in its root buffer: byte offset and strides."""

    __slots__ = ("offset", "root", "strides")

    def __init__(self, root: SSAValue, offset: int, strides: tuple[int, ...]):
        self.root, self.offset, self.strides = root, offset, strides


def layout_of(value: SSAValue) -> Layout:
    """Root buffer, offset and strides of a buffer value, through views and reshapes."""
    owner = value.owner
    if isinstance(owner, ViewOp):
        inner = layout_of(owner.source)
        offset = inner.offset + sum(o * s for o, s in zip(value_of(owner.offsets), inner.strides))
        return Layout(inner.root, offset, tuple(s * t for s, t in zip(inner.strides, value_of(owner.steps))))
    type_ = buffer_type(value)
    dense = dense_strides(type_.shape, itemsize(type_.element))
    if isinstance(owner, ReshapeOp):
        inner = layout_of(owner.source)
        return Layout(inner.root, inner.offset, dense)
    return Layout(value, 0, dense)


def dense_layout(value: SSAValue) -> Layout | None:
    """The layout of a value whose elements lie row-major without gaps; None for others."""
    layout, type_ = layout_of(value), buffer_type(value)
    dense = dense_strides(type_.shape, itemsize(type_.element))
    fits = all(d == 1 or s == t for d, s, t in zip(type_.shape, layout.strides, dense))
    return layout if fits else None


# --- address form: what lies in memory before the first instruction ---------------------------------------
DATA_KINDS = ("input", "output", "constant", "state")


@irdl_op_definition
class DataOp(IRDLOperation):
    """Something in DRAM: an input or output that the host sees, a state of the module, or a constant.

    npu.data "input" input at dram[0] 1x8x8x1xf32
    npu.data "w" constant at dram[1024] 3x3x1x8xi8 = #nacre.blob<…>
    """

    name = "npu.data"
    label = prop_def(StringAttr)
    kind = prop_def(StringAttr)
    at = prop_def(RegionAttr)
    value = prop_def(Attribute)

    @staticmethod
    def of(label: str, kind: str, at: Region, value: Attribute | None = None) -> DataOp:
        """Data at a region; `value` for constants."""
        return DataOp.create(
            properties={
                "label": StringAttr(label), "kind": StringAttr(kind), "at": RegionAttr(at),
                "value": value if value is not None else StringAttr(""),
            }
        )  # fmt: skip

    def verify_(self) -> None:
        if self.kind.data not in DATA_KINDS:
            raise VerifyException(f"npu.data: the kind is one of {', '.join(DATA_KINDS)}")
        if (self.kind.data == "constant") == isinstance(self.value, StringAttr):
            raise VerifyException("npu.data: constants have a value, inputs and outputs have none, nor have states")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.label.data)
        printer.print_string(f" {self.kind.data} at {self.at.data}")
        if not isinstance(self.value, StringAttr):
            printer.print_string(" = ")
            print_parameter(printer, self.value)
        print_parameters(printer, self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> DataOp:
        label = parser.parse_str_literal()
        kind = parser.parse_identifier()
        parser.parse_keyword("at")
        region = RegionAttr.parse_body(parser)
        value = parse_parameter(parser) if parser.parse_optional_punctuation("=") else None
        op = cls.of(label, kind, region, value)
        op.attributes |= parse_parameters(parser)
        return op


@irdl_op_definition
class TensorOp(IRDLOperation):
    """A source tensor that the program holds right after an instruction: an entry of the debug map.

    Instructions are counted from 0; −1 is before the first one.

        npu.tensor dram[4096] 1x8x8x16xi8 after 17 #nacre.source<"relu1" [0, 2, 3, 1] * 0.02:3>
    """

    name = "npu.tensor"
    at = prop_def(RegionAttr)
    index = prop_def(IntegerAttr)
    source = prop_def(SourceAttr)

    @staticmethod
    def of(at: Region, index: int, source: SourceAttr) -> TensorOp:
        """An entry: where, after which instruction, what."""
        properties: dict[str, Attribute] = {
            "at": RegionAttr(at),
            "index": attribute_of(index),
            "source": source,
        }
        return TensorOp.create(properties=properties)

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.at.data} after {value_of(self.index)} ")
        printer.print_attribute(self.source)
        print_parameters(printer, self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> TensorOp:
        region = RegionAttr.parse_body(parser)
        parser.parse_keyword("after")
        index = parser.parse_integer()
        source = parser.parse_attribute()
        if not isinstance(source, SourceAttr):
            parser.raise_error("a tensor needs #nacre.source<…>")
        op = cls.of(region, index, source)
        op.attributes |= parse_parameters(parser)
        return op


# --- kernels of the programmable engine ------------------------------------------------------------------
@irdl_op_definition
class KernelOp(IRDLOperation):
    """What a launch computes: the operation, its parameters for the whole layer, and the function that does it.

        npu.kernel @softmax_3 "graph.softmax" {axis = 1} runs @softmax_f32
        npu.kernel @conv_4 "ppu.conv" {pads = [1, 1, 1, 1], strides = [1, 1], …} open ["pads"] runs @conv_f32

    Parameters named behind `open` differ from tile to tile.
    """

    name = "npu.kernel"
    sym_name = prop_def(SymbolNameConstraint())
    operation = prop_def(StringAttr)
    settings = prop_def(DictionaryAttr)
    open_names = prop_def(ArrayAttr[StringAttr])
    function = prop_def(SymbolNameConstraint())
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(SymbolOpInterface())

    @staticmethod
    def of(
        symbol: str, operation: str, settings: Parameters, open_: Sequence[str], function: str
    ) -> KernelOp:
        """A kernel for an operation; `open_` names the parameters that tiles set for themselves."""
        return KernelOp.create(
            properties={
                "sym_name": StringAttr(symbol),
                "operation": StringAttr(operation),
                "settings": DictionaryAttr({n: _setting(v) for n, v in settings.items()}),
                "open_names": ArrayAttr([StringAttr(n) for n in open_]),
                "function": StringAttr(function),
            }
        )

    def open(self) -> list[str]:
        """Names of the parameters that differ from tile to tile."""
        return [n.data for n in self.open_names]

    def parameters(self) -> Parameters:
        """All parameters, the open ones as they are for the whole layer."""
        return Parameters({n: value_of(a) for n, a in self.settings.data.items()})

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" ")
        printer.print_string_literal(self.operation.data)
        print_parameters(printer, self.settings.data)
        if self.open():
            printer.print_string(" open [" + ", ".join(f'"{n}"' for n in self.open()) + "]")
        printer.print_string(" runs ")
        printer.print_symbol_name(self.function.data)
        if self.attributes:
            printer.print_string(" attributes")
            print_parameters(printer, self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> KernelOp:
        symbol = parser.parse_symbol_name().data
        operation = parser.parse_str_literal()
        settings = Parameters({n: value_of(a) for n, a in parse_parameters(parser).items()})
        open_: list[str] = []
        if parser.parse_optional_keyword("open"):
            open_ = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_str_literal)
        parser.parse_keyword("runs")
        op = cls.of(symbol, operation, settings, open_, parser.parse_symbol_name().data)
        if parser.parse_optional_keyword("attributes"):
            op.attributes |= parse_parameters(parser)
        return op


def _setting(value: object) -> Attribute:
    from .declarative import floats_attribute

    if isinstance(value, tuple) and value and isinstance(value[0], float):
        return floats_attribute(value)
    return attribute_of(value)


NPU = Dialect(
    "npu",
    [*INSTRUCTIONS.values(), AllocOp, ConstantOp, ViewOp, ReshapeOp, DataOp, TensorOp, KernelOp],
    [TokenType, BufferType, RegionAttr, RegionsAttr],
)
