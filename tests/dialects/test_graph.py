"""The graph and qnn dialects: every op reads back as itself, and shape rules refuse in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import graph, qnn
from nacre.dialects.declarative import DeclarativeOp, floats_attribute, value_of
from nacre.dialects.nacre import BlobAttr
from nacre.dialects.store import Store
from nacre.dialects.text import make_context
from nacre.dialects.types import f32, i1, i8, i32, i64, tensor
from xdsl.dialects import test
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

WINDOW = {"strides": (1, 2), "pads": (1, 0, 1, 0), "dilations": (1, 1)}
F = ((2, 6, 5, 4), f32)
"""A feature map."""

SCALES = floats_attribute((0.5, 1.75))

EXAMPLES = {
    graph.ConvOp: ([F, ((3, 3, 2, 6), f32), ((6,), f32)], {**WINDOW, "groups": 2}, (2, 6, 2, 6)),
    graph.ConvTransposeOp: (
        [F, ((3, 3, 4, 6), f32)], {**WINDOW, "output_pads": (0, 1)}, (2, 6, 12, 6),
    ),
    graph.MaxPoolOp: ([F], {**WINDOW, "kernel": (3, 2)}, (2, 6, 2, 4)),
    graph.AvgPoolOp: ([F], {**WINDOW, "kernel": (3, 2), "count_include_pad": True}, (2, 6, 2, 4)),
    graph.LrnOp: ([F], {"size": 3, "alpha": 1e-3}, F[0]),
    graph.ResizeOp: ([F], {"sizes": (3, 9), "mode": "linear", "scales": SCALES}, (2, 3, 9, 4)),
    graph.DepthToSpaceOp: ([F], {"block": 2, "order": "CRD"}, (2, 12, 10, 1)),
    graph.SpaceToDepthOp: ([((2, 6, 4, 4), f32)], {"block": 2}, (2, 3, 2, 16)),
    graph.MatmulOp: ([((3, 1, 4, 5), f32), ((2, 5, 7), f32), ((7,), f32)], {}, (3, 2, 4, 7)),
    graph.CompareOp: ([F, ((4,), f32)], {"predicate": "le"}, F[0]),
    graph.SelectOp: ([((5, 1), i1), F, ((), f32)], {}, F[0]),
    graph.ClampOp: ([F], {"low": 0.0, "high": 6.0}, F[0]),
    graph.LeakyReluOp: ([F], {"alpha": 0.1}, F[0]),
    graph.CastOp: ([F], {"to": i64}, F[0]),
    graph.LstmCellOp: (
        [((2, 12), f32), ((2, 12), f32), ((2, 3), f32), ((9,), f32)],
        {"f": "hard_sigmoid", "alpha": (0.3, 0.1, 0.1), "beta": (0.6, 0.1, 0.1), "clip": 0.5, "cell_clip": 2.0,
         "input_forget": True}, (2, 3),
    ),
    graph.GruResetOp: ([((2, 9), f32), ((2, 6), f32), ((2, 3), f32)], {"f": "relu"}, (2, 3)),
    graph.GruCellOp: (
        [((2, 9), f32), ((2, 6), f32), ((2, 3), f32), ((2, 3), f32)], {"g": "relu", "reset_after": True}, (2, 3),
    ),
    graph.SoftmaxOp: ([F], {"axis": 3}, F[0]),
    graph.ArgmaxOp: ([F], {"axis": 1, "keepdims": False}, (2, 5, 4)),
    graph.BatchNormOp: ([F, *[((4,), f32)] * 4], {"axis": 3, "epsilon": 1e-3}, F[0]),
    graph.LayerNormOp: ([F, ((4,), f32), ((5, 4), f32)], {"axis": 2}, F[0]),
    graph.ReshapeOp: ([F], {"shape": (4, 60)}, (4, 60)),
    graph.TransposeOp: ([F], {"permutation": (0, 3, 1, 2)}, (2, 4, 6, 5)),
    graph.BroadcastOp: ([((5, 1), f32)], {"shape": (3, 5, 4)}, (3, 5, 4)),
    graph.ConcatOp: ([F, ((2, 6, 5, 3), f32)], {"axis": 3}, (2, 6, 5, 7)),
    graph.SplitOp: ([F], {"axis": 1, "sizes": (4, 2)}, (2, 4, 5, 4)),
    graph.SliceOp: ([F], {"starts": (0, 5, 0, 0), "sizes": (2, 3, 5, 4), "steps": (1, -2, 1, 1)},
                    (2, 3, 5, 4)),
    graph.PadOp: ([F], {"low": (0, 1, 2, 0), "high": (0, 0, 1, 0), "value": -1.5}, (2, 7, 8, 4)),
    graph.GatherOp: ([F, ((7, 2), i64)], {"axis": 2}, (2, 6, 7, 2, 4)),
    graph.BitwiseOp: ([((5, 1), i32), ((4,), i32)], {"operation": "left"}, (5, 4)),
    graph.CumsumOp: ([F], {"axis": 1, "exclusive": True}, F[0]),
    graph.CumprodOp: ([F], {"axis": 3, "reverse": True}, F[0]),
    graph.TopkOp: ([F], {"axis": 1, "k": 3, "largest": False}, (2, 3, 5, 4)),
    graph.GatherElementsOp: ([F, ((2, 9, 1, 4), i64)], {"axis": 1}, (2, 9, 5, 4)),
    graph.ScatterElementsOp: (
        [F, ((2, 9, 1, 4), i32), ((2, 9, 3, 4), f32)], {"axis": 1, "reduction": "max"}, F[0],
    ),
    graph.GridSampleOp: ([F, ((2, 3, 7, 2), f32)], {"mode": "cubic", "padding": "border"}, (2, 3, 7, 4)),
}  # fmt: skip


def example(cls) -> tuple[list, dict, tuple[int, ...]]:
    """Operand types, parameters and the first result's shape of an example of an op class."""
    if cls in EXAMPLES:
        return EXAMPLES[cls]  # type: ignore[return-value]
    if issubclass(cls, graph.BinaryOp):
        return [F, ((5, 1), f32)], {}, F[0]
    if issubclass(cls, graph.ReduceOp):
        return [F], {"axes": (1, 2), "keepdims": False}, (2, 4)
    assert issubclass(cls, graph.UnaryOp), f"{cls.name} has no example"
    return [F], {}, F[0]


OPS = [op for op in graph.OPS if op is not graph.ConstantOp]


def operands(types) -> test.TestOp:
    return test.TestOp(result_types=[tensor(shape, element) for shape, element in types])


@pytest.mark.parametrize("cls", OPS, ids=lambda op: op.name)
def test_every_op_reads_what_it_prints(syntax, cls):
    types, parameters, shape = example(cls)

    def body(*values):
        yield cls.make(*values, **parameters)

    module = syntax.module([tensor(*t) for t in types], body)
    (op,) = (op for op in module.walk() if isinstance(op, cls))
    assert tuple(d.data for d in op.results[0].type.shape) == shape
    text = syntax.both_forms(module)
    (again,) = (op for op in syntax.parse(text).walk() if isinstance(op, cls))
    assert dict(again.parameters()) == dict(op.parameters())
    for name, value in parameters.items():
        if name != "to":
            expected = value_of(value) if isinstance(value, Attribute) else value
            assert op.parameters()[name] == pytest.approx(expected)


@pytest.mark.parametrize("cls", OPS, ids=lambda op: op.name)
def test_a_result_of_another_shape_is_refused(cls):
    types, parameters, _ = example(cls)
    op = cls.make(*operands(types).results, **parameters)
    wrong = cls.create(
        operands=list(op.operands), properties=op.properties,
        result_types=[tensor((17,), i8), *[r.type for r in op.results[1:]]],
    )  # fmt: skip
    with pytest.raises(VerifyException, match=f"{cls.name}: .*should be .* but is tensor<17xi8>"):
        wrong.verify()


@pytest.mark.parametrize(
    ("cls", "types", "parameters", "message"),
    [
        (graph.ConvOp, [F, ((3, 3, 4, 6), f32)], {**WINDOW, "groups": 2}, "2 groups does not fit 4"),
        (graph.ConvOp, [F, ((3, 3, 4, 6), f32)], {**WINDOW, "pads": (1, 1)}, "'pads' needs 4 entries"),
        (graph.ConvOp, [F, ((3, 3, 4, 6), f32)], {**WINDOW, "strides": (0, 1)}, "has an entry below 1"),
        (graph.ConvOp, [F, ((9, 3, 4, 6), f32)], WINDOW, "the window of 9 does not fit the padded axis of 8"),
        (graph.ConvOp, [F, ((3, 3, 4, 6), f32), ((5,), f32)], WINDOW, r"bias \[5\] should be \[6\]"),
        (graph.MaxPoolOp, [((3, 4), f32)], {**WINDOW, "kernel": (2, 2)}, r"has to be \[N, W, C\] or"),
        (graph.MatmulOp, [((3, 4), f32), ((5, 6), f32)], {}, r"\[3, 4\] and \[5, 6\] do not multiply"),
        (graph.AddOp, [((3,), f32), ((4,), f32)], {}, r"the shapes \[3\], \[4\] do not broadcast"),
        (graph.AddOp, [((3,), f32), ((3,), i32)], {}, "element types differ: f32, i32"),
        (graph.CompareOp, [((3,), f32), ((3,), f32)], {"predicate": "lower"}, "the predicate is one of"),
        (graph.SelectOp, [((3,), f32), ((3,), f32), ((3,), f32)], {}, "needs an i1 condition"),
        (graph.SoftmaxOp, [((3,), f32)], {"axis": -1}, "axis -1 is outside a tensor of rank 1"),
        (graph.ReshapeOp, [((3, 4), f32)], {"shape": (5, 2)}, r"\[3, 4\] does not reshape to \[5, 2\]"),
        (graph.TransposeOp, [((3, 4), f32)], {"permutation": (0, 0)}, "is no permutation of 2 axes"),
        (graph.ConcatOp, [((3, 4), f32), ((3, 5), f32)], {"axis": 0}, "do not join along 0"),
        (graph.SplitOp, [((3, 4), f32)], {"axis": 1, "sizes": (1, 2)}, "do not add up to 4"),
        (graph.SliceOp, [((4,), f32)], {"starts": (1,), "sizes": (2,), "steps": (3,)}, "an axis of 4"),
        (graph.PadOp, [((4,), f32)], {"low": (4,), "high": (0,), "mode": "reflect"}, "a reflection of"),
        (graph.GatherOp, [((4,), f32), ((2,), f32)], {}, "the indices have to be i32 or i64, not f32"),
        (graph.BitwiseOp, [F, F], {"operation": "and"}, "integers are expected, not f32"),
        (graph.BitwiseOp, [((3,), i8), ((3,), i8)], {"operation": "nor"}, "the operation is one of and, or"),
        (graph.CumsumOp, [F], {"axis": 4}, "axis 4 is outside a tensor of rank 4"),
        (graph.TopkOp, [F], {"axis": 1, "k": 7}, "k = 7 values are asked of an axis of 6"),
        (graph.GatherElementsOp, [F, ((2, 9, 2, 4), i64)], {"axis": 1}, "along axis 1 do not fit data"),
        (graph.GatherElementsOp, [F, F], {"axis": 1}, "the indices have to be i32 or i64, not f32"),
        (graph.ScatterElementsOp, [F, (F[0], i64), ((2, 6, 4, 4), f32)], {"axis": 1}, "do not broadcast"),
        (graph.ScatterElementsOp, [F, ((1,) * 4, i64), ((2, 6, 6, 4), f32)], {"axis": 1}, "along axis 1 do not fit"),
        (graph.ScatterElementsOp, [F, (F[0], i64), F], {"axis": 1, "reduction": "mean"}, "'mean' is none of none, add"),
        (graph.GridSampleOp, [F, ((1, 3, 7, 2), f32)], {}, "are expected, not"),
        (graph.GridSampleOp, [F, ((2, 3, 7, 2), f32)], {"mode": "area"}, "'area' is none of nearest, linear"),
        (graph.ResizeOp, [F], {"sizes": (3, 9), "mode": "area"}, "'area' is none of nearest, linear, cubic"),
        (graph.DepthToSpaceOp, [F], {"block": 3}, "block 3, order DCR does not fit 4 channels"),
    ],
)  # fmt: skip
def test_shape_rules_refuse_in_words(cls, types, parameters, message):
    with pytest.raises(VerifyException, match=f"{cls.name}.*{message}"):
        cls.make(*operands(types).results, **parameters)


def test_unknown_and_missing_parameters_are_named(syntax):
    value = operands([((3,), f32)]).results[0]
    with pytest.raises(TypeError, match=r"graph\.softmax has no parameter 'axes'; it has axis"):
        graph.SoftmaxOp.make(value, axes=1)
    with pytest.raises(TypeError, match=r"graph\.softmax needs the parameter 'axis'"):
        graph.SoftmaxOp.make(value)
    head = "%x = graph.constant dense<1.0> : tensor<3xf32>\n"
    syntax.refuses(head + "%y = graph.softmax %x {axes = 1} : tensor<3xf32>", "has no parameter 'axes'")
    syntax.refuses(head + "%y = graph.softmax %x : tensor<3xf32>", "needs the parameter 'axis'")
    syntax.refuses(head + "%y = graph.relu %z : tensor<3xf32>", "this value is not defined above")
    syntax.refuses(head + "%y = graph.relu %x : tensor<4xf32>", "the result should be tensor<3xf32>")


def test_constants_read_what_they_print(syntax):
    syntax.both_forms("""
      %a = graph.constant dense<[1.5, -2.0]> : tensor<2xf32>
      %b = graph.constant dense<[1, -2]> : tensor<2xi8> : tensor<2x!quant.uniform<i8:f32, 0.5:1>>
      %c = graph.constant dense<true> : tensor<2xi1>
    """)
    syntax.refuses("%a = graph.constant dense<1> : tensor<2xi16> : tensor<2xi8>", "elements are not those of")
    syntax.refuses('%a = graph.constant #nacre.blob<"w", "ab">', "a constant in a store needs ': type'")


@given(st.sampled_from([np.float32, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_]), st.data())
@settings(max_examples=60, deadline=None)
def test_small_constants_keep_every_value(syntax, dtype, data):
    """Inline constants of all types through text."""
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    size = int(np.prod(shape))
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        values = st.floats(width=32, allow_nan=False, allow_infinity=False)
    elif dtype.kind == "b":
        values = st.booleans()
    else:
        values = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
    array = np.array(data.draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(shape)
    module = syntax.module([], lambda: [graph.ConstantOp.of(array, Store())])
    text = syntax.both_forms(module)
    (op,) = (op for op in syntax.parse(text).walk() if isinstance(op, graph.ConstantOp))
    assert op.array().dtype == dtype and op.array().shape == shape
    np.testing.assert_array_equal(op.array(), array)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_small_constants_keep_what_is_not_finite(value):
    array, store = np.array([1.0, value], np.float32), Store()
    op = graph.ConstantOp.of(array, store)
    assert isinstance(op.value, BlobAttr), "xDSL would read its text back as another number"
    np.testing.assert_array_equal(store.get(op.value.data.digest), array)


# --- qnn -------------------------------------------------------------------------------------------------
QNN = """
  !a = !quant.uniform<i8:f32, 0.5:3>
  !w = !quant.uniform<i8:f32:3, {0.5, 0.25}>
  func.func @main(%x: tensor<1x6x5x4x!a>, %w: tensor<3x3x4x2x!w>, %m: tensor<2xi32>, %t: tensor<256x!a>,
                  %k: tensor<4x2x!a>, %r: tensor<3x3xi32>, %c: tensor<7x3xi32>) {
    %0 = qnn.conv %x, %w, %m, %m, %m {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], low = 0}
      : tensor<1x6x5x2x!a>
    %1 = qnn.matmul %x, %k, %m, %m {a_zero = 3, rounding = 1} : tensor<1x6x5x2x!a>
    %2 = qnn.add %x, %x {rescale = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], subtract = true}
      : tensor<1x6x5x4x!a>
    %3 = qnn.mul %x, %x {multiplier = 3, shift = -4} : tensor<1x6x5x4x!a>
    %4 = qnn.requantise %x {multiplier = 3, shift = -4} : tensor<1x6x5x4x!a>
    %5 = qnn.clamp %x {low = -3, high = 4} : tensor<1x6x5x4x!a>
    %6 = qnn.table %x, %t : tensor<1x6x5x4x!a>
    %7 = qnn.avg_pool %x {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0]} : tensor<1x3x2x4x!a>
    %8 = qnn.resize %x, %r, %c : tensor<1x3x7x4x!a>
    func.return
  }
"""  # fmt: skip


def test_qnn_reads_what_it_prints(syntax):
    text = syntax.both_forms(QNN)
    assert text.count("!quant.uniform") == 2  # a quantised type is written once


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10, 11, 12]", "10, 11]", "'rescale' has twelve entries"),
        ("%t: tensor<256x!a>", "%t: tensor<255x!a>", "the table has 256 entries, not [255]"),
        ("%m: tensor<2xi32>", "%m: tensor<3xi32>", "[3] should be [2]"),
        ("%k: tensor<4x2x!a>", "%k: tensor<3x2x!a>", "do not multiply"),
        ("%t: tensor<256x!a>", "%t: tensor<256xf32>", "works on quantised tensors"),
        ("tensor<1x3x2x4x!a>", "tensor<1x3x3x4x!a>", "qnn.avg_pool: the result should be tensor<1x3x2x4x"),
    ],
)
def test_qnn_refuses_in_words(syntax, old, new, message):
    assert old in QNN
    syntax.refuses(QNN.replace(old, new), message)


def test_every_op_is_registered_and_declarative():
    context = make_context()
    for op in (*graph.OPS, *qnn.OPS):
        assert issubclass(op, DeclarativeOp)
        assert context.get_op(op.name) is op
