"""Mixed precision: layers of one network in different types, end to end and at the qnn level."""

from __future__ import annotations

import nacre
import numpy as np
import onnx
import onnxruntime
import pytest
from nacre.dialects.nacre import sources_of
from nacre.errors import CompileError, InputError
from nacre.passes.quantise.report import layer_rows, share_by_type
from nacre.runtime.interpreter import interpret
from onnx import TensorProto, helper, numpy_helper

TYPES = ("int8", "uint8", "int16", "int16x8", "float32")
LAYERS = ("conv1", "relu1", "conv2", "skip", "pool", "flat", "fc", "prob")
SHAPE = [1, 3, 12, 12]


@pytest.fixture(scope="module", name="model")
def model_fixture() -> onnx.ModelProto:
    """conv1, relu1, conv2, skip (an addition), pool, flat, fc, prob (softmax)."""
    rng = np.random.default_rng(5)
    arrays = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)), "b1": rng.normal(0, 0.5, 8), "w2": rng.normal(0, 0.2, (8, 8, 3, 3)),
        "w3": rng.normal(0, 0.15, (288, 10)), "b3": rng.normal(0, 0.5, 10),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "skip"),
        helper.make_node("MaxPool", ["a"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["l"], "fc"),
        helper.make_node("Softmax", ["l"], ["y"], "prob"),
    ]
    held = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(count)]


def compiled(model, table, stop_after="qnn", **options):
    return nacre.compile(model, calibration=samples(8), quant_table=table, stop_after=stop_after, **options)


def sqnr(model, module) -> float:
    """dB of a module's outputs against ONNX Runtime's."""
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    signal = noise = 0.0
    for feeds in samples(8, 1):
        [want], [have] = oracle.run(None, feeds), interpret(module, feeds).values()
        signal, noise = signal + np.square(want).sum(), noise + np.square(want - have).sum()
    return float(10 * np.log10(signal / noise))


def types_of(module) -> dict[str, str]:
    """The type of each source layer; a fused one has that of what took it in."""
    return {part: row.type for row in layer_rows(module) for part in row.layer.split("+")}


@pytest.mark.parametrize("seed", range(12))
def test_any_layer_may_have_any_type(model, seed):
    """Random tables: every layer has the type asked for, and the network still computes the same thing."""
    rng = np.random.default_rng(seed)
    wanted = {layer: str(rng.choice(TYPES)) for layer in LAYERS}
    module = compiled(model, {"layers": wanted}).levels["qnn"]
    found = types_of(module)
    for layer in ("conv1", "conv2", "fc"):
        assert found[layer] == wanted[layer], layer
    for layer in ("skip", "pool", "flat", "prob"):
        assert found[layer] == wanted[layer].removesuffix("x8"), layer
    assert sqnr(model, module) > 20


def test_more_bits_where_it_matters(model):
    """int8 alone is the worst, float32 alone the best, and what lies between lies between."""
    tables = [{}, {"layers": {"prob": "float32", "fc": "int16"}}, {"default": "int16"}, {"default": "float32"}]
    first = [sqnr(model, compiled(model, t).levels["qnn"]) for t in tables[:-1]]
    whole = nacre.compile(model, quant_table=tables[-1], target="cpu").levels["graph"]
    assert first[0] + 3 < first[1] < first[2] - 10 and sqnr(model, whole) > 100, first


def test_reasons_and_shares(model):
    named = {"conv2": {"type": "float32", "why": "sensitive"}}
    module = compiled(model, {"layers": named, "types": {"graph.softmax": "float32"}})
    rows = {row.layer: row for row in layer_rows(module.levels["qnn"])}
    assert rows["conv2"][2:] == ("float32", "sensitive", 12 * 12 * 9 * 8 * 8)
    assert rows["prob"][2:4] == ("float32", "quant table") and rows["fc"][2:] == ("int8", "", 2880)
    shares = share_by_type(list(rows.values()))
    share = 12 * 12 * 9 * 8 * 8 / (12 * 12 * 9 * 8 * (3 + 8) + 2880)
    assert shares == {"float32": pytest.approx(share), "int8": pytest.approx(1 - share)}


def test_a_table_with_all_ranges_needs_no_calibration(model, tmp_path):
    used = compiled(model, {"layers": {"conv2": "int16"}}).report["quant_table"]
    (tmp_path / "t.yaml").write_text(used)
    again = nacre.compile(model, quant_table=tmp_path / "t.yaml", stop_after="qnn")
    assert again.report["quant_table"] == used
    with pytest.raises(CompileError, match=r"has no calibrated range; run calibration .* or name a range"):
        nacre.compile(model, quant_table={"tensors": {"x": {"min": -3, "max": 3}}}, stop_after="qnn")
    with pytest.raises(CompileError, match="needs calibration data"):
        nacre.compile(model, quant_table={"layers": {"conv2": "int16"}}, stop_after="qnn")


def test_a_scale_of_its_own_keeps_a_tensor_apart_from_the_activation_behind(model):
    """Without one the convolution saturates as the relu does and holds only what that leaves."""
    for table, expected in ({}, {"r1"}), ({"tensors": {"c1": {"scale": 0.1}}}, {"c1"}):
        module = compiled(model, table).levels["qnn"]
        conv = next(op for op in module.walk() if op.name == "qnn.conv")
        assert {s.tensor for s in sources_of(conv.results[0])} == expected


def test_one_integer_layer_among_floats(model):
    module = compiled(model, {"default": "float32", "layers": {"conv2": "int8"}}).levels["qnn"]
    assert {k: t for k, t in types_of(module).items() if t != "float32"} == {"conv2": "int8"}
    names = [op.name for op in module.walk() if op.name.startswith(("qnn", "quant"))]
    assert names == ["quant.qcast", "qnn.conv", "quant.dcast"]


def test_tables_that_do_not_fit(model, tmp_path):
    with pytest.raises(InputError, match=r"its default is int8, but dtype int16 is asked for as well"):
        compiled(model, {"default": "int8"}, dtype="int16")
    quantised = nacre.compile(model, calibration=samples(2), stop_after="qnn").levels["qnn"]
    with pytest.raises(InputError, match=r"a quantisation table is for float models, and this one is quantised"):
        nacre.compile(quantised, quant_table={"default": "int8"})
    from importlib import resources

    text = (resources.files("nacre.runtime") / "machines" / "tiny.toml").read_text()
    small = tmp_path / "small.toml"
    small.write_text(text.replace('["uint8", "int8", "int16"]', '["int8"]'))
    with pytest.raises(CompileError, match=r"layers\.conv2 is int16, but '.*small\.toml' does not compute in it; it"):
        compiled(model, {"layers": {"conv2": "int16"}}, target=str(small))


@pytest.mark.parametrize("target", ["tiny", "v853"])
@pytest.mark.parametrize(
    "table",
    [
        {"layers": {"conv2": "float32", "prob": "float32"}},
        {"layers": {"conv1": "int16", "fc": "int16x8", "skip": "uint8"}},
        {"default": "float32", "layers": {"conv*": "int8"}},
    ],
)
def test_on_the_emulator(model, table, target):
    """The program gives what the qnn level gives; behind a float convolution, but for the order of its sums."""
    program = compiled(model, table, stop_after=None, target=target)
    session = nacre.Session(program, sanitize=True)
    for feeds in samples(2, 2):
        [have], [want] = session.run(None, feeds), interpret(program.levels["qnn"], feeds).values()
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


def test_the_table_used_gives_the_same_bytes(model, tmp_path):
    for index, table in enumerate([{}, {"layers": {"conv2": "float32", "fc": "int16"}}, {"default": "uint8"}]):
        first = compiled(model, table, stop_after=None, target="tiny")
        path = tmp_path / f"{index}.yaml"
        path.write_text(first.report["quant_table"])
        again = nacre.compile(model, quant_table=path, target="tiny")
        assert again.to_bytes() == first.to_bytes()
