"""The quant dialect: MLIR's syntax for quantised types, its casts, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.quant import QuantType, quantised, storage_range
from nacre.dialects.text import make_context, parse_module
from nacre.dialects.types import i8, i16, i32, tensor, u8
from nacre.errors import NacreError
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

STORAGES = (i8, u8, i16, i32)
SCALES = st.floats(2.0**-100, 2.0**100, width=32)


@pytest.mark.parametrize(
    "text",
    [
        "!quant.uniform<i8:f32, 0.02:3>",
        "!quant.uniform<u8:f32, 0.02:128>",
        "!quant.uniform<i16:f32, 1.0>",
        "!quant.uniform<i8:f32, 1.5e-05:-128>",
        "!quant.uniform<i8<-127:127>:f32, 0.5>",
        "!quant.uniform<i8:f32:3, {0.1, 0.2:-7, 1e+20}>".replace("1e+20", "1.0e+20"),
    ],
)
def test_types_read_what_they_print(text):
    type_ = Parser(make_context(), text).parse_type()
    assert isinstance(type_, QuantType)
    assert str(type_) == text


@given(st.sampled_from(STORAGES), st.lists(SCALES, min_size=1, max_size=5), st.data())
@settings(max_examples=80, deadline=None)
def test_any_type_survives_text(storage, scales, data):
    low, high = storage_range(storage)
    zeros = [data.draw(st.integers(low, high)) for _ in scales]
    axis = data.draw(st.integers(0, 3)) if len(scales) > 1 else None
    type_ = quantised(storage, scales, zeros, axis)
    assert Parser(make_context(), str(type_)).parse_type() == type_
    assert type_.data.scales == tuple(float(np.float32(s)) for s in scales)


def test_equal_types_are_one_object():
    assert quantised(i8, 0.5, 3) is quantised(i8, 0.5, 3)
    assert tensor((2, 3), quantised(i8, 0.5, 3)) is tensor((2, 3), quantised(i8, 0.5, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!quant.uniform<i4:f32, 0.5>", "'i4' is no storage type; i8, u8, i16, i32 are"),
        ("!quant.uniform<i8:f16, 0.5>", "the expressed type has to be f32"),
        ("!quant.uniform<i8:f32, 0.5:200>", "a zero point lies outside the storage range -128..127"),
        ("!quant.uniform<i8:f32, -0.5>", "the scales of a quantised type have to be finite and above zero"),
        ("!quant.uniform<i8:f32, 0.0>", "the scales of a quantised type have to be finite and above zero"),
        ("!quant.uniform<u8:f32, 0.5:-1>", "a zero point lies outside the storage range 0..255"),
    ],
)
def test_types_that_do_not_fit_are_refused(text, message):
    with pytest.raises((NacreError, VerifyException)) as refusal:
        parse_module(f"func.func private @f(tensor<2x{text}>)")
    assert message in str(refusal.value)


Q = "!quant.uniform<i8:f32, 0.5:3>"


def test_casts_read_what_they_print(syntax):
    syntax.both_forms(f"""
      %x = graph.constant dense<1.0> : tensor<2xf32>
      %q = quant.qcast %x {{nacre.source = #nacre.source<"x" [0]>}} : tensor<2xf32> to tensor<2x{Q}>
      %d = quant.dcast %q : tensor<2x{Q}> to tensor<2xf32>
      %s = quant.scast %q : tensor<2x{Q}> to tensor<2xi8>
      %b = quant.scast %s : tensor<2xi8> to tensor<2x{Q}>
    """)


@pytest.mark.parametrize(
    ("cast", "source", "target", "message"),
    [
        ("qcast", "2xf32", f"3x{Q}", "quant.qcast does not change the shape"),
        ("qcast", f"2x{Q}", f"2x{Q}", "quant.qcast goes from f32 to a quantised type"),
        ("qcast", "2xf32", "2xi8", "quant.qcast goes from f32 to a quantised type"),
        ("dcast", "2xf32", f"2x{Q}", "quant.dcast goes from a quantised type to f32"),
        ("scast", f"2x{Q}", "2xi16", "quant.scast joins a quantised type and its storage type"),
        ("scast", f"2x{Q}", f"2x{Q}", "quant.scast joins a quantised type and its storage type"),
    ],
)
def test_casts_that_lead_nowhere_are_refused(syntax, cast, source, target, message):
    syntax.refuses(
        f"func.func @main(%x: tensor<{source}>) {{\n"
        f"%y = quant.{cast} %x : tensor<{source}> to tensor<{target}>\nfunc.return }}",
        message,
    )
