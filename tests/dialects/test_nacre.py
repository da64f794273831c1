"""What all levels share: the store of constants, source tensors, and the short forms of parameters."""

import math
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects import graph
from nacre.dialects.declarative import (
    attribute_of,
    float_text,
    floats_attribute,
    parse_parameters,
    print_parameters,
    value_of,
)
from nacre.dialects.nacre import (
    INLINE_LIMIT,
    BlobAttr,
    Source,
    SourceAttr,
    StoreAttr,
    constant_attribute,
    set_sources,
    sources_of,
    store_of,
)
from nacre.dialects.store import Store, digest_of
from nacre.dialects.text import load_module, make_context, parse_module, print_module, save_module
from nacre.dialects.types import f32, tensor
from nacre.errors import NacreError
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.printer import Printer

ASCII = st.text(st.characters(max_codepoint=127), max_size=8)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


CONTEXT = make_context()


# --- numbers as text -------------------------------------------------------------------------------------
@given(FLOATS)
@settings(max_examples=300, deadline=None)
def test_the_text_of_a_float_is_exact_and_has_a_point(value):
    text = float_text(value)
    assert np.float32(text).tobytes() == np.float32(value).tobytes()  # −0.0 too
    assert "." in text.partition("e")[0]
    assert len(text) <= len(f"{np.float32(value):.9e}")


NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32),
    ASCII,
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(tuple),
    st.lists(FLOATS, min_size=1, max_size=4).map(floats_attribute),
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_parameters_read_what_they_print(parameters):
    attributes = {name: attribute_of(value) for name, value in parameters.items()}
    out = StringIO()
    print_parameters(Printer(out), attributes)
    found = parse_parameters(Parser(CONTEXT, out.getvalue()))
    assert list(found) == list(attributes)
    for name, attribute in attributes.items():
        # NaN is unequal to itself, so bits are compared
        old, new = value_of(attribute), value_of(found[name])
        assert type(old) is type(new) and repr(old) == repr(new), out.getvalue()


def test_parameter_types_stay_apart():
    assert value_of(attribute_of(True)) is True
    assert value_of(attribute_of(1)) == 1 and value_of(attribute_of(1)) is not True
    assert isinstance(value_of(attribute_of(1.0)), float)


@given(st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38))
@settings(max_examples=50, deadline=None)
def test_numbers_are_rounded_to_float32(value):
    assert value_of(attribute_of(value)) == float(np.float32(value))


def test_infinite_parameters_survive(syntax):
    text = syntax.both_forms("""
      %x = graph.constant dense<1.0> : tensor<2xf32>
      %y = graph.clamp %x {low = 0.0} : tensor<2xf32>
    """)
    (op,) = (op for op in syntax.parse(text).walk() if isinstance(op, graph.ClampOp))
    assert op.parameters().high == math.inf


# --- source tensors --------------------------------------------------------------------------------------
SOURCES = st.lists(
    st.builds(
        Source,
        ASCII,
        st.integers(0, 5).flatmap(lambda n: st.permutations(range(n))).map(tuple),
        st.none(),
        st.just(0),
    )
    | st.builds(
        Source,
        st.sampled_from(["a", 'b"c', "x/y:0", "a\\b"]),
        st.just((0, 1)),
        st.floats(2.0**-40, 2.0**40, width=32),
        st.integers(-128, 255),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@given(SOURCES)
@settings(max_examples=150, deadline=None)
def test_sources_read_what_they_print(sources):
    attribute = SourceAttr(sources)
    found = Parser(CONTEXT, str(attribute)).parse_attribute()
    assert found == attribute


@pytest.mark.parametrize("name", ["é", 'a"b', "a\\b", "層/1", "tab\there"])
def test_names_beyond_letters_survive(syntax, name):
    module = syntax.parse("%x = graph.constant dense<1.0> : tensor<4xf32>")
    (op,) = (op for op in module.walk() if isinstance(op, graph.ConstantOp))
    set_sources(op.result, (Source(name, (0,)),))
    (op,) = (op for op in parse_module(print_module(module)).walk() if isinstance(op, graph.ConstantOp))
    assert [s.tensor for s in sources_of(op.result)] == [name]


def test_each_result_has_sources_of_its_own(syntax):
    module = syntax.parse("""
      %x = graph.constant dense<1.0> : tensor<4xf32>
      %a, %b = graph.split %x {axis = 0, sizes = [1, 3]} : tensor<1xf32>, tensor<3xf32>
    """)
    (split,) = (op for op in module.walk() if isinstance(op, graph.SplitOp))
    set_sources(split.results[0], (Source("a", (0,)),))
    set_sources(split.results[1], (Source("b", (0,), 0.5, 3),))
    again = syntax.parse(syntax.both_forms(module))
    (split,) = (op for op in again.walk() if isinstance(op, graph.SplitOp))
    assert [s.tensor for r in split.results for s in sources_of(r)] == ["a", "b"]
    set_sources(split.results[0], ())
    assert sources_of(split.results[0]) == () and len(sources_of(split.results[1])) == 1


# --- the store -------------------------------------------------------------------------------------------
def large(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(INLINE_LIMIT + 1).astype(np.float32)


def module_with(array: np.ndarray):
    module = ModuleOp([])
    op = graph.ConstantOp.of(array, store_of(module), "conv1.weight")
    module.body.block.add_op(op)
    return module


def only_constant(module) -> graph.ConstantOp:
    (op,) = (op for op in module.walk() if isinstance(op, graph.ConstantOp))
    return op


def test_large_constants_lie_beside_the_text(tmp_path):
    array = large()
    module = module_with(array)
    save_module(module, tmp_path / "net.mlir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.mlir", "net.safetensors"]
    text = (tmp_path / "net.mlir").read_text()
    assert '#nacre.store<"net.safetensors">' in text and "dense" not in text
    assert f'#nacre.blob<"conv1.weight", "{digest_of(array)}">' in text
    again = load_module(tmp_path / "net.mlir")
    np.testing.assert_array_equal(only_constant(again).array(), array)
    assert not only_constant(again).array().flags.writeable
    assert print_module(again) == text


def test_saving_leaves_the_module_with_its_own_store(tmp_path):
    module = module_with(large())
    before = store_of(module)
    save_module(module, tmp_path / "net.mlir")
    assert store_of(module) is before and before.path is None


def test_small_constants_need_no_file(tmp_path):
    module = module_with(np.zeros(INLINE_LIMIT, np.float32))
    save_module(module, tmp_path / "net.mlir")
    assert [p.name for p in tmp_path.iterdir()] == ["net.mlir"]
    assert only_constant(load_module(tmp_path / "net.mlir")).array().shape == (INLINE_LIMIT,)


def test_a_missing_blob_is_named(tmp_path):
    save_module(module_with(large()), tmp_path / "net.mlir")
    (tmp_path / "net.safetensors").unlink()
    module = load_module(tmp_path / "net.mlir")  # the text alone is fine
    with pytest.raises(NacreError, match=r"constant [0-9a-f]{12}… is not in '.*net\.safetensors'; keep the"):
        only_constant(module).array()


def test_a_blob_of_a_store_never_saved_is_named():
    text = f'%w = graph.constant #nacre.blob<"w", "{digest_of(large())}"> : tensor<65xf32>'
    module = parse_module(f"builtin.module attributes {{nacre.store = #nacre.store<>}} {{\n{text}\n}}")
    with pytest.raises(NacreError, match="is not in the module's store, which was never saved to a file"):
        only_constant(module).array()


def test_a_file_that_is_no_store_is_named(tmp_path):
    save_module(module_with(large()), tmp_path / "net.mlir")
    (tmp_path / "net.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(NacreError, match=r"net\.safetensors' is not a readable safetensors file"):
        only_constant(load_module(tmp_path / "net.mlir")).array()


def test_a_blob_of_another_type_than_the_text_says_is_named():
    module = module_with(large())
    op = only_constant(module)
    wrong = graph.ConstantOp.create(properties=op.properties, result_types=[tensor((64,), f32)])
    module.body.block.add_op(wrong)
    with pytest.raises(
        NacreError, match=r"'conv1.weight' is float32\[65\] in the store, but float32\[64\] in"
    ):
        wrong.array()


def test_constants_added_to_a_store_on_disk_are_written_at_once(tmp_path):
    save_module(module_with(large()), tmp_path / "net.mlir")
    module = load_module(tmp_path / "net.mlir")
    added = large(1)
    module.body.block.add_op(graph.ConstantOp.of(added, store_of(module), "made.by.a.pass"))
    # what a tool that prints its text and exits leaves behind
    (tmp_path / "after.mlir").write_text(print_module(module))
    again = load_module(tmp_path / "after.mlir")
    arrays = [op.array() for op in again.walk() if isinstance(op, graph.ConstantOp)]
    np.testing.assert_array_equal(arrays[1], added)


def test_equal_arrays_are_kept_once_and_read_only():
    store = Store()
    first, second = large(), large()
    assert store.put(first) == store.put(second)
    with pytest.raises(ValueError, match="read-only"):
        store.get(digest_of(first))[0] = 1


@given(
    st.sampled_from(["f4", "i1", "u1", "i2", "i4", "i8", "?"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_the_identity_of_a_constant_is_type_shape_and_bytes(dtype, shape):
    array = np.zeros(shape, dtype)
    other = np.zeros((*shape, 1), dtype)
    flipped = array.copy()
    flipped.view(np.uint8).reshape(-1)[:1] ^= 1
    digests = {digest_of(array), digest_of(other), digest_of(flipped), digest_of(array.astype("f8"))}
    assert len(digests) == 4
    assert digest_of(array) == digest_of(np.asfortranarray(array))


def test_the_limit_for_inline_constants():
    store = Store()
    assert not isinstance(constant_attribute(np.zeros(INLINE_LIMIT, np.int8), store), BlobAttr)
    assert isinstance(constant_attribute(np.zeros(INLINE_LIMIT + 1, np.int8), store), BlobAttr)


def test_stores_are_relative_to_the_text(tmp_path):
    save_module(module_with(large()), tmp_path / "net.mlir")
    attribute = load_module(tmp_path / "net.mlir").attributes["nacre.store"]
    assert isinstance(attribute, StoreAttr)
    assert attribute.data.path == tmp_path / "net.safetensors"
