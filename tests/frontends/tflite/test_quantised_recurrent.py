"""Integer LSTMs at random against LiteRT's reference kernel, run after run: outputs and states, bit for bit.

The quick tests compare some hundred outputs of each variant, the slow ones SLOW in all, on the emulator too. The last
section breaks every rule of rounding and saturation once and sees it caught.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from nacre.backends.compile import compile
from nacre.backends.session import Session
from nacre.dialects.nacre import initial_states
from nacre.dialects.quant import storage_range
from nacre.dialects.rounding import Rounding
from nacre.dialects.text import parse_module, print_module
from nacre.dialects.types import i16, i32
from nacre.errors import ImportFailed, MachineError
from nacre.frontends.tflite import import_tflite
from nacre.frontends.tflite import quantised_recurrent as importer
from nacre.frontends.tflite.build import Operator, Tensor, build_model
from nacre.frontends.tflite.golden import interpreter_of
from nacre.frontends.tflite.quantised_recurrent import clip_of
from nacre.runtime.interpreter import interpret
from nacre.runtime.kernels import quantised_recurrent as kernels

SLOW, FILES = 40_000, 30
RUNS = 2
TANH, RELU = 4, 1


class Variant(NamedTuple):
    """What an LSTM has besides its gates; `coupled`: the input gate is 1 − forget gate (CIFG)."""

    coupled: bool = False
    peepholes: bool = False
    project: bool = False
    norm: bool = False

    def __str__(self) -> str:
        return "-".join(name for name, there in self._asdict().items() if there) or "plain"


VARIANTS = [Variant(*v) for v in itertools.product([False, True], repeat=4)]


# --- files -----------------------------------------------------------------------------------------------
class Draw:
    """A file of one integer LSTM, and what is random in it."""

    def __init__(self, seed: int, variant: Variant = Variant(), *, larger: int = 1, **given: Any):  # noqa: B008
        self.rng = np.random.default_rng([seed, *map(int, variant)])
        self.variant = variant
        whole = self.rng.integers
        self.steps, self.batch = int(whole(1, 5)), int(whole(1, 4))
        self.inputs, self.hidden = int(whole(1, 24)), int(whole(1, 24 * larger))
        self.output = int(whole(1, (1 if variant.peepholes else 2) * self.hidden + 1))
        self.time_major = bool(whole(2))
        self.cell_bits = int(whole(0, 7))
        self.cell_clip = float(self.rng.choice([0.0, 0.0, 0.3, 0.9])) * 2.0**self.cell_bits
        self.proj_clip = float(self.rng.choice([0.0, 0.3])) if variant.project else 0.0
        self.zero_hidden = int(whole(-127, 128))
        self.activation, self.twenty, self.other_output = TANH, not variant.norm, False
        self.bias, self.norm_scale, self.unit = 1.0, 1 / 32767, 3 / 16000
        for name, value in given.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        if not variant.project:
            self.output = self.hidden
        self.tensors: list[Tensor] = []
        self.names: list[str | None] = []

    def near(self, real: float, spread: float = 1.5) -> float:
        """A scale around a real."""
        return float(np.float32(real * np.exp(self.rng.uniform(-spread, spread))))

    def zero(self) -> int:
        return int(self.rng.integers(-128, 128))

    def add(self, name: str, *shape: int, there: bool = True, dtype: Any, scale: float | None = None, **given: Any):
        """An input of the operator; weights and biases are drawn unless given."""
        self.names.append(name if there else None)
        if there:
            self.tensors.append(Tensor(name, shape, dtype, scale, **given))

    def integers(self, dtype: Any, *shape: int) -> np.ndarray:
        info = np.iinfo(dtype)
        return self.rng.integers(-info.max, info.max + 1, shape).astype(dtype)

    def weights(self, prefix: str, rows: int, columns: int, operand: float) -> dict[str, float]:
        """A matrix a gate, in scales that make sums of some ±3; gives the scales."""
        scales = {}
        for gate in "ifco":
            scales[gate] = self.near(3 / (5400 * np.sqrt(columns) * operand))
            there = gate != "i" or not self.variant.coupled
            data = self.integers(np.int8, rows, columns)
            self.add(f"{prefix}{gate}", rows, columns, there=there, dtype=np.int8, scale=scales[gate], data=data)
        return scales

    def content(self) -> bytes:
        """The file's bytes."""
        return build_model(*self.model())

    def model(self) -> tuple[list[Tensor], list[Operator], list[str], list[str]]:
        """What the file is made of."""
        v, hidden, out = self.variant, self.hidden, self.output
        x = (self.steps, self.batch, self.inputs) if self.time_major else (self.batch, self.steps, self.inputs)
        cell, scale_x, scale_y = 2.0 ** (self.cell_bits - 15), self.near(0.02), self.near(1 / 128)
        self.add("x", *x, dtype=np.int8, scale=scale_x, zero=self.zero())
        scales = self.weights("w", hidden, self.inputs, scale_x)
        self.weights("r", hidden, out, scale_y)
        for gate in "ifo":
            there = v.peepholes and (gate != "i" or not v.coupled)
            data = self.integers(np.int16, hidden)
            scale = self.near(1 / (16000 * 2.0**self.cell_bits))
            self.add(f"p{gate}", hidden, there=there, dtype=np.int16, scale=scale, data=data)
        norms = {gate: self.near(self.norm_scale) for gate in "ifco"}
        for gate in "ifco":
            scale = norms[gate] / 1024 if v.norm else scales[gate] * scale_x
            bias = np.clip(self.rng.normal(0, self.bias, hidden) / scale, -(2**31), 2**31 - 1).astype(np.int32)
            there = gate != "i" or not v.coupled
            self.add(f"b{gate}", hidden, there=there, dtype=np.int32, scale=scale, data=bias)
        scale_h = self.near(1 / 128)
        scale = self.near(scale_y / (74 * np.sqrt(hidden) * scale_h))
        data = self.integers(np.int8, out, hidden)
        self.add("projection", out, hidden, there=v.project, dtype=np.int8, scale=scale, data=data)
        bias = self.rng.integers(-3000, 3000, out).astype(np.int32)
        self.add("projection bias", out, there=v.project and bool(self.rng.integers(2)), dtype=np.int32, data=bias)
        zero_y = self.zero()
        self.add("h state", self.batch, out, dtype=np.int8, scale=scale_y, zero=zero_y, variable=True)
        self.add("c state", self.batch, hidden, dtype=np.int16, scale=cell, variable=True)
        if not self.twenty:
            for gate in "ifco":
                there = v.norm and (gate != "i" or not v.coupled)
                data = (self.integers(np.int16, hidden) / (32767 * self.norm_scale)).astype(np.int16)
                self.add(f"n{gate}", hidden, there=there, dtype=np.int16, scale=norms[gate], data=data)
        inside = [Tensor(f"inside {i}", (1,), np.int16, self.near(self.unit) if v.norm else None) for i in range(4)]
        inside.append(Tensor("hidden", (1,), np.int8, scale_h, self.zero_hidden))
        y = Tensor("y", (*x[:2], out), np.int8, scale_y * (1 + self.other_output), zero_y)
        fields = {
            "FusedActivationFunction": self.activation, "CellClip": self.cell_clip, "ProjClip": self.proj_clip,
            "TimeMajor": self.time_major,
        }  # fmt: skip
        operator = Operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM", self.names, ["y"], "UnidirectionalSequenceLSTMOptions", fields, 3,
            [t.name for t in inside],
        )  # fmt: skip
        return [*self.tensors, *inside, y], [operator], ["x"], ["y"]

    def feeds(self, runs: int = RUNS) -> list[dict[str, np.ndarray]]:
        """Sequences for some runs."""
        shape = self.tensors[0].shape
        return [{"x": self.rng.integers(-128, 128, shape).astype(np.int8)} for _ in range(runs)]


# --- both sides ------------------------------------------------------------------------------------------
def of_litert(content: bytes, feeds: list[Mapping[str, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Output and cell state of each run in turn, and of the first one again behind a reset."""
    _, litert = interpreter_of(content)
    litert.allocate_tensors()
    cell = next(t["index"] for t in litert.get_tensor_details() if t["name"] == "c state")
    for i, feed in enumerate([*feeds, feeds[0]]):
        if i == len(feeds):
            litert.reset_all_variables()
        litert.set_tensor(litert.get_input_details()[0]["index"], feed["x"])
        litert.invoke()
        yield litert.get_tensor(litert.get_output_details()[0]["index"]), litert.get_tensor(cell)


def compare(draw: Draw) -> int:
    """qnn level and LiteRT agree in outputs and cell states; gives the number of outputs."""
    content = draw.content()
    feeds = draw.feeds()
    module = import_tflite(content)
    states, compared = initial_states(module), 0
    for i, (feed, (y, c)) in enumerate(zip([*feeds, feeds[0]], of_litert(content, feeds), strict=True)):
        if i == len(feeds):
            states = initial_states(module)
        found = interpret(module, feed, states=states)["y"]
        np.testing.assert_array_equal(found, y, err_msg=f"run {i}")
        np.testing.assert_array_equal(states["c state"], c, err_msg=f"run {i}")
        compared += y.size
    return compared


def compare_on_both(draw: Draw, target: str) -> int:
    """The emulator too, run after run; gives the number of outputs."""
    content = draw.content()
    feeds = draw.feeds()
    session, compared = Session(compile(content, target=target), sanitize=True), 0
    for i, (feed, (y, _)) in enumerate(zip([*feeds, feeds[0]], of_litert(content, feeds), strict=True)):
        if i == len(feeds):
            session.reset()
        np.testing.assert_array_equal(session.run(None, feed)[0], y, err_msg=f"run {i}")
        compared += y.size
    return compared


# --- agreement -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variant(variant):
    assert sum(compare(Draw(seed, variant)) for seed in range(6)) > 200


def in_depth(variant: Variant) -> tuple[int, int]:
    """How many outputs of how many files agree: a share of SLOW, and FILES at least."""
    compared = files = 0
    while compared < SLOW // len(VARIANTS) or files < FILES:
        compared += compare(Draw(100 + files, variant, larger=4))
        files += 1
    return compared, files


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variant_in_depth(variant):
    compared, files = in_depth(variant)
    assert compared >= SLOW // len(VARIANTS) and files >= FILES


@pytest.mark.parametrize("target", ["v853", "tiny"])
@pytest.mark.parametrize("variant", [Variant(peepholes=True), Variant(coupled=True, project=True, norm=True)], ids=str)
def test_variant_on_the_emulator(variant, target):
    assert compare_on_both(Draw(3, variant, steps=2), target) > 10


@pytest.mark.slow
@pytest.mark.parametrize("target", ["v853", "tiny"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variant_on_the_emulator_in_depth(variant, target):
    assert sum(compare_on_both(Draw(seed, variant, larger=2), target) for seed in range(3)) > 90


@pytest.mark.parametrize("variant", [Variant(peepholes=True), Variant(norm=True, peepholes=True)], ids=str)
def test_tiles(variant):
    """Columns of a step, or rows where they are normalised, do not fit the memory of 8 KiB at once."""
    size = 96 if variant.norm else 160
    draw = Draw(0, variant, inputs=10, hidden=size, batch=3, steps=2, time_major=True)
    assert compare_on_both(draw, "tiny") == 3 * 3 * 2 * size


@pytest.mark.parametrize(
    "given_", [{"activation": RELU}, {"twenty": False}, {"other_output": True}, {"time_major": True, "batch": 3}]
)
def test_what_makes_no_difference_to_litert(given_):
    """Another activation, absent layer norms among the inputs, another scale of the output than of its state."""
    for seed in range(4):
        compare(Draw(seed, **given_))


@pytest.mark.parametrize("time_major", [False, True])
def test_peepholes_beside_a_projection(time_major):
    """LiteRT walks through the cell state in rows of the output's size."""
    variant = Variant(peepholes=True, project=True)
    compare(Draw(1, variant, hidden=7, output=3, batch=3, time_major=time_major))
    compare(Draw(1, variant, hidden=7, output=7, batch=3, time_major=time_major))


def test_biases_beyond_32_bits_of_a_layer_norm():
    """LiteRT's sum of coefficient and bias has 64 bits."""
    draw = Draw(0, Variant(norm=True), hidden=20, bias=99.0)
    compare(draw)
    assert max(np.abs(t.data.astype(np.int64)).max() for t in draw.tensors if t.name[0] == "b") == 2**31


@pytest.mark.parametrize("guard", [10000, 2])
def test_the_guard_of_a_layer_norm(monkeypatch, guard):
    """It counts in rows of a few steps, whose variance is below 1; another one shows."""
    monkeypatch.setattr(importer, "GUARD", np.float32(guard))
    draws = [Draw(seed, Variant(norm=True), norm_scale=0.02, unit=3.0, hidden=4) for seed in range(20)]
    if guard == 10000:
        assert sum(map(compare, draws)) > 500
        return
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        for draw in draws:
            compare(draw)


def test_states():
    """The output's state begins as its zero point, as LiteRT resets int8 variables; the module's text holds both."""
    draw = Draw(2, Variant(norm=True, peepholes=True), hidden=2, inputs=2)
    content = draw.content()
    module = import_tflite(content)
    states = initial_states(module)
    zero = next(t.zero for t in draw.tensors if t.name == "h state")
    assert zero != 0 and (states["h state"] == zero).all() and (states["c state"] == 0).all()
    text = print_module(module)
    assert text.count("qnn.norm_lstm_cell") == draw.steps and text.count("nacre.write_state") == 2
    assert print_module(parse_module(text)) == text


# --- refusals --------------------------------------------------------------------------------------------
def changed(draw: Draw, **tensors: dict[str, Any]) -> bytes:
    """The file with other fields of some tensors; spaces in names are underscores here."""

    def change(tensor: Tensor) -> Tensor:
        fields = dict(tensors.get(tensor.name.replace(" ", "_"), {}))
        if "dtype" in fields and tensor.data is not None:
            fields["data"] = tensor.data.astype(fields["dtype"])
        return tensor._replace(**fields)

    given, *rest = draw.model()
    return build_model([change(t) for t in given], *rest)


@pytest.mark.parametrize(
    ("variant", "given_", "tensors", "words"),
    [
        (Variant(), {}, {"x": {"dtype": np.int16, "zero": 0}}, "its sequence is int16.* LiteRT computes int8 with"),
        (Variant(), {}, {"c_state": {"dtype": np.int8}}, "states int8 and int8; LiteRT computes"),
        (Variant(), {}, {"c_state": {"zero": 3}}, "zero point 3; int16 is symmetric"),
        (Variant(), {}, {"c_state": {"scale": 0.001}}, "LiteRT's tanh takes the powers of two from 2.-15 to 2.-9"),
        (Variant(), {}, {"c_state": {"scale": 2.0**-8}}, "LiteRT's tanh takes the powers of two"),
        (Variant(), {}, {"wf": {"zero": 3}}, "'wf' is int8 .* zero point 3; here it is a symmetric i8"),
        (Variant(), {"hidden": 3}, {"rc": {"scale": [0.1, 0.2, 0.3]}}, "'rc' has one scale a channel"),
        (Variant(), {}, {"bc": {"dtype": np.float32}}, "'bc' is f32, and not i32"),
        (Variant(peepholes=True), {}, {"pf": {"dtype": np.int8}}, "'pf' is int8 .* a symmetric i16"),
        (Variant(), {}, {"hidden": {"scale": None}}, "intermediate tensor 4 has no scale and zero point"),
        (Variant(norm=True), {}, {"inside_2": {"scale": None}}, "intermediate tensor 2 has no scale"),
        (Variant(project=True), {"zero_hidden": -128}, {}, "the zero point -128, and LiteRT's has the negative"),
        (Variant(project=True, peepholes=True), {"hidden": 3, "output": 4}, {}, "4 elements of 3, and LiteRT reads as"),
        (Variant(), {"steps": 1001, "batch": 1}, {}, "1001 steps, and 1 to 1000 can be unrolled"),
    ],
)
def test_what_is_refused(variant, given_, tensors, words):
    with pytest.raises(ImportFailed, match=f"layer 'y'.*{words}"):
        import_tflite(changed(Draw(0, variant, **given_), **tensors))


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(MachineError, match="layer 'y': the smallest tile takes 31808 bytes of SRAM"):
        compile(Draw(0, Variant(norm=True), hidden=600, inputs=2, batch=1).content(), target="tiny")


# --- broken rules ----------------------------------------------------------------------------------------
def wrapped(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).astype(np.int16).astype(np.int64)


def ties_up(x: np.ndarray, exponent: int) -> np.ndarray:
    return (np.asarray(x, np.int64) + (1 << exponent >> 1)) >> exponent


def cut(acc: np.ndarray, multiplier: Any, shift: Any, rounding: Rounding) -> np.ndarray:
    """No rounding at all."""
    return (np.asarray(acc, np.int64) * multiplier) >> (31 - shift)


def wider(node: Any, option: str, type_: Any, storage: Any) -> int:
    """A clip one step wider."""
    clip = clip_of(node, option, type_, storage)
    return clip + 1 if clip else 0


def narrow_range(storage: Any) -> tuple[int, int]:
    """int32 saturates as int16 does."""
    return storage_range(i16 if storage == i32 else storage)


def rounded_down(a: np.ndarray, b: int) -> np.ndarray:
    """The mean rounded down, not towards zero."""
    return np.asarray(a) // b


BROKEN: list[tuple[Variant, Any, str, Any]] = [
    (Variant(peepholes=True), kernels, "saturated", wrapped),
    (Variant(), kernels, "rounding_divide_by_power_of_two", ties_up),
    (Variant(peepholes=True), kernels, "requantise", cut),
    (Variant(norm=True), kernels, "quotient", rounded_down),
    (Variant(), kernels, "raised", lambda x, bits: x << bits),
    (Variant(), kernels, "multiplied", lambda a, b: (a * b) >> 15),
    (Variant(), importer, "Rounding", SimpleNamespace(DOUBLE=Rounding.SINGLE)),
    (Variant(), importer, "storage_range", narrow_range),
    (Variant(), importer, "clip_of", wider),
]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "module", "name", "instead"), BROKEN, ids=[b[2] for b in BROKEN])
def test_a_broken_rule_shows(monkeypatch, variant, module, name, instead):
    monkeypatch.setattr(module, name, instead)
    for table in (kernels.sigmoid_table, kernels.tanh_table):
        table.cache_clear()
    try:
        with pytest.raises(AssertionError, match="Arrays are not equal"):
            for seed in range(400):
                compare(Draw(seed, variant, larger=2))
    finally:
        for table in (kernels.sigmoid_table, kernels.tanh_table):
            table.cache_clear()


if __name__ == "__main__":  # the table of docs/numerics.md
    print("| variant | outputs | files |\n|---|---|---|")
    for each in VARIANTS:
        print(f"| {each} | {' | '.join(f'{n:,}' for n in in_depth(each))} |", flush=True)
