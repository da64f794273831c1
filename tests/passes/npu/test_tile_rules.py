"""No layer is too large: every operation on a machine with 8 KiB of SRAM, with the same bits at layer form,
at tile form and on the emulator, and those of the graph and qnn kernels (float sums of products within
tolerance).
"""

import itertools
import math
import random
import zlib
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacre.backends.npu import selections_rows
from nacre.backends.npu.kernels import function_of
from nacre.backends.npu.select import SelectPass, legal
from nacre.backends.npu.selections_moves import joined, runs_of
from nacre.dialects import graph, qnn
from nacre.dialects.declarative import Parameters
from nacre.dialects.nacre import store_of
from nacre.dialects.npu import Instruction, Space, buffer, itemsize
from nacre.dialects.npu_instructions import AllocOp, LaunchOp
from nacre.dialects.quant import quantised
from nacre.dialects.types import (
    dtype_of,
    element_of,
    element_type,
    i1,
    i8,
    i16,
    i32,
    i64,
    shape_of,
    tensor,
    u8,
)
from nacre.errors import CompileError, MachineError
from nacre.passes.manager import PassManager
from nacre.passes.npu import allocate
from nacre.passes.npu.allocate import AllocatePass, Ring, place_in_order, place_round
from nacre.passes.npu.lifetimes import Lifetime, address_of
from nacre.passes.npu.schedule import SchedulePass
from nacre.passes.npu.soft_kernels import SOFT_KERNELS, Build, Call, soft_kernel
from nacre.passes.npu.target import set_target
from nacre.passes.npu.tile import SLOT, TilePass, planned
from nacre.passes.npu.tiling import (
    RULES,
    NoFit,
    choose_cut,
    dma_bytes,
    halo,
    smallest_cut,
    tile_bytes,
)
from nacre.runtime.emulator import Emulator, legal_order
from nacre.runtime.interpreter import interpret
from nacre.runtime.link import link
from nacre.runtime.machine import load_machine
from nacre.runtime.npu_interpreter import interpret_npu
from nacre.runtime.ppu import launch
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

TINY = load_machine("tiny")
Q8, Q16 = quantised(i8, 0.05, 3), quantised(i16, 0.001)
QU8 = quantised(u8, 0.05, 120)


class Net:
    """A function written op by op, with an array for each of its inputs."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.block = Block()
        self.feeds: dict[str, np.ndarray] = {}
        self.function = FuncOp("main", FunctionType.from_lists([], []), Region(self.block))
        self.module = ModuleOp([self.function])

    def array(self, shape, element) -> np.ndarray:
        """Random values of an element type."""
        dtype = dtype_of(element)
        if np.issubdtype(dtype, np.floating):
            return (self.rng.standard_normal(shape) * 2).astype(dtype)
        if dtype == np.bool_:
            return self.rng.integers(0, 2, shape).astype(bool)
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return self.rng.integers(max(low, -1000), min(high, 1000) + 1, shape).astype(dtype)

    def input(self, *shape, element=None, array=None):
        """An argument."""
        element = element or element_of(np.dtype(np.float32))
        value = self.block.insert_arg(tensor(shape, element), len(self.block.args))
        self.feeds[f"x{value.index}"] = self.array(shape, element) if array is None else array
        return value

    def constant(self, array, element=None):
        """A constant from an array."""
        return self.add(graph.ConstantOp.of(np.asarray(array), store_of(self.module), element=element))

    def floats(self, *shape):
        """A random float constant."""
        return self.constant(self.array(shape, element_of(np.dtype(np.float32))))

    def add(self, op):
        """Append an op; its first result."""
        self.block.add_op(op)
        return op.results[0]

    def put(self, cls, *operands, **parameters):
        """An op; its first result."""
        return self.add(cls.make(*operands, **parameters))

    def finish(self, *results) -> ModuleOp:
        """The verified module that returns values."""
        self.block.add_op(ReturnOp(*results))
        types = [a.type for a in self.block.args], [r.type for r in results]
        self.function.function_type = FunctionType.from_lists(*types)
        name = lambda n: DictionaryAttr({"nacre.name": StringAttr(n)})  # noqa: E731
        self.function.properties["arg_attrs"] = ArrayAttr([name(n) for n in self.feeds])
        self.function.properties["res_attrs"] = ArrayAttr([name(f"y{i}") for i in range(len(results))])
        self.module.verify()
        return self.module


CELL = {"cell_bits": 3, "cell_clip": 9000, "hidden_multiplier": 1 << 30, "hidden_shift": -21, "hidden_zero": 5}


def integer_gates(net, batch, gates, hidden):
    """The gates' two products and the cell state of an integer LSTM."""
    products = (net.input(batch, gates * hidden, element=element) for element in (Q16, i32))
    return *products, net.input(batch, hidden, element=quantised(i16, 2.0**-12))


def conv8(net, x, kernel, filters, groups=1, element=Q8, least=-128, **p):
    """A quantised convolution with random weights; strides, pads, dilations as given."""
    channels = shape_of(x)[3]
    weight = np.maximum(net.array((*kernel, channels // groups, filters), i8), np.int8(least))
    weight = net.constant(weight, quantised(i8, 0.01))
    bias = net.constant(net.array((filters,), i32))
    multiplier = net.constant(np.full(filters, 1500000000, np.int32))
    shift = net.constant(
        np.full(filters, -9 - (kernel[0] * kernel[1] * channels // groups).bit_length() // 2, np.int32)
    )
    values = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "ifm_zero": 3, "ofm_zero": 3} | p
    if element is Q16:
        values |= {"ifm_zero": 0, "ofm_zero": 0, "low": -32768, "high": 32767}
    return net.put(qnn.ConvOp, x, weight, multiplier, shift, bias, element=element, groups=groups, **values)


def matmul8(net, a, b, zero=3):
    n = shape_of(b)[-1]
    multiplier, shift = (
        net.constant(np.array([1500000000], np.int32)),
        net.constant(np.array([-12], np.int32)),
    )
    bias = net.constant(net.array((n,), i32))
    return net.put(qnn.MatmulOp, a, b, multiplier, shift, bias, element=Q8, a_zero=zero, ofm_zero=1)


def dense8(net, x, n):
    weight = net.constant(net.array((shape_of(x)[-1], n), i8), quantised(i8, 0.01))
    return matmul8(net, x, weight)


def conv(net, x, kernel, filters, groups=1, bias=True, cls=graph.ConvOp, **p):
    rank = len(kernel)
    weight = net.floats(*kernel, shape_of(x)[-1] // groups, filters)
    operands = [x, weight, *([net.floats(filters)] if bias else [])]
    values = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank} | p
    if cls is graph.ConvTransposeOp:
        values.setdefault("output_pads", (0,) * rank)
    return net.put(cls, *operands, groups=groups, **values)


def pool(cls, net, x, kernel, **p):
    rank = len(kernel)
    values = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank} | p
    if cls is qnn.AvgPoolOp:
        del values["dilations"]
        return net.put(cls, x, kernel=kernel, element=element_type(x), **values)
    return net.put(cls, x, kernel=kernel, **values)


def norm(net, *shape, axis, bias=True):
    x = net.input(*shape)
    vectors = [net.floats(*shape[axis:])] * (1 + bias)
    return net.put(graph.LayerNormOp, x, *vectors, axis=axis)


def batch_norm(net):
    vectors = [
        net.floats(37),
        net.floats(37),
        net.floats(37),
        net.constant(np.abs(net.array((37,), f32)) + 1),
    ]
    return net.put(graph.BatchNormOp, net.input(1, 37, 9, 11), *vectors, axis=1)


def resize8(net, shape, out, mode):
    x = net.input(*shape, element=Q8)
    tables = []
    for size, n in zip(shape[1:3], out):
        low = np.minimum(np.arange(n) * size // n, size - 1)
        weight = (np.arange(n) * 1024 * size // n) % 1024
        table = np.stack([low, np.minimum(low + 1, size - 1), weight], 1)
        tables.append(net.constant(table.astype(np.int32)))
    return net.put(qnn.ResizeOp, x, *tables, element=Q8, mode=mode)


def table8(net):
    table = net.constant(net.array((256,), i8), Q8)
    return net.put(qnn.TableOp, net.input(3, 5000, element=Q8), table, element=Q8)


def gather(net, shape, count, axis, known, element=None):
    indices = net.rng.integers(-shape[axis], shape[axis], count)
    operand = net.constant(indices) if known else net.input(*indices.shape, element=i64, array=indices)
    return net.put(graph.GatherOp, net.input(*shape, element=element), operand, axis=axis)


def elements(net, op, shape, count, axis, updates=False, **parameters):
    """Gathering or scattering; indices serve all of the last axis."""
    wanted = [count if i == axis else d for i, d in enumerate(shape)]
    indices = net.rng.integers(-shape[axis], shape[axis], (*wanted[:-1], wanted[-1] if axis == len(shape) - 1 else 1))
    operands = [net.input(*indices.shape, element=i64, array=indices), *([net.input(*wanted)] if updates else [])]
    return net.put(op, net.input(*shape), *operands, axis=axis, **parameters)


def topk(net, *shape, element=None, **parameters):
    op = graph.TopkOp.make(net.input(*shape, element=element), **parameters)
    net.add(op)
    return op.results[0]


def split(net):
    op = graph.SplitOp.make(net.input(3, 4000), axis=1, sizes=(1000, 3000))
    net.add(op)
    return op.results[1]


def concat(net, element=None):
    x, y = net.input(1, 40, 30, 5, element=element), net.input(1, 40, 30, 9, element=element)
    return net.put(graph.ConcatOp, x, y, x, axis=3)


def special(net, *shape):
    """Floats with NaN, infinities and both zeros."""
    array = net.array(shape, f32)
    array.reshape(-1)[:: max(array.size // 50, 1)] = np.nan
    array.reshape(-1)[1 :: max(array.size // 60, 1)] = -np.inf
    array.reshape(-1)[2::7], array.reshape(-1)[3::7] = 0.0, -0.0
    return net.input(*shape, array=array)


f32 = element_of(np.dtype(np.float32))
P, R = (
    (lambda c, *a, **k: lambda n: n.put(c, *(f(n) for f in a), **k)),
    (lambda *s, **k: lambda n: n.input(*s, **k)),
)
UNARY = [o for o in graph.OPS if issubclass(o, graph.UnaryOp)]
BINARY = [o for o in graph.OPS if issubclass(o, graph.BinaryOp) and o is not graph.BitwiseOp]

CASES = {
    # named in the issue
    "global average pool int8": lambda n: pool(qnn.AvgPoolOp, n, n.input(1, 40, 40, 24, element=Q8), (40, 40)),
    "global average pool": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 40, 40, 24), (40, 40)),
    "dense 2048 to 1000 int8": lambda n: dense8(n, n.input(1, 2048, element=Q8), 1000),
    "dense 2048 to 100": lambda n: n.put(graph.MatmulOp, n.input(1, 2048), n.floats(2048, 100), n.floats(100)),
    "softmax over 100000": P(graph.SoftmaxOp, R(1, 100_000), axis=1),
    "softmax over 100000 int8": lambda n: n.put(
        qnn.SoftmaxOp, n.input(1, 100_000, element=Q8), element=quantised(i8, 1 / 256, -128),
        multiplier=1717986944, left_shift=22, smallest_difference=-496,
    ),
    "transpose": P(graph.TransposeOp, R(1, 40, 30, 9), permutation=(0, 3, 1, 2)),
    "transpose int8": P(graph.TransposeOp, R(1, 40, 30, 19, element=Q8), permutation=(0, 3, 1, 2)),
    "concat": concat,
    "concat int8": lambda n: concat(n, Q8),
    "resize": P(graph.ResizeOp, R(1, 20, 30, 7), sizes=(33, 70), mode="linear"),
    "resize int8": lambda n: resize8(n, (1, 20, 30, 17), (33, 70), "linear"),
    # convolutions
    "conv": lambda n: conv(n, n.input(1, 20, 22, 9), (3, 3), 20, pads=(1, 1, 1, 1)),
    "conv strided dilated": lambda n: conv(n, n.input(2, 17, 19, 5), (3, 2), 11, strides=(2, 3), dilations=(2, 1), pads=(2, 0, 1, 1)),
    "conv of 3000 channels": lambda n: conv(n, n.input(1, 3, 3, 3000), (3, 3), 2, pads=(1, 1, 1, 1)),
    "conv window of 60x60": lambda n: conv(n, n.input(1, 61, 61, 3), (60, 60), 2),
    "conv pads beyond the window": lambda n: conv(n, n.input(1, 40, 40, 3), (3, 3), 4, pads=(5, 4, 3, 7)),
    "conv 1-D": lambda n: conv(n, n.input(1, 700, 9), (5,), 8, pads=(2, 2), bias=False),
    "conv grouped": lambda n: conv(n, n.input(1, 20, 22, 12), (3, 3), 16, groups=4, pads=(1, 1, 1, 1)),
    "conv depthwise": lambda n: conv(n, n.input(1, 20, 22, 40), (3, 3), 40, groups=40, pads=(1, 1, 1, 1)),
    "conv depthwise, 3 filters": lambda n: conv(n, n.input(1, 20, 22, 20), (3, 3), 60, groups=20, strides=(2, 2)),
    "conv int8": lambda n: conv8(n, n.input(1, 20, 22, 19, element=Q8), (3, 3), 20, pads=(1, 1, 1, 1)),
    "conv int8 of 3000 channels": lambda n: conv8(n, n.input(1, 3, 3, 3000, element=Q8), (3, 3), 3),
    "conv int8 window of 100x100": lambda n: conv8(n, n.input(1, 102, 102, 2, element=Q8), (100, 100), 2),
    "conv int8 pads beyond the window": lambda n: conv8(n, n.input(1, 40, 40, 8, element=Q8), (3, 3), 4, pads=(5, 4, 3, 7)),
    "conv int16": lambda n: conv8(n, n.input(1, 20, 22, 9, element=Q16), (3, 3), 20, element=Q16),
    "conv int16 of 3000 channels": lambda n: conv8(n, n.input(1, 3, 3, 3000, element=Q16), (3, 3), 3, element=Q16),
    "conv int16 beyond 32 bits": lambda n: conv8(
        n, n.input(1, 3, 3, 3000, element=Q16, array=np.full((1, 3, 3, 3000), 30_000, np.int16)), (3, 3), 3,
        element=Q16, least=90,
    ),
    "conv int8 grouped": lambda n: conv8(n, n.input(1, 20, 22, 32, element=Q8), (3, 3), 16, groups=4, strides=(2, 2)),
    "depthwise int8": lambda n: conv8(n, n.input(1, 20, 22, 40, element=Q8), (3, 3), 40, groups=40, pads=(1, 1, 1, 1)),
    "depthwise int8, 5 filters": lambda n: conv8(n, n.input(1, 20, 22, 40, element=Q8), (3, 3), 200, groups=40),
    "depthwise int8, 3000 filters": lambda n: conv8(n, n.input(1, 4, 4, 2, element=Q8), (3, 3), 6000, groups=2),
    "depthwise int8 window of 100x100": lambda n: conv8(n, n.input(1, 101, 101, 3, element=Q8), (100, 100), 3, groups=3),
    "conv transpose": lambda n: conv(n, n.input(1, 12, 13, 9), (3, 3), 10, cls=graph.ConvTransposeOp, strides=(2, 2), pads=(1, 1, 1, 1), output_pads=(1, 1)),
    "conv transpose sparse": lambda n: conv(n, n.input(1, 12, 13, 5), (2, 3), 6, cls=graph.ConvTransposeOp, strides=(3, 2), dilations=(2, 2), groups=1, pads=(0, 2, 1, 0)),
    "conv transpose grouped": lambda n: conv(n, n.input(1, 12, 13, 6), (3, 3), 6, cls=graph.ConvTransposeOp, groups=3),
    "conv transpose of 2500 channels": lambda n: conv(n, n.input(1, 2, 2, 2500), (2, 2), 2, cls=graph.ConvTransposeOp, strides=(2, 2)),
    "conv transpose 1-D": lambda n: conv(n, n.input(1, 300, 8), (4,), 9, cls=graph.ConvTransposeOp, strides=(2,)),
    # products
    "matmul": lambda n: n.put(graph.MatmulOp, n.input(4, 40, 30), n.input(4, 30, 50)),
    "matmul broadcast": lambda n: n.put(graph.MatmulOp, n.input(2, 1, 20, 30), n.input(3, 30, 20), n.floats(20)),
    "matmul over 100000": lambda n: n.put(graph.MatmulOp, n.input(1, 100_000), n.input(100_000, 1)),
    "matmul int8": lambda n: matmul8(n, n.input(3, 60, 50, element=Q8), n.input(3, 50, 70, element=Q8)),
    "matmul int8 over 100000": lambda n: dense8(n, n.input(2, 100_000, element=Q8), 2),
    "dense int8 tall": lambda n: dense8(n, n.input(3, 60, 50, element=Q8), 70),
    # windows
    "max pool": lambda n: pool(graph.MaxPoolOp, n, special(n, 1, 30, 31, 9), (3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    "max pool dilated": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 9), (3, 2), dilations=(2, 3)),
    "max pool 1-D": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 900, 9), (3,), strides=(2,), pads=(1, 1)),
    "max pool of 60x60": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 61, 61, 2), (60, 60)),
    "max pool int8": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 39, element=Q8), (3, 3), strides=(2, 2)),
    "max pool int8 dilated": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 39, element=Q8), (3, 3), dilations=(2, 2)),
    "max pool uint8 of 100x100": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 101, 100, 2, element=QU8), (100, 100)),
    "max pool pads beyond the window": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 9), (2, 2), pads=(3, 1, 3, 3)),
    "avg pool": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 30, 31, 9), (3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    "avg pool with pads, overhang": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 30, 31, 9), (3, 3), strides=(2, 2), pads=(1, 1, 2, 2), count_include_pad=True, overhang=(1, 1)),
    "avg pool 1-D": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 900, 9), (3,), strides=(2,), pads=(1, 1)),
    "avg pool of 60x60 in 64x64": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 64, 61, 2), (60, 60), pads=(3, 1, 0, 2)),
    "avg pool int8": lambda n: pool(qnn.AvgPoolOp, n, n.input(1, 30, 31, 39, element=Q8), (3, 3), pads=(1, 1, 1, 1)),
    "avg pool int8 of 100x100": lambda n: pool(qnn.AvgPoolOp, n, n.input(1, 101, 100, 2, element=Q8), (100, 100), pads=(1, 0, 0, 1)),
    "lrn": P(graph.LrnOp, R(1, 9, 10, 64), size=5, alpha=0.1),
    "lrn over 3000": P(graph.LrnOp, R(1, 1, 1, 3000), size=2500, alpha=0.1),
    "resize nearest": P(graph.ResizeOp, R(1, 20, 30, 7), sizes=(33, 21), mode="nearest", coordinates="asymmetric"),
    "resize cubic": P(graph.ResizeOp, R(1, 20, 30, 7), sizes=(13, 70), mode="cubic", exclude_outside=True),
    "resize 1-D": P(graph.ResizeOp, R(1, 300, 7), sizes=(731,), mode="linear", coordinates="align_corners"),
    "resize down": P(graph.ResizeOp, R(1, 90, 70, 3), sizes=(7, 9), mode="linear"),
    "resize nearest int8": P(graph.ResizeOp, R(1, 20, 30, 27, element=Q8), sizes=(33, 21)),
    "resize by table, nearest": lambda n: resize8(n, (1, 20, 30, 17), (50, 11), "nearest"),
    "depth to space": P(graph.DepthToSpaceOp, R(1, 9, 10, 36), block=3),
    "depth to space CRD int8": P(graph.DepthToSpaceOp, R(1, 19, 10, 72, element=Q8), block=3, order="CRD"),
    "space to depth": P(graph.SpaceToDepthOp, R(2, 20, 30, 4), block=2),
    # along axes
    "softmax": P(graph.SoftmaxOp, R(30, 11, 9), axis=1),
    "softmax int8": lambda n: n.put(
        qnn.SoftmaxOp, n.input(40, 333, element=Q8), element=quantised(i8, 1 / 256, -128),
        multiplier=1717986944, left_shift=22, smallest_difference=-496,
    ),
    "softmax over 5000 in the middle": P(graph.SoftmaxOp, R(2, 5000, 2), axis=1),
    "reduce sum": P(graph.ReduceSumOp, R(20, 11, 19), axes=(1,), keepdims=False),
    "reduce sum of all": P(graph.ReduceSumOp, R(3, 50, 60), axes=(0, 1, 2), keepdims=False),
    "reduce sum of two": P(graph.ReduceSumOp, R(40, 5, 61, 2), axes=(2, 0)),
    "reduce mean over a feature map": P(graph.ReduceMeanOp, R(1, 40, 41, 6), axes=(1, 2)),
    "reduce mean of i32": P(graph.ReduceMeanOp, R(4, 5000, element=i32), axes=(1,), keepdims=False),
    "reduce max": lambda n: n.put(graph.ReduceMaxOp, special(n, 3, 50, 60), axes=(0, 2)),
    "reduce min over 9000": lambda n: n.put(graph.ReduceMinOp, n.input(2, 9000), axes=(1,), keepdims=False),
    "argmax": lambda n: n.put(graph.ArgmaxOp, special(n, 40, 21, 8), axis=1, keepdims=False),
    "argmax over 9000": lambda n: n.put(graph.ArgmaxOp, special(n, 2, 9000), axis=1),
    "last argmax over 9000": lambda n: n.put(graph.ArgmaxOp, n.input(9000, 2, element=i8), axis=0, keepdims=False, select_last=True),
    "layer norm": lambda n: norm(n, 40, 3, 37, axis=1),
    "layer norm over 6000": lambda n: norm(n, 2, 60, 100, axis=1),
    "layer norm over 6000 without bias": lambda n: norm(n, 2, 6000, axis=1, bias=False),
    "batch norm": batch_norm,
    "lstm cell": lambda n: n.put(
        graph.LstmCellOp, n.input(3, 800), n.input(3, 800), n.input(3, 200), n.input(600), f="hard_sigmoid", g="relu",
        h="relu", alpha=(0.2, 0.5, 0.5), beta=(0.5, 0.5, 0.5), clip=2.0,
    ),
    "gru reset": lambda n: n.put(
        graph.GruResetOp, n.input(3, 900), n.input(3, 600), n.input(3, 300), f="hard_sigmoid", alpha=(0.2, 0.5),
        beta=(0.5, 0.5),
    ),
    "gru cell": lambda n: n.put(
        graph.GruCellOp, n.input(3, 900), n.input(3, 600), n.input(3, 300), n.input(3, 300), f="relu", g="relu",
        reset_after=True,
    ),
    "integer lstm cell": lambda n: n.put(
        qnn.LstmCellOp, *integer_gates(n, 3, 4, 250), n.input(1, 750, element=Q16), element=Q8, **CELL,
        peephole_multiplier=(1 << 30,) * 3, peephole_shift=(-16, -15, -14),
    ),
    "integer lstm cell with norms": lambda n: n.put(
        qnn.NormLstmCellOp, *integer_gates(n, 5, 3, 120), n.input(360, element=Q16), n.input(360, element=i32),
        element=Q8, **CELL, input_forget=True, norm_multiplier=(1 << 30,) * 3, norm_shift=(-3, -2, -1), guard=(1, 2, 3),
    ),
    # elementwise
    "broadcast operands": lambda n: n.put(graph.AddOp, n.input(7, 1, 33), n.input(20, 1)),
    "scalar operand": lambda n: n.put(graph.MulOp, n.input(7, 900), n.constant(np.float32(3))),
    "compare": P(graph.CompareOp, R(60, 100), R(100), predicate="lt"),
    "select": P(graph.SelectOp, R(50, 1, element=i1), R(50, 90), R(90)),
    "cast to i32": P(graph.CastOp, R(60, 100), to=i32),
    "cast to i1": P(graph.CastOp, R(60, 100, element=i32), to=i1),
    "add int8": lambda n: n.put(qnn.AddOp, n.input(1, 30, 31, 19, element=Q8), n.input(19, element=Q8), element=Q8, rescale=(3, 3, 3, 20, 1073741824, 0, 1073741824, 0, 1073741824, -18, -128, 127)),
    "mul int8": P(qnn.MulOp, R(1, 30, 31, 19, element=Q8), R(1, 1, 1, 19, element=Q8), element=Q8, multiplier=1073741824, shift=-5),
    "prelu int8": P(qnn.PreluOp, R(1, 30, 31, 19, element=Q8), R(19, element=Q8), element=Q8, rescale=(3, 3, 1073741824, 1, 1073741824, -4, 3)),
    "requantise int8": P(qnn.RequantiseOp, R(90, 191, element=Q8), element=Q8, multiplier=1073741824, shift=1),
    "clamp int8": P(qnn.ClampOp, R(90, 191, element=Q8), element=Q8, low=-3, high=50),
    "max int8": P(graph.MaxOp, R(90, 191, element=Q8), R(191, element=Q8)),
    "mean int8": P(qnn.MeanOp, R(3, 70, 9, 11, element=Q8), element=Q8, axes=(0, 3), keepdims=False, multiplier=1073741824, shift=1),
    "mean int8 over a feature map": P(qnn.MeanOp, R(1, 60, 61, 5, element=Q8), element=Q8, axes=(1, 2), multiplier=1073741824, shift=1),
    "sum int8": P(qnn.SumOp, R(50, 900, element=Q8), element=Q8, axes=(1,), multiplier=1073741824, shift=-6),
    "leaky relu int8": P(qnn.LeakyReluOp, R(90, 191, element=Q8), element=Q8, rescale=(3, 3, 1073741824, 1, 1073741824, -4, 3)),
    "resize uint8 in floats": P(qnn.ResizeFloatOp, R(1, 20, 30, 17, element=QU8), element=QU8, sizes=(33, 70), half_pixel=True),
    "logistic int16": P(qnn.LogisticOp, R(90, 191, element=Q16), element=quantised(i16, 1 / 32768), multiplier=25165, shift=11),
    "tanh int16": P(qnn.TanhOp, R(90, 191, element=Q16), element=quantised(i16, 1 / 32768), multiplier=25165, shift=11),
    "squared difference int8": P(qnn.SquaredDifferenceOp, R(1, 30, 31, 19, element=Q8), R(19, element=Q8), element=Q8, rescale=(3, 1073741824, 0, 3, 1073741824, 0, 3, 1073741824, -18, 7, -128, 127)),
    "l2 normalisation int8": P(qnn.L2NormalizeOp, R(300, 190, element=Q8), element=quantised(i8, 1 / 128), input_zero=3),
    "softmax int16": P(qnn.Softmax16Op, R(9, 900, element=Q16), element=quantised(i16, 1 / 32768), multiplier=1374389534, shift=3),
    "softmax over 10000 int16": P(qnn.Softmax16Op, R(2, 10000, element=Q16), element=quantised(i16, 1 / 32768), multiplier=1374389534, shift=3),
    "table": table8,
    # moves
    "transpose of rank 6": P(graph.TransposeOp, R(3, 4, 5, 6, 7, 2), permutation=(5, 2, 0, 4, 1, 3)),
    "transpose of a matrix": P(graph.TransposeOp, R(300, 70), permutation=(1, 0)),
    "broadcast": P(graph.BroadcastOp, R(9, 1, 40), shape=(3, 9, 11, 40)),
    "broadcast of a scalar": P(graph.BroadcastOp, R(), shape=(3000,)),
    "split": split,
    "slice": P(graph.SliceOp, R(90, 91), starts=(3, 1), sizes=(40, 80), steps=(2, 1)),
    "slice backwards": P(graph.SliceOp, R(90, 91), starts=(89, 1), sizes=(40, 30), steps=(-2, 3)),
    "slice backwards int8": P(graph.SliceOp, R(190, 91, element=Q8), starts=(189, 90), sizes=(190, 91), steps=(-1, -1)),
    "pad": P(graph.PadOp, R(1, 40, 41, 3), low=(0, 1, 2, 0), high=(0, 9, 3, 1)),
    "pad with a fraction": P(graph.PadOp, R(40, 91), low=(5, 2), high=(50, 3), value=0.25),
    "pad with -inf": P(graph.PadOp, R(3000), low=(5,), high=(3000,), value=-np.inf),
    "pad int8": P(graph.PadOp, R(1, 40, 41, 9, element=Q8), low=(0, 1, 2, 0), high=(0, 90, 3, 1), value=3.0),
    "pad by reflection": P(graph.PadOp, R(1, 40, 41, 3), low=(0, 20, 2, 0), high=(0, 39, 40, 1), mode="reflect"),
    "pad by edges int8": P(graph.PadOp, R(40, 91, element=Q8), low=(5, 200), high=(50, 3), mode="edge"),
    "pad of i1": P(graph.PadOp, R(90, 191, element=i1), low=(5, 2), high=(1, 3), value=1.0),
    "gather": lambda n: gather(n, (50, 60, 3), (7, 5), 1, known=False),
    "gather from 10000": lambda n: gather(n, (10_000, 3), 40, 0, known=False),
    "gather known from 10000": lambda n: gather(n, (10_000, 3), (4, 5), 0, known=True),
    "gather known": lambda n: gather(n, (50, 60, 3), 70, 1, known=True, element=Q8),
    "reshape": P(graph.ReshapeOp, R(50, 60), shape=(3000,)),
    "cumulative sum": P(graph.CumsumOp, R(40, 300, 7), axis=1, reverse=True),
    "cumulative sum over 9000": P(graph.CumsumOp, R(2, 9000, 3), axis=1, exclusive=True),
    "cumulative sum over 9000 from the end": P(graph.CumsumOp, R(9000), axis=0, reverse=True),
    "cumulative product": P(graph.CumprodOp, R(90, 91), axis=0, exclusive=True),
    "reduce_prod": P(graph.ReduceProdOp, R(3, 3000, 5), axes=(1,)),
    "top k": lambda n: topk(n, 30, 300, 7, axis=1, k=11),
    "top k int8": lambda n: topk(n, 40, 500, element=Q8, axis=1, k=500, largest=False),
    "gather elements": lambda n: elements(n, graph.GatherElementsOp, (6, 3000, 4), 70, 1),
    "gather elements of the last axis": lambda n: elements(n, graph.GatherElementsOp, (50, 90), 700, 1),
    "scatter elements": lambda n: elements(n, graph.ScatterElementsOp, (6, 3000, 4), 70, 1, updates=True),
    "scatter-add of many": lambda n: elements(
        n, graph.ScatterElementsOp, (50, 30), 3000, 0, updates=True, reduction="add"
    ),
    "grid sample": P(graph.GridSampleOp, R(2, 20, 30, 7), R(2, 17, 40, 2), mode="cubic", padding="reflection"),
    graph.BitwiseOp.name: P(graph.BitwiseOp, R(60, 51, element=i32), R(51, element=i32), operation="and"),
} | {
    op.name: P(op, R(60, 51)) for op in UNARY
} | {
    op.name: P(op, R(60, 51), R(51)) for op in BINARY
}  # fmt: skip

INEXACT = (
    "conv", "matmul", "dense",  # what a graph kernel leaves to BLAS
    "softmax", "lrn", "graph.exp", "graph.log", "graph.erf", "graph.sin", "graph.cos", "graph.atan", "graph.elu",
    "graph.sigmoid", "graph.tanh", "graph.gelu", "graph.pow",  # what the engine computes by its own polynomials
)  # fmt: skip


def bits(arrays):
    return {n: (a.shape, a.dtype, np.ascontiguousarray(a).tobytes()) for n, a in arrays.items()}


def at_every_level(module, feeds, target="tiny", orders=1):
    """The results at layer form; tile form, emulator (sanitized) and other legal orders have their bits."""
    set_target(module, target)
    machine = load_machine(target)
    PassManager([SelectPass()]).run(module)
    module.verify()
    layer = interpret_npu(module, feeds)
    expected = bits(layer)
    PassManager([TilePass()]).run(module)
    module.verify()
    assert bits(interpret_npu(module, feeds)) == expected
    PassManager([AllocatePass(), SchedulePass()]).run(module)
    module.verify()
    program = link(module, machine)
    emulator = Emulator(program, sanitize=True)
    assert bits(emulator.run(feeds)) == expected
    for seed in range(orders):
        order = legal_order(program.commands, np.random.default_rng(seed))
        assert bits(Emulator(program).run(feeds, order=order)) == expected
    return layer


def built(name):
    """A case as a module and its feeds."""
    net = Net(zlib.crc32(name.encode()))
    return net.finish(CASES[name](net)), net.feeds


def assert_as(want, got, exact):
    """Equal results, or close ones where the kernel above selection is another one."""
    for key, array in want.items():
        if exact or array.dtype != np.float32:
            np.testing.assert_array_equal(got[key], array)
        else:
            scale = np.abs(array[np.isfinite(array)]).max(initial=1)
            np.testing.assert_allclose(got[key], array, rtol=1e-4, atol=1e-5 * scale)


HEAVY = {
    "softmax over 100000", "softmax over 100000 int8", "softmax over 5000 in the middle", "scatter-add of many",
    "scatter elements", "cumulative sum", "cumulative sum over 9000", "matmul over 100000", "top k", "top k int8",
    "conv of 3000 channels", "conv transpose of 2500 channels", "lrn over 3000",
    "softmax over 10000 int16", "argmax over 9000", "l2 normalisation int8",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in CASES])
def test_any_size_compiles_and_has_the_same_bits(name):
    with np.errstate(all="ignore"):
        module, feeds = built(name)
        constants = [op.array().nbytes for op in module.walk() if isinstance(op, graph.ConstantOp)]
        want = interpret(module, feeds)
        got = at_every_level(module, feeds)
    arrays = (*want.values(), *feeds.values())
    assert sum(a.nbytes for a in arrays) + sum(constants) > TINY.sram_bytes
    assert_as(want, got, exact=not name.startswith(INEXACT))


# --- random shapes, and machines smaller still ------------------------------------------------------------
def small_machine(folder, sram_bytes):
    """The path of a machine like tiny with another SRAM."""
    text = (resources.files("nacre.runtime") / "machines" / "tiny.toml").read_text()
    path = folder / f"sram{sram_bytes}.toml"
    path.write_text(text.replace("sram_bytes = 8_192", f"sram_bytes = {sram_bytes}"))
    return str(path)


def random_window(net, r, kind):
    """A convolution or pool with random sizes, strides, pads and dilations."""
    kernel, strides = (r.randint(1, 6), r.randint(1, 6)), (r.randint(1, 3), r.randint(1, 3))
    dilations = (1, 1) if kind == "average int8" else (r.randint(1, 2), r.randint(1, 2))
    most = (k - 1 if kind == "average int8" else 4 for k in (*kernel, *kernel))
    p = {"strides": strides, "pads": tuple(r.randint(0, m) for m in most), "dilations": dilations}
    h, w = (r.randint(d * (k - 1) + 1, 18) for d, k in zip(dilations, kernel))
    c, filters = r.randint(1, 20), r.randint(1, 3)
    x = net.input(r.randint(1, 2), h, w, c, element=Q8 if "int8" in kind else None)
    match kind:
        case "conv":
            return conv(net, x, kernel, r.randint(1, 20), **p)
        case "conv int8":
            return conv8(net, x, kernel, r.randint(1, 20), **p)
        case "depthwise":
            return conv(net, x, kernel, c * filters, groups=c, **p)
        case "depthwise int8":
            return conv8(net, x, kernel, c * filters, groups=c, **p)
        case "transposed":
            p["pads"] = (0, 0, 0, 0)
            return conv(net, net.input(1, h // 3 + 1, w // 3 + 1, c), kernel, 5, cls=graph.ConvTransposeOp, **p)
        case "max" | "max int8":
            return pool(graph.MaxPoolOp, net, x, kernel, **p)
        case "average":
            return pool(graph.AvgPoolOp, net, x, kernel, count_include_pad=r.random() < 0.5, **p)
    return pool(qnn.AvgPoolOp, net, x, kernel, **p)


def random_axes(net, r, kind):
    """A reduction, move or resampling of a random shape."""
    shape = tuple(r.randint(1, 20) for _ in range(4))
    match kind:
        case "reduce":
            cls = r.choice((graph.ReduceSumOp, graph.ReduceMeanOp, graph.ReduceMaxOp, graph.ReduceMinOp))
            axes = tuple(r.sample(range(4), r.randint(1, 4)))
            return net.put(cls, net.input(*shape), axes=axes, keepdims=r.random() < 0.5)
        case "transpose":
            x = net.input(*shape, r.randint(1, 4), element=r.choice((Q8, f32)))
            return net.put(graph.TransposeOp, x, permutation=tuple(r.sample(range(5), 5)))
        case "resize":
            mode, place = r.choice(graph.RESIZE_MODES), r.choice(graph.COORDINATES)
            sizes = (r.randint(1, 40), r.randint(1, 40))
            return net.put(graph.ResizeOp, net.input(*shape), sizes=sizes, mode=mode, coordinates=place)
        case "pad":
            low, high = (tuple(r.randint(0, d - 1) for d in shape[:3]) for _ in range(2))
            return net.put(graph.PadOp, net.input(*shape[:3]), low=low, high=high, mode=r.choice(graph.PAD_MODES))
        case "softmax":
            return net.put(graph.SoftmaxOp, net.input(*shape), axis=r.randrange(4))
        case "argmax":
            return net.put(graph.ArgmaxOp, net.input(*shape, element=i8), axis=r.randrange(4))
        case "layer norm":
            return norm(net, *shape, axis=r.randrange(4))
    return gather(net, shape, (r.randint(1, 7), r.randint(1, 5)), r.randrange(4), known=r.random() < 0.5)


WINDOWS = (
    "conv", "conv int8", "depthwise", "depthwise int8", "transposed", "max", "max int8", "average",
    "average int8",
)  # fmt: skip
AXES = ("reduce", "transpose", "resize", "pad", "softmax", "argmax", "layer norm", "gather")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", (*WINDOWS, *AXES))
def test_random_shapes_on_smaller_machines(kind, seed, tmp_path):
    r = random.Random(f"{kind} {seed}")
    net = Net(seed)
    make = random_window if kind in WINDOWS else random_axes
    with np.errstate(all="ignore"):
        module = net.finish(make(net, r, kind))
        want = interpret(module, net.feeds)
        got = at_every_level(module, net.feeds, small_machine(tmp_path, r.choice((2048, 4096))))
    assert_as(want, got, exact=kind not in ("conv", "depthwise", "transposed", "softmax"))


# --- every operation, every form --------------------------------------------------------------------------
def test_every_operation_is_legal_and_has_a_case():
    seen = {type(op) for name in CASES for op in built(name)[0].walk()}
    operations = {*graph.OPS, *qnn.OPS}
    assert operations - seen == set()
    assert all(legal(op) is None for name in CASES for op in built(name)[0].walk() if type(op) in operations)


@pytest.mark.parametrize("op", [graph.MulOp, graph.SqrtOp])  # one with a selection of its own, one without
def test_an_operation_without_a_kernel_is_refused_by_layer(op):
    net = Net(0)
    inputs = [net.input(4) for _ in range(2 if issubclass(op, graph.BinaryOp) else 1)]
    module = net.finish(net.put(op, *inputs))
    for made in module.walk():
        if isinstance(made, op):
            made.location = NameLoc(StringAttr("odd"), NoneAttr())
    set_target(module, "tiny")
    kernel = SOFT_KERNELS.pop(op.name)
    try:
        with pytest.raises(CompileError, match=f"layer 'odd': no engine and no kernel .* {op.name}; Library.kernel"):
            PassManager([SelectPass()]).run(module)
    finally:
        SOFT_KERNELS[op.name] = kernel


ONE_OR_MANY = {
    "softmax": lambda n: n.put(graph.SoftmaxOp, n.input(3, 40, 5), axis=1),
    "softmax int8": lambda n: n.put(
        qnn.SoftmaxOp, n.input(9, 60, element=Q8), element=quantised(i8, 1 / 256, -128),
        multiplier=1717986944, left_shift=22, smallest_difference=-496,
    ),
    "layer norm": lambda n: norm(n, 5, 6, 7, axis=1),
    "layer norm without bias": lambda n: norm(n, 5, 42, axis=1, bias=False),
    "argmax": lambda n: n.put(graph.ArgmaxOp, special(n, 4, 30, 3), axis=1, keepdims=False),
    "last argmax": lambda n: n.put(graph.ArgmaxOp, n.input(4, 3000, element=i8), axis=1, select_last=True),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_OR_MANY)
def test_one_launch_and_a_launch_a_pass_give_the_same_bits(name, monkeypatch):
    results, kernels = [], []
    for fits in (True, False):
        monkeypatch.setattr(selections_rows, "rows_fit", lambda *_, fits=fits: fits)
        net = Net(7)
        module = net.finish(ONE_OR_MANY[name](net))
        set_target(module, "tiny")
        with np.errstate(all="ignore"):
            PassManager([SelectPass()]).run(module)
            results.append(bits(interpret_npu(module, net.feeds)))
        kernels.append(sum(isinstance(op, LaunchOp) for op in module.walk()))
    assert results[0] == results[1]
    assert kernels[0] == 1 < kernels[1]


def test_a_float_sum_has_the_order_of_its_indices():
    # 2^24 + 1 + 1 stays 2^24 in this order, and is 2^24 + 2 in others.
    a, b = np.array([[2.0**24, 1, 1, 1]], np.float32), np.ones((4, 1), np.float32)
    assert product(a, b) == 2.0**24
    part = np.full((1, 1), product(a[:, 1:], b[1:]), np.float32)
    assert product(a[:, :1], b[:1], part) == 2.0**24 + 4


def product(a, b, acc=None):
    """What the kernel of a matrix product gives, from the sum so far."""
    call = Call(Parameters({}), (a.shape, b.shape), ((1, 1),), acc is not None)
    scalars, grid = soft_kernel("ppu.matmul").arguments(call)
    y = np.zeros((1, 1), np.float32)
    function = function_of("ppu.matmul", Build(Parameters({}), (f32, f32), (f32,)), "product")
    a, b, acc = (np.ascontiguousarray(x) for x in (a, b, np.zeros(0, np.float32) if acc is None else acc))
    launch(function, [a, b, acc, y, *scalars], grid)
    return y[0, 0]


def test_windows_without_a_value_to_average_are_refused():
    net = Net(0)
    module = net.finish(pool(qnn.AvgPoolOp, net, net.input(1, 9, 9, 2, element=Q8), (2, 2), pads=(2, 0, 0, 0)))
    set_target(module, "tiny")
    with pytest.raises(CompileError, match="pads have to be smaller than the window"):
        PassManager([SelectPass()]).run(module)


# --- cuts -------------------------------------------------------------------------------------------------
LAYERS = {
    "stem": lambda n: conv8(n, n.input(1, 224, 224, 3, element=Q8), (3, 3), 32, strides=(2, 2), pads=(0, 0, 1, 1)),
    "depthwise": lambda n: conv8(n, n.input(1, 56, 56, 144, element=Q8), (3, 3), 144, groups=144, pads=(1, 1, 1, 1)),
    "pointwise": lambda n: conv8(n, n.input(1, 56, 56, 24, element=Q8), (1, 1), 144),
    "3x3": lambda n: conv8(n, n.input(1, 7, 7, 512, element=Q8), (3, 3), 512, pads=(1, 1, 1, 1)),
    "dense": lambda n: dense8(n, n.input(1, 2048, element=Q8), 1000),
    "transpose": P(graph.TransposeOp, R(1, 56, 56, 24, element=Q8), permutation=(0, 3, 1, 2)),
}  # fmt: skip


def selected(case, target):
    """The tilings of a case's layers."""
    net = Net(0)
    module = net.finish(case(net))
    set_target(module, target)
    PassManager([SelectPass()]).run(module)
    return [RULES[type(op)](op) for op in module.walk() if isinstance(op, Instruction)]


@pytest.mark.parametrize("name", LAYERS)
def test_cuts_of_common_layers_move_little_more_than_everything_once(name):
    machine = load_machine("v853")
    for tiling in selected(LAYERS[name], "v853"):
        loaded: dict = {}
        moved = 0
        for _, piece in planned(tiling.op, tiling, machine, machine.sram_bytes).work:
            for port, index, box in piece.boxes():
                if port == tiling.output or loaded.get((port, index)) != box:
                    moved += dma_bytes(tiling, port, index, box, machine.dram_burst)
                loaded[port, index] = box
        once = sum(math.prod(b.shape) * itemsize(b.element) for b in tiling.arrays.values())
        assert once <= moved < 1.3 * once


def test_what_fits_as_single_results_is_never_refused():
    (tiling,) = selected(LAYERS["3x3"], "tiny")
    need = tile_bytes(tiling, smallest_cut(tiling).sizes)
    assert tile_bytes(tiling, choose_cut(tiling, TINY, need).sizes) <= need
    with pytest.raises(NoFit, match=rf"smallest tile takes \d+ bytes of SRAM, {need - 1} are there"):
        choose_cut(tiling, TINY, need - 1)


@given(
    st.tuples(st.integers(0, 30), st.integers(1, 9)), st.integers(1, 4), st.integers(-4, 12),
    st.integers(1, 7), st.integers(1, 20),
)  # fmt: skip
def test_a_halo_and_its_padding_make_up_the_window(results, stride, pad, window, size):
    need = halo(results, stride, pad, window, size)
    (start, inside) = need.interval
    low = results[0] * stride - pad
    assert min(inside, need.before, need.after) >= 0 and 0 <= start <= start + inside <= size
    assert need.before + inside + need.after == (results[1] - 1) * stride + window
    wanted = range(low, low + (results[1] - 1) * stride + window)
    assert [i for i in wanted if 0 <= i < size] == list(range(start, start + inside))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_runs_give_their_indices_back(indices):
    runs = runs_of(np.array(indices))
    assert [first + i * step for first, count, step in runs for i in range(count)] == indices
    assert all(step > 0 for _, _, step in runs)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5).flatmap(
    lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))))  # fmt: skip
def test_joined_axes_transpose_alike(case):
    shape, permutation = case
    x = np.arange(math.prod(shape)).reshape(shape)
    sizes, order = joined(shape, permutation)
    np.testing.assert_array_equal(x.reshape(sizes).transpose(order).ravel(), x.transpose(permutation).ravel())


# --- places -----------------------------------------------------------------------------------------------
def lifetimes(*spans, slots=None):
    """Lifetimes of (bytes, first, last), each of a buffer of its own."""
    found = []
    for i, (size, first, last) in enumerate(spans):
        op = AllocOp.create(result_types=[buffer((size,), i8, Space.SRAM)])
        if slots:
            op.attributes[SLOT] = StringAttr(slots[i])
        found.append(Lifetime(op.result, size, first, last))
    return found


def assert_apart(lives, size):
    """No two buffers that live at once share a byte."""
    at = {x.buffer: address_of(x.buffer) for x in lives}
    assert all(at[x.buffer] + x.size <= size for x in lives)
    for x, y in itertools.combinations(lives, 2):
        if x.first <= y.last and y.first <= x.last:
            assert at[x.buffer] + x.size <= at[y.buffer] or at[y.buffer] + y.size <= at[x.buffer]


def test_free_bytes_in_small_pieces_are_placed_anew():
    lives = lifetimes((32, 0, 1), (32, 0, 3), (48, 2, 3))
    assert place_round(lives, Ring([(0, 96)])) is None
    assert place_in_order(lives, 96, []) == 80
    assert_apart(lives, 96)


def test_slots_are_a_place_when_nothing_else_is(monkeypatch):
    monkeypatch.setattr(allocate, "place_by_size", lambda lives, alignment: ({}, 97))
    lives = lifetimes((32, 0, 1), (32, 0, 3), (48, 2, 3), slots="aba")
    place_in_order(lives, 96, [])
    assert_apart(lives, 96)
    op = lives[0].buffer.owner
    with pytest.raises(MachineError, match="112 bytes of buffers live at once and find no places in 64"):
        place_in_order(lifetimes((32, 0, 1), (32, 0, 3), (48, 0, 3)), 64, [op])


def test_a_layer_that_fills_the_memory_has_slots():
    for elements, slots in ((1000, {0, 1}), (100, set())):
        net = Net(0)
        module = net.finish(net.put(graph.SoftmaxOp, net.input(5, elements), axis=1))
        set_target(module, "tiny")
        PassManager([SelectPass(), TilePass()]).run(module)
        found = {op.attributes[SLOT].value.data for op in module.walk() if SLOT in op.attributes}
        assert found == slots


def test_a_layer_that_fits_nowhere_is_named(tmp_path):
    net = Net(0)
    module = net.finish(net.put(graph.AddOp, net.input(5), net.input(5)))
    for op in module.walk():
        if isinstance(op, graph.AddOp):
            op.location = NameLoc(StringAttr("sum"), NoneAttr())
    set_target(module, small_machine(tmp_path, 32))
    with pytest.raises(MachineError, match="layer 'sum': the smallest tile takes 48 bytes of SRAM, 32 are there"):
        PassManager([SelectPass(), TilePass()]).run(module)
