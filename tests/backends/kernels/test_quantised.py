"""quantised.cl and quantised_curve.cl: every bit is the qnn operation's, which is TFLite's."""

from __future__ import annotations

from typing import Any

import nacre.backends.npu.kernels.quantised
import nacre.backends.npu.kernels.quantised_curve  # noqa: F401  both register kernels
import numpy as np
import pytest
from nacre.dialects.declarative import Parameters
from nacre.errors import CompileError
from nacre.runtime.fixed_point import full_range
from nacre.runtime.kernel import operations, run_kernel
from nacre.runtime.kernels import quantised as q
from nacre.runtime.kernels.quantised_functions import curve_parameters, squared_difference_parameters

Array = np.ndarray
TYPES = ["int8", "uint8", "int16"]


def qnn(name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    return run_kernel(operations()[name], Parameters(parameters), *inputs)[0]


def check(run: Any, name: str, parameters: dict[str, Any], *inputs: Array) -> Array:
    """What a run gives is what the qnn operation gives."""
    expected = qnn(name, parameters, *inputs)
    (found,) = run(name, inputs, [(expected.shape, expected.dtype)], parameters)
    np.testing.assert_array_equal(found, expected)
    return expected


def all_values(dtype: str) -> Array:
    low, high = full_range(dtype)
    return np.arange(low, high + 1).astype(dtype)


def drawn(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    low, high = full_range(dtype)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def scale(rng: np.random.Generator) -> float:
    """Three decades around 1/30."""
    return float(np.exp(rng.uniform(-7, 0)))


def zero(rng: np.random.Generator, dtype: str) -> int:
    """A zero point; int16 has none but 0."""
    return 0 if dtype == "int16" else int(drawn(rng, dtype, 1)[0])


@pytest.fixture(params=["on_engine", "under_pocl"])
def run(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


# --- rectifiers ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
def test_leaky_relu_of_all_values(on_engine: Any, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for alpha in (0.01, 0.3, 1.7, -0.4, 0.2, -1.1):
        p = q.leaky_relu_parameters(alpha, scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype))
        check(on_engine, "qnn.leaky_relu", {"rescale": tuple(p)}, all_values(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("alpha", [0.3, -0.4])
def test_leaky_relu_under_pocl(under_pocl: Any, dtype: str, alpha: float) -> None:
    p = q.leaky_relu_parameters(alpha, 0.07, 0, 0.04, 0)
    check(under_pocl, "qnn.leaky_relu", {"rescale": tuple(p)}, all_values(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("shape", "slopes"),
    [
        ((2, 3, 4, 5), (5,)),
        ((2, 3, 4, 5), (1, 1, 5)),
        ((2, 3, 4, 5), (3, 1, 5)),
        ((2, 3, 4, 5), (2, 1, 4, 1)),
        ((3, 4), (3, 4)),
        ((7,), (1,)),
        ((), ()),
        ((2, 1, 3, 1, 2), (1, 2, 1, 2, 1)),
    ],
)
def test_prelu_broadcasts(run: Any, dtype: str, shape: tuple[int, ...], slopes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    p = q.prelu_parameters(scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype))
    x, slope = drawn(rng, dtype, *shape), drawn(rng, dtype, *slopes)
    if len(shape) == 5:  # five runs of axes alternate
        with pytest.raises(CompileError, match="goes through 5 separate runs"):
            run("qnn.prelu", [x, slope], [((2, 2, 3, 2, 2), dtype)], {"rescale": tuple(p)})
        return
    check(run, "qnn.prelu", {"rescale": tuple(p)}, x, slope)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_prelu_of_all_pairs(run: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    p = q.prelu_parameters(scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype))
    check(run, "qnn.prelu", {"rescale": tuple(p)}, all_values(dtype)[:, None], all_values(dtype))


# --- squares ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_squared_difference_of_all_pairs(run: Any, dtype: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(2):
        geometry = (scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype), scale(rng), zero(rng, dtype))
        p = squared_difference_parameters(*geometry, dtype)
        result = check(
            run, "qnn.squared_difference", {"rescale": tuple(p)}, all_values(dtype)[:, None], all_values(dtype)
        )
        assert len(np.unique(result)) > 3


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 4), (4,)), ((4,), (2, 3, 4)), ((2, 1, 4, 1), (1, 3, 1, 5)), ((5, 1), (1, 6)), ((1,), (2, 2))],
)
def test_squared_difference_broadcasts(run: Any, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    p = squared_difference_parameters(0.05, 3, 0.07, -9, 0.4, -100, "int8")
    check(run, "qnn.squared_difference", {"rescale": tuple(p)}, drawn(rng, "int8", *left), drawn(rng, "int8", *right))


# --- rows of length one ----------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_l2_normalize(run: Any, dtype: str) -> None:
    rng = np.random.default_rng(6)
    p = {"input_zero": zero(rng, dtype)}
    for shape in [(40, 1), (3, 4, 7), (1, 300), (5,), (3000, 6)]:
        check(run, "qnn.l2_normalize", p, drawn(rng, dtype, *shape))


def test_l2_normalize_of_sums_beyond_32_bits(on_engine: Any) -> None:
    x = np.full((1, 33100), 255, np.uint8)
    check(on_engine, "qnn.l2_normalize", {"input_zero": 0}, x)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_l2_normalize_of_short_rows(run: Any, dtype: str) -> None:
    """Sums of squares from 0 on, where the inverse square root is a case of its own or is shifted to the left."""
    rng = np.random.default_rng(7)
    x = (rng.integers(-2, 2, (400, 3), endpoint=True) + 5).astype(dtype)
    x[0] = 5
    check(run, "qnn.l2_normalize", {"input_zero": 5}, x)
    check(run, "qnn.l2_normalize", {"input_zero": 5}, all_values(dtype)[:, None])


# --- curves ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["qnn.logistic", "qnn.tanh"])
@pytest.mark.parametrize("input_scale", [1 / 4096, 1 / 2048, 3e-6, 2.1e-4, 7.7e-4, 0.013, 0.9])
def test_curves_of_all_values(on_engine: Any, name: str, input_scale: float) -> None:
    p = curve_parameters(input_scale, tanh=name == "qnn.tanh")
    check(on_engine, name, p._asdict(), all_values("int16"))


@pytest.mark.parametrize("name", ["qnn.logistic", "qnn.tanh"])
@pytest.mark.parametrize("input_scale", [1 / 4096, 7.7e-4])
def test_curves_under_pocl(under_pocl: Any, name: str, input_scale: float) -> None:
    p = curve_parameters(input_scale, tanh=name == "qnn.tanh")
    check(under_pocl, name, p._asdict(), all_values("int16"))
