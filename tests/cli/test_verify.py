"""`nacre verify`: what holds, and everything that has to fail and name the layer."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nacre
import numpy as np
import onnx
import pytest
from nacre.errors import FileFormatError, InputError
from nacre.frontends.onnx.golden import OnnxGolden
from nacre.runtime.flatfile import open_file, pack
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).parents[3] / "shared" / "models"


def build(rename: Callable[[str], str] = lambda name: name) -> onnx.ModelProto:
    """conv1 bn1 relu1, conv2, add, cat, pool, flat, fc, soft: [1, 3, 10, 10] -> [1, 5]."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(array.astype(np.float32), name)

    def positive(name: str, n: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.uniform(0.5, 1.5, n).astype(np.float32), name)

    def node(op: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
        tensors = [rename(n) if n.endswith("_out") else n for n in inputs]
        return helper.make_node(op, tensors, [rename(f"{name}_out")], name, **attributes)

    nodes = [
        node("Conv", ["image", "w1", "b1"], "conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["conv1_out", "gamma", "beta", "mean", "var"], "bn1"),
        node("Relu", ["bn1_out"], "relu1"),
        node("Conv", ["relu1_out", "w2", "b2"], "conv2", pads=[1, 1, 1, 1]),
        node("Add", ["conv2_out", "relu1_out"], "add"),
        node("Concat", ["add_out", "conv2_out"], "cat", axis=1),
        node("MaxPool", ["cat_out"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pool_out"], "flat"),
        node("Gemm", ["flat_out", "w3", "b3"], "fc"),
        node("Softmax", ["fc_out"], "soft"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 10, 10])],
        [helper.make_tensor_value_info(rename("soft_out"), TensorProto.FLOAT, [1, 5])],
        [
            weight("w1", 8, 3, 3, 3), weight("b1", 8), positive("gamma", 8), weight("beta", 8),
            weight("mean", 8), positive("var", 8), weight("w2", 8, 8, 3, 3), weight("b2", 8),
            weight("w3", 400, 5), weight("b3", 5),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, 3, 10, 10)).astype(np.float32)


class Files(NamedTuple):
    model: Path
    calibration: Path
    samples: Path
    one: Path
    program: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("verify")
    found = Files(*(folder / n for n in ("m.onnx", "cal.npz", "samples.npz", "one.npy", "m.nacre")))
    onnx.save(build(), found.model)
    np.savez(found.calibration, image=images(8, 1))
    np.savez(found.samples, image=images(3, 2))
    np.save(found.one, images(1, 3)[0])
    nacre.compile(found.model, target="tiny", calibration=found.calibration).save(found.program)
    return found


@pytest.fixture
def verify(nacre: Any, files: Files) -> Callable[..., Any]:
    """`nacre verify` of the small model for `tiny`, calibrated."""

    def run(*arguments: object, model: Path = files.model) -> Any:
        return nacre("verify", model, "--target", "tiny", "--calibration", files.calibration, *arguments)

    return run


# --- what holds ------------------------------------------------------------------------------------------
def test_small_model_holds_and_lists_every_tensor(verify: Any, files: Files) -> None:
    result = verify("--samples", files.samples, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["holds"] and found["samples"] == 3 and found["framework"].startswith("onnxruntime")
    assert found["levels"] == ["graph", "qnn", "npu", "program"]
    assert found["profile"]["cycles"] > 0
    rows = {row["tensor"]: row for row in found["tensors"]}
    assert list(rows) == [f"{n.name}_out" for n in build().graph.node]
    for row in rows.values():
        for level in found["levels"]:
            assert level in row["levels"] or row["fused_into"][level], (row["tensor"], level)
    assert rows["conv1_out"]["fused_into"]["program"].split("+") == ["conv1", "bn1", "relu1"]
    equal = {"elements": 15, "differing": 0, "unlike": False}
    assert rows["soft_out"]["bits"] == {"qnn=npu": equal, "npu=program": equal}
    assert rows["cat_out"]["shape"] == [1, 16, 10, 10]
    assert 25 < rows["relu1_out"]["levels"]["program"]["sqnr_db"] < 60
    assert rows["relu1_out"]["levels"]["graph"]["relative"] < 1e-5


def test_table_fits_80_columns(verify: Any, files: Files) -> None:
    result = verify("--input", f"image={files.one}")
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    for node in build().graph.node:
        assert re.search(rf"^{node.name} +{node.name}_out", result.out, re.MULTILINE), node.name
    assert "→ conv1+bn1+relu1" in result.out and re.search(r"^verdict +holds", result.out, re.MULTILINE)


def test_worst_shows_the_lowest_sqnr_first(verify: Any, files: Files) -> None:
    found = json.loads(verify("--samples", files.samples, "--json").out)
    levels = {row["tensor"]: row["levels"] for row in found["tensors"]}
    sqnr = {name: held["program"]["sqnr_db"] for name, held in levels.items() if "program" in held}
    shown = verify("--samples", files.samples, "--worst", 2).out.split("\n\n")[0].splitlines()[1:]
    assert [line.split()[1] for line in shown] == sorted(sqnr, key=sqnr.__getitem__)[:2]


@pytest.mark.parametrize("options", [["--no-fuse"], ["--dtype", "uint8"]])
def test_other_ways_to_compile_hold(verify: Any, files: Files, options: list[str]) -> None:
    result = verify("--samples", files.samples, *options)
    assert result.code == 0, result.err


@pytest.mark.parametrize("target", ["tiny", "cpu"])
def test_float32_is_held_to_the_float_tolerance(nacre: Any, files: Files, target: str) -> None:
    result = nacre("verify", files.model, "--target", target, "--dtype", "float32", "--random", 0, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    row = found["tensors"][-1]
    assert row["levels"]["program"]["relative"] < 1e-3
    assert list(row["bits"].values()) == [{"elements": 5, "differing": 0, "unlike": False}]


def test_own_program_file_holds(verify: Any, files: Files) -> None:
    result = verify("--samples", files.samples, "--program", files.program, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["levels"] == ["graph", "qnn", "program"]


def test_reference_evaluator_serves_aloud_without_onnxruntime(
    verify: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else found(n))
    result = verify("--input", f"image={files.one}", "--json")
    assert result.code == 0, result.err
    assert "onnxruntime is not installed" in result.err
    assert json.loads(result.out)["framework"] == "onnx.reference"


def test_nested_concats_and_portions_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of views are read when they are complete, and a split of the work changes nothing."""
    edges = [
        ("Relu", ["image"], "a", {}), ("Sigmoid", ["image"], "b", {}), ("Tanh", ["a"], "c", {}),
        ("Concat", ["a", "b"], "left", {"axis": 2}), ("Concat", ["c", "b"], "right", {"axis": 2}),
        ("Concat", ["left", "right"], "whole", {"axis": 1}),
        ("MaxPool", ["whole"], "pool", {"kernel_shape": [2, 2]}),
    ]  # fmt: skip
    nodes = [helper.make_node(op, inputs, [name], f"n_{name}", **more) for op, inputs, name, more in edges]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 10, 10])]
    outputs = [helper.make_tensor_value_info("pool", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    samples = {"image": images(2, 0)}

    def figures() -> tuple[object, int]:
        runs = 0
        run = OnnxGolden.run

        def counted(*arguments: Any) -> Any:
            nonlocal runs
            runs += 1
            return run(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OnnxGolden, "run", counted)
            report = nacre.verify(model, samples, target="tiny", calibration=samples)
        assert report.holds, report.failures
        assert all("program" in row.statistics for row in report.rows)
        return report.to_json()["tensors"], runs

    whole, runs = figures()
    assert runs == 2
    monkeypatch.setattr("nacre.backends.verify.PORTION_BYTES", 3000)
    parts, runs = figures()
    assert parts == whole and runs > 6


# --- what has to fail ------------------------------------------------------------------------------------
def edited(files: Files, path: Path, edit: Callable[[dict[str, np.ndarray], np.ndarray], None]) -> Path:
    """The program with changed constants: `edit` gets views of them by name, and all their bytes."""
    file = open_file(files.program)
    sections = {name: np.array(content) for name, content in file.sections.items()}
    views = {}
    for label, (_, address, shape, _, element) in json.loads(bytes(sections["debug"]))["constants"]:
        from nacre.dialects.types import dtype_of
        from nacre.runtime.isa import ELEMENTS

        views[label] = np.ndarray(shape, dtype_of(ELEMENTS[element]), sections["constants"].data, address)
    edit(views, sections["constants"])
    path.write_bytes(pack(file.family, sections))
    return path


@pytest.mark.parametrize(
    ("constant", "layers"), [("w1", "conv1+bn1+relu1"), ("w2", "conv2"), ("w3", "fc")]
)
def test_changed_weight_names_exactly_its_layer(
    verify: Any, files: Files, tmp_path: Path, constant: str, layers: str
) -> None:
    def flip(views: dict[str, np.ndarray], _: np.ndarray) -> None:
        views[constant].reshape(-1)[: views[constant].size // 2] ^= 0x55

    program = edited(files, tmp_path / "edited.nacre", flip)
    result = verify("--samples", files.samples, "--program", program)
    assert result.code == 1
    assert re.findall(r"different bits first in layer '([^']*)'", result.err) == [layers]


def test_swapped_weights_name_their_layer(verify: Any, files: Files, tmp_path: Path) -> None:
    def swap(views: dict[str, np.ndarray], _: np.ndarray) -> None:
        weights = views["w2"]
        weights[...] = weights[::-1].copy() if weights.shape[0] == 8 else weights[..., ::-1].copy()

    program = edited(files, tmp_path / "edited.nacre", swap)
    result = verify("--samples", files.samples, "--program", program)
    assert result.code == 1
    assert re.findall(r"different bits first in layer '([^']*)'", result.err) == ["conv2"]


def test_changed_byte_with_a_stale_checksum_is_refused(files: Files, tmp_path: Path) -> None:
    file = open_file(files.program)
    content = bytearray(files.program.read_bytes())
    offset = file.sections["constants"].ctypes.data - file.data.ctypes.data
    content[offset] ^= 1
    damaged = tmp_path / "damaged.nacre"
    damaged.write_bytes(content)
    with pytest.raises(FileFormatError, match="constants"):
        nacre.verify(files.model, files.samples, program=damaged, dtype="float32")


def test_renamed_model_compares_nothing_and_fails(verify: Any, files: Files, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.onnx"
    onnx.save(build(lambda name: f"other/{name}"), renamed)
    result = verify("--samples", files.samples, "--program", files.program, model=renamed)
    assert result.code == 1
    assert "nothing could be compared: the program level" in result.err
    assert verify("--samples", files.samples, model=renamed).code == 0  # its own program is another matter


def test_renamed_output_alone_fails(verify: Any, files: Files, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.onnx"
    onnx.save(build(lambda name: "probabilities" if name == "soft_out" else name), renamed)
    result = verify("--samples", files.samples, "--program", files.program, model=renamed)
    assert result.code == 1
    assert "'probabilities' could not be compared: it does not exist at the program level" in result.err


def test_program_of_other_weights_fails(verify: Any, files: Files, tmp_path: Path) -> None:
    model = build()
    bias = next(t for t in model.graph.initializer if t.name == "b2")
    swapped = numpy_helper.to_array(bias)[::-1]
    bias.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(swapped), "b2"))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    result = verify("--samples", files.samples, "--program", files.program, model=other)
    assert result.code == 1
    assert "different bits first in layer 'conv2'" in result.err


def test_wrong_calibration_fails_and_names_the_first_bad_layer(files: Files) -> None:
    report = nacre.verify(
        files.model, files.samples, target="tiny", calibration={"image": images(8, 1) * np.float32(0.02)}
    )
    assert not report.holds
    assert any("the output 'soft_out' has an SQNR of" in text for text in report.failures)
    assert any("first bad layer is 'conv1+bn1+relu1'" in text for text in report.failures)
    assert not any("bits" in text for text in report.failures)  # all levels are wrong alike


def test_sqnr_asked_for_is_a_threshold(verify: Any, files: Files) -> None:
    result = verify("--samples", files.samples, "--min-sqnr", 90)
    assert result.code == 1
    assert "90 dB are asked for (at the levels qnn, npu, program)" in result.err


def test_wrong_kernel_at_graph_level_names_its_layer(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from nacre.dialects import graph
    from nacre.runtime.kernel import KERNELS

    right = KERNELS[graph.MaxPoolOp]
    monkeypatch.setitem(KERNELS, graph.MaxPoolOp, lambda *a: right(*a) * np.float32(1.01))  # type: ignore[misc]
    report = nacre.verify(files.model, files.samples, target="tiny", dtype="float32")
    assert [t for t in report.failures if "graph level differs from onnxruntime" in t and "layer 'pool'" in t]


def test_other_inputs_are_refused(files: Files, tmp_path: Path) -> None:
    model = build()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 12
    del model.graph.node[7:]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("pool_out", TensorProto.FLOAT, None))
    big = {"image": np.zeros((1, 3, 12, 12), np.float32)}
    with pytest.raises(InputError, match="is no program of this model: its inputs are image"):
        nacre.verify(model, big, program=files.program, target="tiny", calibration=[big])


def test_other_shapes_fail_and_are_not_cropped(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxGolden.run

    def longer(*arguments: Any) -> dict[str, np.ndarray]:
        found = run(*arguments)
        return found | {"pool_out": np.concatenate([found["pool_out"]] * 2, axis=1)}

    monkeypatch.setattr(OnnxGolden, "run", longer)
    report = nacre.verify(files.model, files.samples, target="tiny", dtype="float32")
    assert "'pool_out' (layer 'pool') is [1, 32, 5, 5] in the source, but [1, 16, 5, 5]" in report.failures[0]


# --- usage -----------------------------------------------------------------------------------------------
def test_inputs_are_asked_for(verify: Any, files: Files) -> None:
    with pytest.raises(SystemExit) as left:
        verify()
    assert left.value.code == 2
    with pytest.raises(InputError, match="needs inputs"):
        nacre.verify(files.model)
    assert verify("--samples", files.samples, "--worst", 0).code == 1


def test_samples_are_checked(verify: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", other=np.zeros((1, 3, 9, 9), np.float32))
    result = verify("--samples", tmp_path / "wrong.npz")
    assert result.code == 1 and "sample 0: the input 'image' should be float32[1, 3, 10, 10]" in result.err


def test_text_and_programs_have_no_source_framework(nacre: Any, files: Files) -> None:
    result = nacre("verify", files.program, "--random", 0)
    assert result.code == 1 and ".tflite model, and the program with --program" in result.err


def test_plot(verify: Any, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "sqnr.png"
    result = verify("--samples", files.samples, "--plot", path)
    if importlib.util.find_spec("matplotlib") is None:
        assert result.code == 1 and "nacre[plot]" in result.err and not path.exists()
    else:
        assert result.code == 0 and path.read_bytes().startswith(b"\x89PNG")


# --- trained networks ------------------------------------------------------------------------------------
@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models are not here")
@pytest.mark.parametrize("target", ["tiny", "v853"])
@pytest.mark.parametrize(("model", "scale"), [("mnist_cnn", 1.0), ("mlperf_ic_resnet8", 60.0)])
def test_trained_networks_hold(model: str, scale: float, target: str) -> None:
    path = MODELS / f"{model}.onnx"
    (graph_input,) = onnx.load(path).graph.input[:1]
    shape = [d.dim_value or 1 for d in graph_input.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    smooth = [rng.standard_normal(shape).cumsum(2).cumsum(3) for _ in range(6)]
    samples = [{graph_input.name: (x / np.abs(x).max() * scale * 2).astype(np.float32)} for x in smooth]
    report = nacre.verify(path, samples[3:], target=target, calibration=samples)
    assert report.holds, report.failures
    for row in report.rows:
        for level in report.levels:
            assert level in row.statistics or row.fused[level], (row.tensor, level)
    assert sum("program" in row.statistics for row in report.rows) >= 3


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models are not here")
def test_quantised_tflite_is_held_to_equality() -> None:
    pytest.importorskip("ai_edge_litert")
    path = MODELS / "mlperf_ic_resnet8_int8.tflite"
    image = np.random.default_rng(0).integers(-128, 128, (1, 32, 32, 3)).astype(np.int8)
    report = nacre.verify(path, {"input_1_int8": image}, target="v853")
    assert report.holds, report.failures
    assert report.integers and report.framework.startswith("LiteRT")
    for row in report.rows:
        assert all(s.equal == 1.0 for s in row.statistics.values()), row.tensor
        assert "program" in row.statistics or row.fused["program"], row.tensor


# --- layers that stay float between integers -------------------------------------------------------------
def float_conv_model() -> onnx.ModelProto:
    """conv1 (int8), conv2 whose weights are an input (float), relu2, conv3 (int8); `side` is conv1's alone."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / 5).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "filters"], ["b"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["c"], "relu2"),
        helper.make_node("Conv", ["c", "w3"], ["y"], "conv3"),
        helper.make_node("Sigmoid", ["a"], ["side"], "sigmoid"),
    ]
    inputs = {"image": [1, 3, 10, 10], "filters": [16, 16, 3, 3]}
    graph = helper.make_graph(
        nodes, "float_conv",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "side")],
        [weight("w1", 16, 3, 3, 3), weight("w3", 8, 16, 1, 1)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def filtered(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shapes = {"image": (1, 3, 10, 10), "filters": (16, 16, 3, 3)}
    return [{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(count)]


@pytest.mark.parametrize("target", ["tiny", "v853"])
def test_float_layer_between_integers_is_held_to_a_tolerance(target: str) -> None:
    report = nacre.verify(float_conv_model(), filtered(3, 1), target=target, calibration=filtered(6, 0))
    assert report.holds, report.failures
    rows = {row.tensor.name: row for row in report.rows}
    assert any(row.bits.get(("qnn", "npu")) and row.bits["qnn", "npu"].differing for row in rows.values())
    assert {"c", "y"} <= set(report.loose) and not {"a", "side"} & set(report.loose)
    assert rows["side"].bits["qnn", "npu"].differing == 0
    assert all(row.bits["npu", "program"].differing == 0 for row in rows.values() if row.bits)


@pytest.mark.parametrize(("share", "holds"), [(1e-6, True), (0.01, False)])
def test_float_layer_off_by_more_than_rounding_fails(
    monkeypatch: pytest.MonkeyPatch, share: float, holds: bool
) -> None:
    from nacre.passes.npu.soft_kernels import SOFT_KERNELS, SoftKernel

    class Off(SoftKernel):
        def text(self) -> str:
            return super().text().replace("y[at] = total;", f"y[at] = total * {1 + share}f;")

    right = SOFT_KERNELS["ppu.conv"]
    monkeypatch.setitem(SOFT_KERNELS, "ppu.conv", Off(**vars(right)))
    report = nacre.verify(float_conv_model(), filtered(2, 1), target="tiny", calibration=filtered(6, 0))
    found = re.findall(r"qnn and npu give different bits first in layer '([^']*)'", str(report.failures))
    assert found == ([] if holds else ["conv2"]), report.failures


def test_loose_tensors_stay_exact_between_npu_and_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from nacre.backends.npu.family import NpuExecutor

    collect = NpuExecutor.collect

    def nudged(*arguments: Any) -> Any:
        level = collect(*arguments)
        for held in level.held.get("y", []):
            held.stored.reshape(-1)[:1] += 1 if held.stored.dtype.kind == "i" else np.float32(1e-6)
        return level

    monkeypatch.setattr(NpuExecutor, "collect", nudged)
    report = nacre.verify(float_conv_model(), filtered(1, 1), target="tiny", calibration=filtered(6, 0))
    assert any("npu and program give different bits first in layer 'conv3'" in f for f in report.failures)
