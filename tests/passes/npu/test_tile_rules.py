"""No layer is too large: every operation on a machine with 8 KiB of SRAM, with the same bits at layer form, at
tile form and on the emulator, and those of the graph and qnn kernels (float sums of products within tolerance).
"""

import copy
import zlib

import numpy as np
import pytest
from nacre.backends.npu.select import SelectPass, legal
from nacre.dialects import graph, qnn
from nacre.dialects.nacre import store_of
from nacre.dialects.npu import Instruction
from nacre.dialects.quant import quantised
from nacre.dialects.types import dtype_of, element_of, element_type, i1, i8, i16, i32, i64, shape_of, tensor, u8
from nacre.passes.manager import PassManager
from nacre.passes.npu.allocate import AllocatePass
from nacre.passes.npu.schedule import SchedulePass
from nacre.passes.npu.target import set_target
from nacre.passes.npu.tile import TilePass
from nacre.runtime.emulator import Emulator, legal_order
from nacre.runtime.interpreter import argument_names, interpret, main_function
from nacre.runtime.link import link
from nacre.runtime.machine import load_machine
from nacre.runtime.npu_interpreter import interpret_npu
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, NameLoc, NoneAttr, StringAttr
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
        op.location = NameLoc(StringAttr(f"{op.name}_{len(self.block.ops)}"), NoneAttr()) if False else op.location
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


def conv8(net, x, kernel, filters, groups=1, element=Q8, **p):
    """A quantised convolution with random weights; strides, pads, dilations as given."""
    channels = shape_of(x)[3]
    weight = net.constant(net.array((*kernel, channels // groups, filters), i8), quantised(i8, 0.01))
    bias = net.constant(net.array((filters,), i32))
    multiplier = net.constant(np.full(filters, 1500000000, np.int32))
    shift = net.constant(np.full(filters, -9 - (kernel[0] * kernel[1] * channels // groups).bit_length() // 2, np.int32))
    values = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "ifm_zero": 3, "ofm_zero": 3} | p
    if element is Q16:
        values |= {"ifm_zero": 0, "ofm_zero": 0, "low": -32768, "high": 32767}
    return net.put(qnn.ConvOp, x, weight, multiplier, shift, bias, element=element, groups=groups, **values)


def matmul8(net, a, b, zero=3):
    n = shape_of(b)[-1]
    multiplier, shift = net.constant(np.array([1500000000], np.int32)), net.constant(np.array([-12], np.int32))
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
    vectors = [net.floats(37), net.floats(37), net.floats(37), net.constant(np.abs(net.array((37,), f32)) + 1)]
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
P, R = (lambda c, *a, **k: lambda n: n.put(c, *(f(n) for f in a), **k)), (lambda *s, **k: lambda n: n.input(*s, **k))
UNARY = [o for o in graph.OPS if issubclass(o, graph.UnaryOp)]
BINARY = [o for o in graph.OPS if issubclass(o, graph.BinaryOp)]

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
    "conv strided dilated": lambda n: conv(n, n.input(2, 17, 19, 5), (3, 2), 11, strides=(2, 3), dilations=(2, 1), pads=(2, 0, 1, 1)),  # noqa: E501
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
    "conv int8 pads beyond the window": lambda n: conv8(n, n.input(1, 40, 40, 8, element=Q8), (3, 3), 4, pads=(5, 4, 3, 7)),  # noqa: E501
    "conv int16": lambda n: conv8(n, n.input(1, 20, 22, 9, element=Q16), (3, 3), 20, element=Q16),
    "conv int16 of 3000 channels": lambda n: conv8(n, n.input(1, 3, 3, 3000, element=Q16), (3, 3), 3, element=Q16),
    "conv int8 grouped": lambda n: conv8(n, n.input(1, 20, 22, 32, element=Q8), (3, 3), 16, groups=4, strides=(2, 2)),
    "depthwise int8": lambda n: conv8(n, n.input(1, 20, 22, 40, element=Q8), (3, 3), 40, groups=40, pads=(1, 1, 1, 1)),  # noqa: E501
    "depthwise int8, 5 filters": lambda n: conv8(n, n.input(1, 20, 22, 40, element=Q8), (3, 3), 200, groups=40),
    "depthwise int8, 3000 filters": lambda n: conv8(n, n.input(1, 4, 4, 2, element=Q8), (3, 3), 6000, groups=2),
    "depthwise int8 window of 100x100": lambda n: conv8(n, n.input(1, 101, 101, 3, element=Q8), (100, 100), 3, groups=3),  # noqa: E501
    "conv transpose": lambda n: conv(n, n.input(1, 12, 13, 9), (3, 3), 10, cls=graph.ConvTransposeOp, strides=(2, 2), pads=(1, 1, 1, 1), output_pads=(1, 1)),  # noqa: E501
    "conv transpose sparse": lambda n: conv(n, n.input(1, 12, 13, 5), (2, 3), 6, cls=graph.ConvTransposeOp, strides=(3, 2), dilations=(2, 2), groups=1, pads=(0, 2, 1, 0)),  # noqa: E501
    "conv transpose grouped": lambda n: conv(n, n.input(1, 12, 13, 6), (3, 3), 6, cls=graph.ConvTransposeOp, groups=3),
    "conv transpose of 2500 channels": lambda n: conv(n, n.input(1, 2, 2, 2500), (2, 2), 2, cls=graph.ConvTransposeOp, strides=(2, 2)),  # noqa: E501
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
    "max pool int8 dilated": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 39, element=Q8), (3, 3), dilations=(2, 2)),  # noqa: E501
    "max pool uint8 of 100x100": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 101, 100, 2, element=QU8), (100, 100)),
    "max pool pads beyond the window": lambda n: pool(graph.MaxPoolOp, n, n.input(1, 30, 31, 9), (2, 2), pads=(3, 1, 3, 3)),  # noqa: E501
    "avg pool": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 30, 31, 9), (3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    "avg pool with pads, overhang": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 30, 31, 9), (3, 3), strides=(2, 2), pads=(1, 1, 2, 2), count_include_pad=True, overhang=(1, 1)),  # noqa: E501
    "avg pool 1-D": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 900, 9), (3,), strides=(2,), pads=(1, 1)),
    "avg pool of 60x60 in 64x64": lambda n: pool(graph.AvgPoolOp, n, n.input(1, 64, 61, 2), (60, 60), pads=(3, 1, 0, 2)),
    "avg pool int8": lambda n: pool(qnn.AvgPoolOp, n, n.input(1, 30, 31, 39, element=Q8), (3, 3), pads=(1, 1, 1, 1)),
    "avg pool int8 of 100x100": lambda n: pool(qnn.AvgPoolOp, n, n.input(1, 101, 100, 2, element=Q8), (100, 100), pads=(9, 0, 0, 9)),  # noqa: E501
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
    "last argmax over 9000": lambda n: n.put(graph.ArgmaxOp, n.input(9000, 2, element=i8), axis=0, keepdims=False, select_last=True),  # noqa: E501
    "layer norm": lambda n: norm(n, 40, 3, 37, axis=1),
    "layer norm over 6000": lambda n: norm(n, 2, 60, 100, axis=1),
    "layer norm over 6000 without bias": lambda n: norm(n, 2, 6000, axis=1, bias=False),
    "batch norm": batch_norm,
    # elementwise
    "broadcast operands": lambda n: n.put(graph.AddOp, n.input(7, 1, 33), n.input(20, 1)),
    "scalar operand": lambda n: n.put(graph.MulOp, n.input(7, 900), n.constant(np.float32(3))),
    "compare": P(graph.CompareOp, R(60, 100), R(100), predicate="lt"),
    "select": P(graph.SelectOp, R(50, 1, element=i1), R(50, 90), R(90)),
    "cast to i32": P(graph.CastOp, R(60, 100), to=i32),
    "cast to i1": P(graph.CastOp, R(60, 100, element=i32), to=i1),
    "add int8": lambda n: n.put(qnn.AddOp, n.input(1, 30, 31, 19, element=Q8), n.input(19, element=Q8), element=Q8, rescale=(3, 3, 3, 20, 1073741824, 0, 1073741824, 0, 1073741824, -18, -128, 127)),  # noqa: E501
    "mul int8": P(qnn.MulOp, R(1, 30, 31, 19, element=Q8), R(1, 1, 1, 19, element=Q8), element=Q8, multiplier=1073741824, shift=-5),  # noqa: E501
    "prelu int8": P(qnn.PreluOp, R(1, 30, 31, 19, element=Q8), R(19, element=Q8), element=Q8, rescale=(3, 3, 1073741824, 1, 1073741824, -4, 3)),  # noqa: E501
    "requantise int8": P(qnn.RequantiseOp, R(90, 191, element=Q8), element=Q8, multiplier=1073741824, shift=1),
    "clamp int8": P(qnn.ClampOp, R(90, 191, element=Q8), element=Q8, low=-3, high=50),
    "max int8": P(graph.MaxOp, R(90, 191, element=Q8), R(191, element=Q8)),
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
} | {
    op.name: P(op, R(60, 51)) for op in UNARY
} | {
    op.name: P(op, R(60, 51), R(51)) for op in BINARY
}  # fmt: skip

INEXACT = ("conv", "matmul", "dense")  # what a graph kernel leaves to BLAS


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


@pytest.mark.parametrize("name", CASES)
def test_any_size_compiles_and_has_the_same_bits(name):
    net = Net(zlib.crc32(name.encode()))
    with np.errstate(all="ignore"):
        module = net.finish(CASES[name](net))
        want = interpret(module, net.feeds)
        got = at_every_level(module, net.feeds)
    for key, array in want.items():
        assert array.nbytes + sum(a.nbytes for a in net.feeds.values()) > TINY.sram_bytes
        if name.startswith(INEXACT) and array.dtype == np.float32:
            np.testing.assert_allclose(got[key], array, rtol=1e-4, atol=1e-5 * np.abs(array).max())
        else:
            np.testing.assert_array_equal(got[key], array)
