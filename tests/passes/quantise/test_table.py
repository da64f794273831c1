"""Quantisation tables: what they may hold, which entry wins, what contradicts, and what a layer becomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.graph import constant_of
from nacre.dialects.types import element_type, i8, i16
from nacre.errors import CompileError, InputError
from nacre.passes.quantise.apply_table import DTYPE, apply_layers, apply_tensors, attribute
from nacre.passes.quantise.layers import layers_of
from nacre.passes.quantise.quantise import quantise
from nacre.passes.quantise.ranges import fixed_of, range_of
from nacre.passes.quantise.report import layer_rows, share_by_type
from nacre.passes.quantise.table import TYPES, QuantTable, Tensor, load_table, table_text
from nacre.runtime.interpreter import main_function

# --- the file --------------------------------------------------------------------------------------------
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)
choices = st.fixed_dictionaries({"type": st.sampled_from(TYPES)}, optional={"why": st.text("abc :{#'\"", min_size=1)})
finite = st.floats(-1e6, 1e6, allow_subnormal=False)
ranges = st.tuples(finite, finite).map(lambda ends: {"min": min(ends), "max": max(ends)})
scales = st.fixed_dictionaries({"scale": st.floats(1e-30, 1e3), "zero": st.integers(-128, 255)})
tensors = st.one_of(ranges, scales, st.tuples(ranges, scales).map(lambda pair: {**pair[0], **pair[1]}))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "default": st.sampled_from(TYPES),
            "layers": st.dictionaries(names, choices, max_size=4),
            "types": st.dictionaries(names, choices, max_size=2),
            "tensors": st.dictionaries(names, tensors, max_size=4),
        },
    )
)
@settings(derandomize=True, deadline=None)
def test_what_is_written_reads_as_the_same_table(tmp_path_factory, content):
    table = load_table(content)
    path = tmp_path_factory.mktemp("t") / "t.yaml"
    path.write_text(table_text(table) or "{}", encoding="utf-8")
    assert load_table(path) == table


def test_names_that_yaml_would_take_for_something_else(tmp_path):
    long = "x" * 1500
    table = load_table({"layers": {"12": "int8", "yes": "int8", "null": "int8", long: "uint8", "a: b": "int16"}})
    path = tmp_path / "t.yaml"
    path.write_text(table_text(table))
    assert load_table(path) == table
    path.write_text("layers: {12: int8, yes: int16, ~: uint8}")
    assert list(load_table(path).layers) == ["12", "yes", "~"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.yaml' is empty: a quantisation table has the keys default, layers, types, tensors"),
        ("- int8", r"holds list: a quantisation table has the keys"),
        ("layers: {a: int9}", r"layers\.a\.type is 'int9' \(did you mean 'int8' or 'uint8'\?\); the types are"),
        ("layers: {a: 8}", r"layers\.a is 8: "),
        ("default: int4", r"default is 'int4' \(did you mean 'int8'"),
        ("layer: {a: int8}", r"layer is no key of a quantisation table \(did you mean 'layers'\?\); there are default"),
        ("layers: {a: {type: int8, reason: x}}", r"layers\.a\.reason is no key of a quantisation table; there are"),
        ("tensors: {a: {scale: 0.0}}", r"tensors\.a\.scale is 0\.0: input should be greater than 0"),
        ("tensors: {a: {scale: -1}}", r"tensors\.a\.scale is -1: input should be greater than 0"),
        ("tensors: {a: {scale: .nan}}", r"tensors\.a\.scale is nan: input should be"),
        ("tensors: {a: {min: -.inf, max: 1}}", r"tensors\.a\.min is -inf: input should be a finite number"),
        ("tensors: {a: {min: 2, max: 1}}", r"tensors\.a: min 2\.0 is above max 1\.0"),
        ("tensors: {a: {min: 2}}", r"tensors\.a: max is missing: a range has both ends"),
        ("tensors: {a: {zero: 2}}", r"tensors\.a: zero is given without scale"),
        ("tensors: {a: {scale: 1, zero: 2.5}}", r"tensors\.a\.zero is 2\.5: input should be a valid integer"),
        ("tensors: {a: {}}", r"tensors\.a: neither min and max nor scale are given"),
        ("tensors: {a: {mix: 1}}", r"tensors\.a\.mix is no key of a quantisation table \(did you mean 'min' or 'max'"),
        ("layers: {a: int8\n", r"t\.yaml', line 2 is no sound YAML"),
        ("layers:\n  a: int8\n  a: int16\n", r"line 3 is no sound YAML: 'a' is given twice"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"quantisation table '.*none.yaml' cannot be read: no such file"):
        load_table(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no UTF-8 text"):
        load_table(tmp_path / "b.yaml")


# --- which layer -----------------------------------------------------------------------------------------
R = "nacre.range = "
NET = f"""func.func @main(%x: tensor<2x4xf32> {{nacre.name = "image", {R}[-1.0 : f32, 1.0 : f32]}}) -> ANY {{
  %a = graph.exp %x {{{R}[0.25, 2.75], nacre.source = #nacre.source<"a_out" [0, 1]>}} : tensor<2x4xf32> loc("head/a")
  %w = graph.constant dense<0.25> : tensor<4x4xf32>
  %b = graph.matmul %a, %w {{{R}[0.25, 2.75]}} : tensor<2x4xf32> loc(fused["head/b", "bias"])
  %r = graph.reshape %b {{shape = [4, 2], {R}[0.25, 2.75]}} : tensor<4x2xf32> loc("flat")
  %c = graph.sin %r {{{R}[0.25, 1.0]}} : tensor<4x2xf32> loc("twice")
  %d = graph.cos %c {{{R}[0.5, 1.0]}} : tensor<4x2xf32> loc("twice")
  %s = graph.reshape %d {{shape = [2, 4], {R}[0.5, 1.0]}} : tensor<2x4xf32> loc("back")
  %n = graph.lrn %s {{{R}[0.5, 1.0]}} : tensor<2x4xf32> loc("norm")
  func.return %n : tensor<2x4xf32>
}}"""
NET = NET.replace("graph.lrn %s {", "graph.lrn %s {size = 3, ").replace("ANY", "tensor<2x4xf32>")


def dtypes(ir, **content) -> dict[str, str | None]:
    module = ir.parse(NET)
    apply_layers(module, load_table(content))
    return {layer.unique: attribute(layer.op, DTYPE) for layer in layers_of(main_function(module))}


def given_to(ir, **content) -> dict[str, str]:
    return {name: dtype for name, dtype in dtypes(ir, **content).items() if dtype}


def test_names_parts_and_patterns(ir):
    assert list(dtypes(ir)) == [
        "head/a:graph.exp", "head/b+bias:graph.matmul", "flat:graph.reshape", "twice:graph.sin", "twice:graph.cos",
        "back:graph.reshape", "norm:graph.lrn",
    ]  # fmt: skip
    assert given_to(ir, layers={"head/a": "int16"}) == {"head/a:graph.exp": "int16"}
    assert given_to(ir, layers={"bias": "int16"}) == {"head/b+bias:graph.matmul": "int16"}
    assert given_to(ir, layers={"head/b+bias": "int16"}) == {"head/b+bias:graph.matmul": "int16"}
    assert list(given_to(ir, layers={"head/*": "int16"})) == ["head/a:graph.exp", "head/b+bias:graph.matmul"]
    assert set(given_to(ir, layers={"twice": "uint8"})) == {"twice:graph.sin", "twice:graph.cos"}
    assert given_to(ir, layers={"twice:graph.cos": "uint8"}) == {"twice:graph.cos": "uint8"}


def test_the_more_particular_entry_wins(ir):
    found = given_to(
        ir, layers={"*": "int8", "twice": "int16", "twice:graph.cos": "float32"}, types={"graph.sin": "int16x8"}
    )  # fmt: skip
    assert found["twice:graph.sin"] == "int16" and found["twice:graph.cos"] == "float32"
    assert found["norm:graph.lrn"] == "int8"
    assert given_to(ir, layers={"tw*": "uint8"}, types={"graph.sin": "int16", "graph.lrn": "float32"}) == {
        "twice:graph.sin": "uint8", "twice:graph.cos": "uint8", "norm:graph.lrn": "float32",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layers": {"haed/a": "int8"}}, r"layers\.haed/a is no layer of the model \(did you mean 'head/a'"),
        ({"layers": {"tail/*": "int8"}}, r"layers\.tail/\* matches no layer of the model"),
        ({"types": {"graph.sine": "int8"}}, r"types\.graph\.sine: the model has no such op \(did you mean 'gra"),
        ({"layers": {"head/*": "int8", "*/b": "int16"}},
         r"layers\.head/\* makes layer 'head/b\+bias' int8 and layers\.\*/b makes it int16: give it an"),
        ({"layers": {"head/b": "int8", "bias": "float32"}},
         r"layers\.head/b makes layer 'head/b\+bias' int8 and layers\.bias makes it float32"),
        ({"tensors": {"a_ou": {"scale": 1}}}, r"tensors\.a_ou is no tensor of the model \(did you mean 'a_out'"),
    ],
)  # fmt: skip
def test_entries_that_fit_nothing_or_each_other(ir, content, message):
    with pytest.raises(CompileError, match=message):
        dtypes(ir, **content)


def test_entries_that_agree_are_none(ir):
    assert given_to(ir, layers={"head/b*": "int16", "*bias": "int16"}) == {"head/b+bias:graph.matmul": "int16"}


# --- what becomes of it ----------------------------------------------------------------------------------
def quantised(ir, dtype="int8", **content):
    module = ir.parse(NET)
    table = load_table(content)
    apply_layers(module, table)
    apply_tensors(module, table)
    used = quantise(module, dtype)
    module.verify()
    assert not any(key in str(module) for key in ("nacre.dtype", "nacre.named", "nacre.range", "nacre.scale"))
    return [line.split(" = ", 1)[1] for line in ir.lines(module)], used


def test_tensors_get_ranges_and_scales(ir):
    module = ir.parse(NET)
    entry = {"scale": 0.02, "zero": 3, "min": -1, "max": 4}
    table = load_table({"tensors": {"a_out": entry, "image": {"min": -0.5, "max": 0.5}}})
    apply_tensors(module, table)
    function = main_function(module)
    assert range_of(function.args[0]) == (-0.5, 0.5) and fixed_of(function.args[0]) is None
    exp = next(iter(function.body.block.ops)).results[0]
    assert range_of(exp) == (-1, 4) and fixed_of(exp) == (pytest.approx(0.02), 3)
    lines, used = quantised(ir, tensors=table.model_dump(exclude_unset=True)["tensors"])
    assert any("qnn.table" in line and "!quant.uniform<i8:f32, 0.02:3>" in line for line in lines)
    assert used.tensors["a_out"] == Tensor(min=-1, max=4, scale=float(used.tensors["a_out"].scale), zero=3)


def test_float_layers_have_casts_at_their_borders_only(ir):
    """From the matrix product ("b*": bias) to the move back ("b*" again): one cast in, none between."""
    lines, _ = quantised(ir, layers={"twice": "float32", "b*": "float32", "flat": "float32"})
    kinds = [line.split()[0] for line in lines if "graph.constant" not in line]
    assert kinds == [
        "quant.qcast", "qnn.table", "quant.dcast", "graph.matmul", "graph.reshape", "graph.sin", "graph.cos",
        "graph.reshape", "graph.lrn",
    ]  # fmt: skip
    assert sum('nacre.why = "quant table"' in line for line in lines) == 5
    lines, _ = quantised(ir, layers={"twice": "float32", "bias": "float32", "flat": "float32"})
    assert sum('nacre.why = "quant table"' in line for line in lines) == 4
    assert sum('nacre.why = "between float layers"' in line for line in lines) == 1


def test_types_meet_by_requantising(ir):
    """From 8 bits by a table, from 16 with a multiplier; a move has the type of what it moves."""
    lines, _ = quantised(ir, layers={"bias": "int16", "twice": "uint8"})
    kinds = [line.split()[0] for line in lines if "graph.constant" not in line]
    assert kinds == [
        "quant.qcast", "qnn.table", "qnn.table", "qnn.matmul", "graph.reshape", "qnn.requantise", "qnn.table",
        "graph.reshape", "quant.dcast", "graph.lrn",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "tensor<4x2x!quant.uniform<i16" in text and 'qnn.requantise %10 {to = "u8"' in text
    reasons = [line.split()[0] for line in lines if 'nacre.why = "quant table"' in line]
    assert reasons == ["qnn.table", "qnn.matmul", "qnn.requantise", "qnn.table"]


def test_what_has_no_integer_form_is_told_where_it_is_asked_for_by_name(ir):
    wanted = r"layers\.norm asks for int16, but layer 'norm' \(graph\.lrn\) stays float32: graph\.lrn has no integer"
    with pytest.raises(CompileError, match=wanted):
        quantised(ir, layers={"norm": "int16"})
    quantised(ir, layers={"*": "int8"})


def test_a_fixed_scale_that_an_op_cannot_have(ir):
    with pytest.raises(CompileError, match=r"scale 0\.5 and zero 0 are asked for the result of layer 'flat'"):
        quantised(ir, tensors={"flat:graph.reshape": {"scale": 0.5}})
    with pytest.raises(CompileError, match=r"the zero point 200 of the input 'image' does not fit int8, where"):
        quantised(ir, tensors={"image": {"scale": 0.5, "zero": 200}})
    with pytest.raises(CompileError, match=r"zero point 3 of the input 'image' does not fit int16, where it is 0"):
        quantised(ir, "int16", tensors={"image": {"scale": 0.5, "zero": 3}})


@pytest.mark.parametrize("default", TYPES)
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"layers": {"twice:graph.sin": "float32", "head/*": "int16"}},
        {"layers": {"head/a": "uint8"}, "types": {"graph.reshape": "int8", "graph.matmul": "int16x8"}},
        {"layers": {"bias": {"type": "float32", "why": "too few bits"}}, "tensors": {"a_out": {"scale": 0.03}}},
        {"layers": {"head/a": "int8"}, "tensors": {"image": {"min": -0.5, "max": 0.75}}},
    ],
)
def test_the_table_that_was_used_does_the_same_again(ir, content, default):
    if "a_out" in content.get("tensors", {}) and default == "uint8":
        content = {**content, "tensors": {"a_out": {"scale": 0.03, "zero": 128}}}
    lines, used = quantised(ir, default, **content)
    again = load_table({**used.model_dump(exclude_unset=True, exclude={"default"})})
    bare = NET.replace(R, "nacre.forgotten = ")
    module = ir.parse(bare)
    apply_layers(module, again)
    apply_tensors(module, again)
    second = quantise(module, default)
    for op in module.walk():
        op.attributes.pop("nacre.forgotten", None)
    assert [line.split(" = ", 1)[1] for line in ir.lines(module)] == lines
    assert second == used


def test_an_empty_table_changes_nothing(ir):
    assert QuantTable() == load_table({})
    assert quantised(ir)[0] == quantised(ir, layers={"head/a": "int8", "twice": "int8"})[0]


def test_the_table_between_two_types_rounds_once(ir):
    module = ir.parse(NET)
    apply_layers(module, load_table({"layers": {"bias": "int16"}}))
    quantise(module)
    tables = [op for op in module.walk() if op.name == "qnn.table" and element_type(op.results[0]).storage == i16]
    [between] = [op for op in tables if element_type(op.operands[0]).storage == i8]
    old, new = element_type(between.operands[0]), element_type(between.results[0])
    exact = (np.arange(256).astype(np.int8).astype(np.float64) - old.zero) * old.scale / new.scale
    entries = constant_of(between.operands[1]).astype(np.float64)
    assert np.abs(entries - np.clip(exact, -32768, 32767)).max() <= 0.5001


def test_macs_of_a_layer_of_several_ops(ir):
    module = ir.parse(
        """x: tensor<2x4xf32>
        %w = graph.constant dense<0.25> : tensor<4x4xf32>
        %a = graph.matmul %x, %w : tensor<2x4xf32> loc("cell")
        %b = graph.tanh %a : tensor<2x4xf32> loc("cell")
        %y = graph.matmul %b, %w : tensor<2x4xf32> loc("cell")"""
    )
    assert [tuple(row) for row in layer_rows(module)] == [("cell", "graph.matmul", "float32", "", 64)]
    assert share_by_type(layer_rows(module)) == {"float32": 1.0} and share_by_type([]) == {}
