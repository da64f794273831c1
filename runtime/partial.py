"""Kernels of the programmable engine that do a part of an operation, so that every layer fits the SRAM.

A part gets what its tile needs to know of the whole as parameters that the launch sets, and goes on from
`acc`, the result of the parts before it. Float sums run in one order, that of the indices, whatever the parts
are: a layer in one piece and in many gives the same bits. Selection writes these kernels as `ppu.*`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dialects.declarative import Parameters
from ..errors import NacreError
from .kernels.graph_elementwise import divide, quiet
from .kernels.graph_linear import padded
from .kernels.graph_pool import counted, largest_tap, lowest, tap
from .kernels.graph_reduce import WIDE, folded, sequential_sum, softmax_output
from .kernels.graph_resize import NEAREST, cubic_weights, linear_weights, source_coordinates
from .kernels.quantised_pool import FloatPlaces, bilinear_float_at, float_places
from .kernels.quantised_softmax import SoftmaxParameters, softmax_exp_sum
from .kernels.quantised_softmax import softmax_output as quantised_softmax_output
from .kernels.quantised_softmax16 import Softmax16Parameters, softmax16_exp_sum, softmax16_output

Array = np.ndarray
PARTIAL: dict[str, Callable[..., Any]] = {}
"""Kernels by name: (parameters, *inputs, acc=None) -> array."""


def partial(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a kernel. ValueError if the name is taken."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in PARTIAL:
            raise ValueError(f"{name} has a kernel already")

        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            with quiet():
                return function(*arguments, **named)

        PARTIAL[name] = run
        return function

    return register


def as_tuple(value: int | Sequence[int]) -> tuple[int, ...]:
    """An open parameter of any size; one of a single scalar arrives as a plain number."""
    return (value,) if isinstance(value, int) else tuple(value)


# --- sums of products ------------------------------------------------------------------------------------
PRODUCT_BYTES = 1 << 18  # products made at a time, to stay in cache


def sum_of_products(a: Array, b: Array, start: Array) -> Array:
    """start + Σ_k a[…, m, k] · b[…, k, n], k in order, each product and each sum rounded by itself."""
    if a.shape[-2] > b.shape[-1]:  # long inner loops; a product's factors may change places
        return _last_two(sum_of_products(_last_two(b), _last_two(a), _last_two(start)))
    acc = np.array(start, order="C")
    left = np.ascontiguousarray(np.moveaxis(a, -1, 0))[..., :, None]
    right = np.ascontiguousarray(np.moveaxis(b, -2, 0))[..., None, :]
    step = max(1, PRODUCT_BYTES // max(acc.nbytes, 1))
    for first in range(0, len(left), step):
        products = np.multiply(left[first : first + step], right[first : first + step])
        if acc.size < WIDE:
            acc = sequential_sum(products, 0, acc[None])[0]
        else:
            for product in products:
                np.add(acc, product, out=acc)
    return acc


def _last_two(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _start(shape: tuple[int, ...], dtype: np.dtype, bias: Array | None, acc: Array | None) -> Array:
    """What a sum starts from: the parts before, or else the bias of each output channel, or else +0."""
    if acc is not None:
        return acc
    return np.broadcast_to(np.zeros((), dtype) if bias is None else bias, shape)


@partial("ppu.matmul")
def matmul(p: Parameters, a: Array, b: Array, bias: Array | None = None, acc: Array | None = None) -> Array:
    """a […, M, K] · b […, K, N]: (bias + a₀b₀) + a₁b₁ + …"""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (x.reshape((1,) * (len(batch) + 2 - x.ndim) + x.shape) for x in (a, b))
    return sum_of_products(a, b, _start((*batch, a.shape[-2], b.shape[-1]), a.dtype, bias, acc))


@partial("ppu.conv")
def conv(
    p: Parameters, ifm: Array, weight: Array, bias: Array | None = None, acc: Array | None = None
) -> Array:
    """ifm [N, H, W, C], weight [KH, KW, C, M]: bias + Σ over (c, kh, kw) in this order; padding is 0."""
    kh, kw, channels, filters = weight.shape
    image = np.ascontiguousarray(padded(ifm, p.pads).transpose(3, 0, 1, 2))
    oh, ow = _window_sizes(image.shape[2:], (kh, kw), p)
    columns = np.empty((channels, kh, kw, len(ifm), oh, ow), ifm.dtype)
    for i in range(kh):
        rows = tap(image, 2, i * p.dilations[0], oh, p.strides[0])
        for j in range(kw):
            columns[:, i, j] = tap(rows, 3, j * p.dilations[1], ow, p.strides[1])
    matrix = columns.reshape(channels * kh * kw, -1).T
    taps = weight.transpose(2, 0, 1, 3).reshape(-1, filters)
    start = _start((len(ifm), oh, ow, filters), ifm.dtype, bias, acc)
    return sum_of_products(matrix, taps, start.reshape(-1, filters)).reshape(start.shape)


def _window_sizes(sizes: Sequence[int], kernel: Sequence[int], p: Parameters) -> tuple[int, int]:
    oh, ow = ((d - dil * (k - 1) - 1) // s + 1 for d, k, s, dil in zip(sizes, kernel, p.strides, p.dilations))
    return oh, ow


@partial("ppu.depthwise")
def depthwise(
    p: Parameters, ifm: Array, weight: Array, bias: Array | None = None, acc: Array | None = None
) -> Array:
    """ifm [N, H, W, C], weight [KH, KW, 1, C · M]: bias + Σ over (kh, kw); channel c · M + m reads c."""
    kh, kw, _, filters = weight.shape
    image = padded(ifm, p.pads)
    oh, ow = _window_sizes(image.shape[1:3], (kh, kw), p)
    image = np.repeat(image, filters // image.shape[-1], axis=-1)
    total = np.array(_start((len(ifm), oh, ow, filters), ifm.dtype, bias, acc), order="C")
    for i in range(kh):
        rows = tap(image, 1, i * p.dilations[0], oh, p.strides[0])
        for j in range(kw):
            total += tap(rows, 2, j * p.dilations[1], ow, p.strides[1]) * weight[i, j, 0]
    return total


@partial("ppu.conv_transpose")
def conv_transpose(
    p: Parameters, ifm: Array, weight: Array, bias: Array | None = None, acc: Array | None = None
) -> Array:
    """ofm[o] = bias + Σ over (c, kh, kw) of ifm[i] · weight where i · stride + k · dilation = o + origin.

    `origin`, `size`: two scalars each, the first output seen from the first input, and the number of outputs.
    """
    kh, kw, channels, filters = weight.shape
    shape = (len(ifm), *p.size, filters)
    total = np.array(_start(shape, ifm.dtype, bias, acc), order="C")
    places = [
        [_met(ifm.shape[1 + a], p.size[a], p.strides[a], k * p.dilations[a] - p.origin[a]) for k in range(n)]
        for a, n in enumerate((kh, kw))
    ]
    for c in range(channels):
        image = np.ascontiguousarray(ifm[..., c])[..., None]
        for i, (rows_in, rows_out) in enumerate(places[0]):
            for j, (cols_in, cols_out) in enumerate(places[1]):
                total[:, rows_out, cols_out] += image[:, rows_in, cols_in] * weight[i, j, c]
    return total


def _met(inputs: int, outputs: int, stride: int, shift: int) -> tuple[slice, slice]:
    """Inputs i and outputs i · stride + shift that both exist."""
    first = max(0, -(shift // stride))
    last = min(inputs, (outputs - 1 - shift) // stride + 1)
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + shift
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


# --- reductions ------------------------------------------------------------------------------------------
def _sum_in_order(x: Array, p: Parameters, acc: Array | None, keepdims: bool) -> Array:
    """Sum over the axes in index order, from the sum so far; integers wrap around."""
    shape = tuple(1 if i in p.axes else d for i, d in enumerate(x.shape) if keepdims or i not in p.axes)
    if not p.axes:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        total = np.asarray(np.sum(x, axis=tuple(p.axes), dtype=x.dtype)).reshape(shape)
        return total if acc is None else total + acc
    rows = folded(x, p.axes)
    start = None if acc is None else acc.reshape(*rows.shape[:-1], 1)
    return sequential_sum(rows, rows.ndim - 1, start).reshape(shape)


@partial("ppu.reduce_sum")
def reduce_sum(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """acc + x₀ + x₁ + …"""
    return _sum_in_order(x, p, acc, p.keepdims)


@partial("ppu.reduce_mean")
def reduce_mean(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """The sum; the part that is `last` divides it by `count`."""
    total = _sum_in_order(x, p, acc, p.keepdims)
    return np.asarray(divide(total, np.asarray(p.count, x.dtype)), x.dtype) if p.last else total


@partial("ppu.variance")
def variance(p: Parameters, x: Array, mean: Array, acc: Array | None = None) -> Array:
    """Σ (x − mean)²; the part that is `last` divides it by `count`."""
    centred = x - mean
    total = _sum_in_order(centred * centred, p, acc, True)
    return total / np.asarray(p.count, x.dtype) if p.last else total


@partial("ppu.reduce_max")
def reduce_max(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """Largest value; NaN wins, and the zero it gives is +0 in whatever order."""
    return _extremum(p, x, acc, np.maximum)


@partial("ppu.reduce_min")
def reduce_min(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """Smallest value; NaN wins, and the zero it gives is +0 in whatever order."""
    return _extremum(p, x, acc, np.minimum)


def _extremum(p: Parameters, x: Array, acc: Array | None, function: np.ufunc) -> Array:
    found = np.asarray(function.reduce(x, axis=tuple(p.axes), keepdims=p.keepdims))
    if acc is not None:
        found = function(found, acc)
    return found + x.dtype.type(0) if np.issubdtype(x.dtype, np.floating) else found


@partial("ppu.index_of")
def index_of(p: Parameters, x: Array, wanted: Array, acc: Array | None = None) -> Array:
    """Where along the axis the wanted value stands: the first place, or the last; −1 before one is found.

    x counts from `offset`. NaN equals NaN, as the largest of values with a NaN is NaN.
    """
    same = (x == wanted) | ((x != x) & (wanted != wanted))
    if p.select_last:
        place = x.shape[p.axis] - 1 - np.argmax(np.flip(same, p.axis), axis=p.axis, keepdims=True)
    else:
        place = np.argmax(same, axis=p.axis, keepdims=True)
    found = np.where(np.any(same, axis=p.axis, keepdims=True), place + p.offset, -1)
    if not p.keepdims:
        found = found.squeeze(p.axis)
    if acc is None:
        return found
    return np.where(found < 0, acc, found) if p.select_last else np.where(acc < 0, found, acc)


# --- softmax and normalisations, pass by pass -------------------------------------------------------------
@partial("ppu.softmax_sum")
def softmax_sum(p: Parameters, x: Array, maximum: Array, acc: Array | None = None) -> Array:
    """acc + Σ e^(x − maximum)."""
    return sequential_sum(np.exp(x - maximum), p.axis, acc)


@partial("ppu.softmax_output")
def softmax_quotient(
    p: Parameters, x: Array, maximum: Array, total: Array, acc: Array | None = None
) -> Array:
    """e^(x − maximum) / total."""
    return softmax_output(x, maximum, total)


@partial("ppu.quantised_softmax_sum")
def quantised_softmax_sum(p: Parameters, x: Array, maximum: Array, acc: Array | None = None) -> Array:
    """acc + Σ exp(x − maximum) in fixed point."""
    total = softmax_exp_sum(x, maximum, _softmax_parameters(p))
    return total if acc is None else total + acc


@partial("ppu.quantised_softmax_output")
def quantised_softmax_quotient(
    p: Parameters, x: Array, maximum: Array, total: Array, acc: Array | None = None
) -> Array:
    """exp(x − maximum) / total in fixed point."""
    return quantised_softmax_output(x, maximum, total, _softmax_parameters(p))


def _softmax_parameters(p: Parameters) -> SoftmaxParameters:
    return SoftmaxParameters(p.multiplier, p.left_shift, p.smallest_difference)


@partial("ppu.softmax16_sum")
def softmax16_sum(p: Parameters, x: Array, maximum: Array, acc: Array | None = None) -> Array:
    """acc + Σ exp(x − maximum) of int16 in fixed point."""
    total = softmax16_exp_sum(x, maximum, Softmax16Parameters(p.multiplier, p.shift))
    return total if acc is None else total + acc


@partial("ppu.softmax16_output")
def softmax16_quotient(
    p: Parameters, x: Array, maximum: Array, total: Array, acc: Array | None = None
) -> Array:
    """exp(x − maximum) / total of int16 in fixed point."""
    return softmax16_output(x, maximum, total, Softmax16Parameters(p.multiplier, p.shift))


@partial("ppu.normalise")
def normalise(
    p: Parameters, x: Array, mean: Array, variance: Array, scale: Array, bias: Array | None = None,
    acc: Array | None = None,
) -> Array:  # fmt: skip
    """(x − mean) / √(variance + epsilon) · scale + bias, in this order; all broadcast to x."""
    normalised = (x - mean) / np.sqrt(variance + p.epsilon) * scale
    return normalised if bias is None else normalised + bias


@partial("ppu.lrn")
def lrn(p: Parameters, neighbours: Array, x: Array, acc: Array | None = None) -> Array:
    """Σ of squared neighbours; the part that is `last` makes x / (bias + alpha / size · Σ)^beta of it.

    `window`: three scalars, how many of the neighbours a sum takes, and zeros before and behind them.
    """
    taps, before, behind = p.window
    squares = np.zeros((*x.shape[:-1], before + neighbours.shape[-1] + behind), x.dtype)
    squares[..., before : before + neighbours.shape[-1]] = neighbours * neighbours
    total = np.zeros_like(x) if acc is None else np.array(acc)
    for i in range(taps):
        total += squares[..., i : i + x.shape[-1]]
    return x / (p.bias + p.alpha / p.size * total) ** p.beta if p.last else total


# --- windows ---------------------------------------------------------------------------------------------
@partial("ppu.max_pool")
def max_pool(p: Parameters, ifm: Array, acc: Array | None = None) -> Array:
    """Largest value of a part of the window ([N, H, W, C]; `kernel` and `pads` are the part's) and of acc."""
    image = padded(ifm, p.pads, lowest(ifm.dtype))
    oh, ow = _window_sizes(image.shape[1:3], p.kernel, p)
    across = largest_tap(image, 2, p.kernel[1], ow, p.strides[1], p.dilations[1])
    largest = largest_tap(across, 1, p.kernel[0], oh, p.strides[0], p.dilations[0])
    return largest if acc is None else np.maximum(acc, largest)


@partial("ppu.avg_pool")
def avg_pool(p: Parameters, ifm: Array, acc: Array | None = None) -> Array:
    """Sum over a part of the window, rows first; the part that is `last` divides by what the window counts.

    `kernel` and `pads` are the part's, `whole` holds the window's own; `offset`: the first output's position.
    """
    image = padded(ifm, p.pads)
    oh, ow = _window_sizes(image.shape[1:3], p.kernel, p)
    total = np.zeros((len(ifm), oh, ow, ifm.shape[-1]), ifm.dtype) if acc is None else np.array(acc)
    for i in range(p.kernel[0]):
        rows = tap(image, 1, i * p.dilations[0], oh, p.strides[0])
        for j in range(p.kernel[1]):
            total += tap(rows, 2, j * p.dilations[1], ow, p.strides[1])
    if not p.last:
        return total
    whole = Parameters({**p, "kernel": p.window[:2], "pads": p.window[2:6]})
    rows, cols = (
        counted(whole, a, p.sizes[a], p.offset[a] + n)[p.offset[a] :] for a, n in enumerate((oh, ow))
    )
    return divide(total, np.maximum(np.multiply.outer(rows, cols), 1).astype(ifm.dtype)[:, :, None])


# --- resize ----------------------------------------------------------------------------------------------
Taps = tuple[Array, Array | None]


@functools.lru_cache(maxsize=256)
def resize_taps(
    size: int, out: int, scale: float | None, mode: str, coordinates: str, nearest: str, cubic_a: float,
    exclude_outside: bool,
) -> Taps:  # fmt: skip
    """Index [taps, out] into the whole axis and weight [taps, out] of each tap; None: the value as it is."""
    factor = np.float32(out) / np.float32(size) if scale is None else np.float32(scale)
    at = source_coordinates(coordinates, size, out, factor)
    if mode == "nearest":
        return np.clip(NEAREST[nearest](at).astype(np.int64), 0, size - 1)[None], None
    if out == size and factor == 1:
        return np.arange(out)[None], None
    if mode == "linear":
        at = np.clip(at, 0, size - 1)
    base = np.floor(at)
    weights = linear_weights(at - base) if mode == "linear" else cubic_weights(at - base, cubic_a)
    index = base.astype(np.int64) - (len(weights) // 2 - 1) + np.arange(len(weights))[:, None]
    if exclude_outside and mode == "cubic":
        weights = weights * ((index >= 0) & (index < size))
        weights = weights / weights.sum(axis=0)
    return np.clip(index, 0, size - 1), weights


def taps_of(p: Parameters, axis: int) -> Taps:
    """The taps of one spatial axis of a resize kernel."""
    scale = p.scales[axis] if p.scales else None
    return resize_taps(
        p.inputs[axis], p.sizes[axis], scale, p.mode, p.coordinates, p.nearest, p.cubic_a, p.exclude_outside
    )


@partial("ppu.resize")
def resize(p: Parameters, ifm: Array, acc: Array | None = None) -> Array:
    """A box of the resampled image. `place`: first output, number, and first input loaded, an axis each."""
    place = as_tuple(p.place)
    for axis in range(len(p.sizes)):
        first, count, origin = place[3 * axis : 3 * axis + 3]
        index, weights = taps_of(p, axis)
        index = index[:, first : first + count] - origin
        if weights is None:
            ifm = np.take(ifm, index[0], axis=axis + 1)
            continue
        along = [-1 if i == axis + 1 else 1 for i in range(ifm.ndim)]
        total = np.zeros([count if i == axis + 1 else d for i, d in enumerate(ifm.shape)], ifm.dtype)
        for i, weight in zip(index, weights[:, first : first + count]):
            total += np.take(ifm, i, axis=axis + 1) * weight.astype(ifm.dtype).reshape(along)
        ifm = total
    return ifm


def float_places_of(p: Parameters, axis: int) -> FloatPlaces:
    """The neighbours and distances of one spatial axis of an 8-bit resize in floats."""
    return float_places(p.inputs[axis], p.sizes[axis], p.align_corners, p.half_pixel)


@partial("ppu.resize_float")
def resize_float(p: Parameters, ifm: Array, acc: Array | None = None) -> Array:
    """A box of the resampled image, by places like ppu.resize."""
    parts = []
    for axis in range(2):
        first, count, origin = p.place[3 * axis : 3 * axis + 3]
        low, high, distance = (v[first : first + count] for v in float_places_of(p, axis))
        parts.append((low - origin, high - origin, distance))
    return bilinear_float_at(ifm, *parts)  # type: ignore[arg-type]


# --- moves -----------------------------------------------------------------------------------------------
@partial("ppu.broadcast")
def broadcast(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """x, which the write repeats."""
    return x


@partial("ppu.flip")
def flip(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """Axes backwards."""
    return np.flip(x, p.axes)


@partial("ppu.pad")
def pad(p: Parameters, x: Array, acc: Array | None = None) -> Array:
    """A box of the padded tensor. `place`: first output, number, and first input loaded, an axis each."""
    place = as_tuple(p.place)
    first, count, origin = place[0::3], place[1::3], place[2::3]
    if p.mode != "constant":
        maps = [
            source_of(np.arange(o, o + n), lo, d, p.mode) - begin
            for o, n, begin, lo, d in zip(first, count, origin, p.low, p.shape)
        ]
        return x[np.ix_(*maps)]
    out = np.full(count, p.value, x.dtype)
    if x.size:
        starts = [b + lo - o for o, b, lo in zip(first, origin, p.low)]
        out[tuple(slice(at, at + d) for at, d in zip(starts, x.shape))] = x
    return out


def source_of(at: Array, low: int, size: int, mode: str) -> Array:
    """Which input an output of a reflecting or edge-repeating pad takes along an axis."""
    index = at - low
    if mode == "edge":
        return np.clip(index, 0, size - 1)
    return size - 1 - np.abs(size - 1 - np.abs(index))


@partial("ppu.gather")
def gather(p: Parameters, data: Array, indices: Array, acc: Array | None = None) -> Array:
    """data[…, indices[…], …] along an axis for indices that lie in this part of it; others keep what acc has.

    The part counts from `offset` of an axis of `size`; a negative index counts from the axis's end.
    """
    if indices.size and not -p.size <= indices.min() <= indices.max() < p.size:
        raise NacreError(
            f"graph.gather: the indices {indices.min()} to {indices.max()} leave an axis of {p.size}; "
            f"they have to lie in [{-p.size}, {p.size - 1}]"
        )
    local = np.where(indices < 0, indices + p.size, indices) - p.offset
    inside = (local >= 0) & (local < data.shape[p.axis])
    taken = np.take(data, np.where(inside, local, 0), axis=p.axis)
    here = inside.reshape((1,) * p.axis + inside.shape + (1,) * (data.ndim - p.axis - 1))
    return np.where(here, taken, np.zeros((), data.dtype) if acc is None else acc)
