"""The npu dialect: every instruction in both forms and syntaxes, views and layouts, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import npu_instructions as npu
from nacre.dialects.declarative import Parameters, value_of
from nacre.dialects.nacre import Source, SourceAttr
from nacre.dialects.npu import (
    INSTRUCTIONS,
    RANGES,
    Arity,
    Field,
    Queue,
    Region,
    Space,
    buffer,
    buffer_type,
    dense_region,
    dense_strides,
    itemsize,
)
from nacre.dialects.types import dtype_of, f16, f32, f64, i1, i8, i16, i32, i64, u8, u16
from nacre.passes.rewrite import canonicalize, cse

CLASSES = sorted(INSTRUCTIONS.values(), key=lambda cls: cls.OPCODE)
ELEMENTS = (i8, u8, i16, u16, i32, i64, f32, i1, f16, f64)
COPIES = (npu.LoadOp, npu.StoreOp, npu.CopyOp)


def field_values(field: Field):
    """Values that a field's encoding has room for."""
    if field.enum is not None:
        return st.sampled_from(list(field.enum))
    if field.is_list:
        return st.lists(st.integers(-(2**31), 2**31 - 1), max_size=12).map(tuple)
    if field.is_symbol:
        return st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True)
    if field.code == "f":
        return st.floats(width=32, allow_nan=False)
    return st.integers(*RANGES[field.code])


@st.composite
def instructions(draw, cls):
    """How many buffers each port of a class takes, and its fields."""
    counts = {}
    for port in cls.PORTS:
        most = {Arity.ONE: 1, Arity.OPTIONAL: 1, Arity.MANY: 3}[port.arity]
        counts[port.name] = draw(st.integers(0 if port.arity is Arity.OPTIONAL else 1, most))
    if "shift" in counts:
        counts["shift"] = counts["multiplier"]
    fields = {f.name: draw(field_values(f)) for f in cls.FIELDS}
    shape = draw(st.lists(st.integers(1, 9), max_size=5).map(tuple))
    return counts, fields, shape, draw(st.sampled_from(ELEMENTS))


def space_of(port, default: Space) -> Space:
    return default if port.space is None else port.space


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_buffer_form_reads_what_it_prints(syntax, cls, data):
    counts, fields, shape, element = data.draw(instructions(cls))
    ports = [p for p in cls.PORTS for _ in range(counts[p.name])]

    def body(*buffers):
        given_ports = {p.name: [b for q, b in zip(ports, buffers) if q is p] for p in cls.PORTS}
        yield cls.make(given_ports, **fields)

    types = [buffer(shape, element, space_of(p, Space.SRAM)) for p in ports]
    module = syntax.module(types, body)
    text = syntax.both_forms(module)
    assert f"    {cls.name}" in text
    (op,) = (op for op in syntax.parse(text).walk() if isinstance(op, cls))
    assert op.fields() == {n: value_of(cls_field(cls, n).attribute(v)) for n, v in fields.items()}
    assert {p: len(v) for p, v in op.ports().items()} == {p: n for p, n in counts.items() if n}


def cls_field(cls, name: str) -> Field:
    return next(f for f in cls.FIELDS if f.name == name)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_address_form_reads_what_it_prints(syntax, cls, data):
    counts, fields, shape, element = data.draw(instructions(cls))
    pitch = data.draw(st.integers(1, 4))
    address = data.draw(st.integers(0, 2**40))

    def regions(port):
        strides = tuple(pitch * s for s in dense_strides(shape, itemsize(element)))
        return [Region(space_of(port, Space.DRAM), address, shape, strides, element)] * counts[port.name]

    def body():
        first = npu.FillOp.make({"dst": dense_region(Space.SRAM, 0, (4,), i8)})
        yield first
        yield cls.make({p.name: regions(p) for p in cls.PORTS}, after=[first.results[0]], **fields)

    text = syntax.both_forms(syntax.module([], body))
    (_, op) = (op for op in syntax.parse(text).walk() if type(op) in INSTRUCTIONS.values())
    assert [r for _, r in op.accesses()] == [r for p in cls.PORTS for r in regions(p)]
    assert len(op.after) == 1


def test_opcodes_and_queues_are_what_files_say():
    """Opcodes are part of the file format: a changed one makes old files mean something else."""
    assert {cls.name: (cls.OPCODE, cls.QUEUE) for cls in CLASSES} == {
        "npu.load": (0x01, Queue.LOAD), "npu.store": (0x02, Queue.STORE),
        "npu.conv": (0x10, Queue.NN), "npu.depthwise": (0x11, Queue.NN), "npu.matmul": (0x12, Queue.NN),
        "npu.copy": (0x20, Queue.FABRIC), "npu.transpose": (0x21, Queue.FABRIC),
        "npu.fill": (0x22, Queue.FABRIC), "npu.pad": (0x23, Queue.FABRIC), "npu.pool": (0x24, Queue.FABRIC),
        "npu.pool_sum": (0x25, Queue.FABRIC), "npu.average": (0x26, Queue.FABRIC),
        "npu.add": (0x27, Queue.FABRIC), "npu.mul": (0x28, Queue.FABRIC),
        "npu.requantise": (0x29, Queue.FABRIC), "npu.table": (0x2A, Queue.FABRIC),
        "npu.clamp": (0x2B, Queue.FABRIC), "npu.extremum": (0x2C, Queue.FABRIC),
        "npu.resize": (0x2D, Queue.FABRIC), "npu.quantise": (0x30, Queue.PPU),
        "npu.dequantise": (0x31, Queue.PPU), "npu.convert": (0x33, Queue.PPU), "npu.launch": (0x32, Queue.PPU),
    }  # fmt: skip


def test_cleaning_passes_drop_no_instruction(syntax):
    text = """
      %a = npu.alloc : !npu.buffer<4xi8, sram>
      %unused = npu.alloc : !npu.buffer<4xi8, sram>
      npu.fill dst(%a) {value = 3}
      npu.fill dst(%a) {value = 3}
      %0 = npu.fill dst(sram[64] 4xi8)
    """
    module = syntax.parse(text)
    canonicalize(module)
    cse(module)
    names = [op.name for op in module.walk()]
    assert names.count("npu.fill") == 3
    assert names.count("npu.alloc") == 1


# --- building --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "build", "message"),
    [
        (
            TypeError,
            lambda b: npu.ClampOp.make({"src": b, "dst": b, "ofm": b}),
            "npu.clamp has no port 'ofm'",
        ),
        (
            TypeError,
            lambda b: npu.ClampOp.make({"src": b, "dst": b}, hihg=3),
            "npu.clamp has no field 'hihg'",
        ),
        (ValueError, lambda b: npu.ConvOp.make({}, pad_top=-1), "field 'pad_top' = -1 lies outside 0..65535"),
        (ValueError, lambda b: npu.ClampOp.make({}, low=2**31), "lies outside -2147483648..2147483647"),
    ],
)
def test_builders_refuse(syntax, error, build, message):
    with pytest.raises(error, match=message):
        syntax.module([buffer((2,), i8, Space.SRAM)], lambda b: [build(b)])


# --- refused text ----------------------------------------------------------------------------------------
BUFFERS = """
  %s = npu.alloc : !npu.buffer<1x4x4x8xi8, sram>
  %t = npu.alloc : !npu.buffer<1x4x4x8xi8, sram>
  %d = npu.alloc : !npu.buffer<1x4x4x8xi8, dram>
  %v = npu.alloc : !npu.buffer<8xi32, sram>
  %w = npu.alloc : !npu.buffer<3x3x8x8xi8, sram>
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("npu.load src(%s) dst(%t)", "npu.load: port 'src' has to lie in dram"),
        ("npu.store src(%s) dst(%t)", "npu.store: port 'dst' has to lie in dram"),
        ("%0 = npu.load src(sram[0] 4xi8) dst(sram[4] 4xi8)", "npu.load: port 'src' has to lie in dram"),
        ("npu.copy src(%s)", "npu.copy: port 'dst' takes one, has 0"),
        ("npu.clamp src(%s, %t) dst(%t)", "npu.clamp: port 'src' takes one, has 2"),
        ("npu.conv ifm(%s) weight(%w) ofm(%t) bias(%v, %v)", "npu.conv: port 'bias' takes optional, has 2"),
        ("npu.copy src(%s) dst(%v)", "npu.copy: source and destination differ in shape or element type"),
        ("%0 = npu.load src(dram[0] 4xi8) dst(sram[0] 4xi16)", "npu.load: source and destination differ"),
        ("npu.conv ifm(%s) weight(%w) ofm(%t) multiplier(%v)", "conv: multiplier and shift come together"),
        ("npu.matmul ifm(%s) weight(%w) ofm(%t) shift(%v)", "matmul: multiplier and shift come together"),
        ("npu.clamp src(%s) dst(%t) {hihg = 3}", "npu.clamp has no field 'hihg'"),
        ("npu.conv ifm(%s) weight(%w) ofm(%t) {stride_h = 65536}", "'stride_h' = 65536 lies outside"),
        ("npu.clamp src(%s) dst(%t) {low = 1, low = 2}", "parameter 'low' is given twice"),
        ("npu.clamp src(%q) dst(%t)", "this buffer is not defined above"),
        ("npu.copy src(%s) dst(sram[0] 1x4x4x8xi8)", "is a buffer, another one a region"),
        ("%x = npu.alloc : !npu.buffer<4xi8, flash>", "'flash' is no memory; dram and sram are"),
        ("%0 = npu.fill dst(sram[0] 2x4xi8 strides [4])", "2 strides expected"),
        ("%x = npu.view %s [0, 0, 0] : !npu.buffer<1x4x4xi8, sram>", "npu.view: rank, element type"),
        ("%x = npu.view %s [0, 0, 0, 0] : !npu.buffer<1x4x4x8xi8, dram>", "npu.view: rank, element type"),
        ("%x = npu.view %s [0, 2, 0, 0] : !npu.buffer<1x3x4x8xi8, sram>", "3 elements from 2 in steps of 1"),
        ("%x = npu.view %s [0, 0, 0, 1] steps [1, 1, 1, 4]: !npu.buffer<1x4x4x3xi8, sram>", "an axis of 8"),
        ("%x = npu.reshape %s : !npu.buffer<1x4x4x8xi8, sram> to !npu.buffer<9xi8, sram>", "reshape: size"),
        ("%x = npu.reshape %s : !npu.buffer<1x4x4x8xi8, sram> to !npu.buffer<128xi8, dram>", "reshape: size"),
        ("%x = npu.constant dense<1> : tensor<2xi8> : !npu.buffer<2xi8, sram>", "a constant lies in dram"),
        ("%x = npu.constant dense<1> : tensor<2xi16> : !npu.buffer<2xi8, dram>", "elements are not those"),
        ('npu.data "x" scratch at dram[0] 4xi8', "npu.data: the kind is one of input, output, constant"),
        ('npu.data "x" constant at dram[0] 4xi8', "npu.data: constants have a value, inputs"),
        ('npu.data "x" input at dram[0] 2xi8 = dense<1> : tensor<2xi8>', "inputs and outputs have none"),
        ("npu.tensor dram[0] 4xi8 after 3 #nacre.blob<\"a\", \"b\">", "a tensor needs #nacre.source<…>"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(syntax, line, message):
    syntax.parse(BUFFERS)  # on their own they are fine
    syntax.refuses(BUFFERS + line, message)


def test_a_gap_cannot_be_reshaped(syntax):
    syntax.refuses(
        """%a = npu.alloc : !npu.buffer<4x8xi8, sram>
        %b = npu.view %a [0, 0] : !npu.buffer<4x4xi8, sram>
        %c = npu.reshape %b : !npu.buffer<4x4xi8, sram> to !npu.buffer<16xi8, sram>""",
        "npu.reshape: the source is a view that is not dense",
    )


CLAMP = '"npu.clamp"(%a, %a) <{{operandSegmentSizes = array<i32: 1, 1, 0>, low = {}, high = 127 : i64}}> : {}'
BOTH = "(!npu.buffer<4xi8, sram>, !npu.buffer<4xi8, sram>)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (CLAMP.format("4294967296 : i64", f"{BOTH} -> ()"), "field 'low' = 4294967296 lies outside"),
        (
            "%0 = " + CLAMP.format("0 : i64", f"{BOTH} -> !npu.token"),
            "a token in address form and only there",
        ),
        (
            '"npu.fill"() <{operandSegmentSizes = array<i32: 0, 0>, dst_at = #npu.regions<sram[0] 4xi8>, '
            "value = 0 : i64}> : () -> ()",
            "a token in address form and only there",
        ),
    ],
)
def test_the_generic_form_is_checked_too(syntax, line, message):
    syntax.refuses(f"%a = npu.alloc : !npu.buffer<4xi8, sram>\n{line}", message)


# --- what is no instruction ------------------------------------------------------------------------------
def test_other_ops_read_what_they_print(syntax):
    syntax.both_forms("""
      npu.data "x" input at dram[64] 1x8x8x1xf32
      npu.data "w \\"1\\"" constant at dram[0] 3xi8 = dense<[1, 2, 3]> : tensor<3xi8>
      npu.tensor dram[4096] 1x8x8x16xi8 after 17 #nacre.source<"relu1" [0, 2, 3, 1] * 0.02:3>
      npu.tensor dram[4096] 8xi8 strides [3] after -1 #nacre.source<"a" [0], "b" [0]> {nacre.note = "n"}
      %a = npu.alloc {nacre.source = #nacre.source<"a" [0, 1]>} : !npu.buffer<4x8xi8, dram>
      %b = npu.view %a [1, 0] steps [2, 1] {npu.address = 3} : !npu.buffer<2x8xi8, dram>
      %c = npu.reshape %a : !npu.buffer<4x8xi8, dram> to !npu.buffer<32xi8, dram>
      %e = npu.constant dense<7> : tensor<2xi32> : !npu.buffer<2xi32, dram>
    """)


KERNEL = {
    "axis": 1,
    "alpha": 0.5,
    "mode": "linear",
    "flag": True,
    "pads": (0, 1),
    "scales": (0.5, 2.0),
    "to": f32,
}


def test_kernels_read_what_they_print(syntax):
    settings_ = Parameters(KERNEL)
    kernel = npu.KernelOp.of("pool_3", "graph.max_pool", settings_, ["pads"], "max_pool_f32")
    module = syntax.module([], list)
    module.body.block.insert_op_before(kernel, next(iter(module.ops)))
    text = syntax.both_forms(module)
    (again,) = (op for op in syntax.parse(text).ops if isinstance(op, npu.KernelOp))
    assert again.open() == ["pads"] and again.function.data == "max_pool_f32"
    assert dict(again.parameters()) == KERNEL


def test_tensor_entries_are_built_as_they_are_read(syntax):
    region = Region(Space.DRAM, 128, (2, 4), (16, 1), i8)
    source = SourceAttr((Source("y", (1, 0), 0.25, -3),))
    text = syntax.both_forms(syntax.module([], lambda: [npu.TensorOp.of(region, 5, source)]))
    expected = 'npu.tensor dram[128] 2x4xi8 strides [16, 1] after 5 #nacre.source<"y" [1, 0] * 0.25:-3>'
    assert expected in text


# --- layouts ---------------------------------------------------------------------------------------------
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_layouts_are_those_of_numpy_views(syntax, data):
    """Views of views and reshapes of what is dense lie where numpy has them."""
    element = data.draw(st.sampled_from([i8, i16, f32]))
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple))
    array = np.zeros(shape, dtype_of(element))
    base = array

    def body(root):
        nonlocal array
        value = root
        for _ in range(data.draw(st.integers(1, 4))):
            if data.draw(st.booleans()) and npu.dense_layout(value) is not None:
                flat = (math.prod(array.shape),)
                op = npu.ReshapeOp.create(operands=[value], result_types=[buffer(flat, element, Space.SRAM)])
                array = array.reshape(flat)
            else:
                boxes = [
                    data.draw(
                        st.integers(0, d - 1).flatmap(
                            lambda o, d=d: st.tuples(st.just(o), st.integers(1, d - o), st.integers(1, 3))  # type: ignore[misc]
                        )
                    )
                    for d in array.shape
                ]
                array = array[tuple(slice(o, o + n, s) for o, n, s in boxes)]
                offsets, _, steps = zip(*boxes)
                op = npu.ViewOp.of(value, offsets, array.shape, steps)  # type: ignore[assignment]
            yield op
            value = op.result
        layout = npu.layout_of(value)
        assert layout.root is root
        start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        assert layout.offset == start
        assert all(d == 1 or s == t for d, s, t in zip(array.shape, layout.strides, array.strides))
        assert (npu.dense_layout(value) is not None) == array.flags.c_contiguous
        assert buffer_type(value).shape == array.shape

    syntax.both_forms(syntax.module([buffer(shape, element, Space.SRAM)], body))


@given(
    space=st.sampled_from(Space),
    shape=st.lists(st.integers(0, 70), max_size=5).map(tuple),
    element=st.sampled_from(ELEMENTS),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_regions_know_their_bytes(space, shape, element, data):
    """Extent and size against the addresses of all elements."""
    shape = tuple(min(d, 4) for d in shape)
    strides = tuple(data.draw(st.integers(0, 50)) for _ in shape)
    region = Region(space, 8, shape, strides, element)
    item = dtype_of(element).itemsize
    offsets = [sum(i * s for i, s in zip(index, strides)) for index in np.ndindex(*shape)]
    assert region.extent == (max(offsets) + item if offsets else 0)
    assert region.nbytes == len(offsets) * item
