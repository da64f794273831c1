"""Convolution, transposed convolution and matrix products of floats, each a few BLAS products.

The order of their sums is BLAS's own; nothing below graph depends on it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...dialects import graph
from ...dialects.declarative import Parameters
from ..kernel import kernel

COLUMN_BYTES = 4 << 20  # im2col works through output rows in pieces of about this size, to stay in cache


@kernel(graph.MatmulOp)
def matmul(p: Parameters, a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """a […, M, K] · b […, K, N] + bias [N]."""
    product = np.matmul(np.ascontiguousarray(a), np.ascontiguousarray(b))
    if bias is not None:
        product += bias
    return product


# --- convolution -----------------------------------------------------------------------------------------
@kernel(graph.ConvOp)
def conv(p: Parameters, ifm: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """ifm [N, …, C], weight [K…, C / groups, M], bias [M] -> [N, …, M]."""
    if ifm.ndim == 3:
        p1, ifm1, weight1 = as_2d(p, ifm, weight)
        return conv(p1, ifm1, weight1, bias)[:, 0]
    image = padded(ifm, p.pads)
    if p.groups == 1:
        ofm = dense(image, weight, p.strides, p.dilations)
    elif p.groups == ifm.shape[-1]:
        ofm = depthwise(image, weight, p.strides, p.dilations)
    else:
        ofm = grouped(image, weight, p)
    if bias is not None:
        ofm += bias
    return ofm


def as_2d(p: Parameters, ifm: np.ndarray, weight: np.ndarray) -> tuple[Parameters, np.ndarray, np.ndarray]:
    """The same convolution of one row: [N, W, C] as [N, 1, W, C]."""
    values = dict(p)
    for name, neutral in (("strides", 1), ("dilations", 1), ("output_pads", 0)):
        if name in p:
            values[name] = (neutral, *p[name])
    values["pads"] = (0, p.pads[0], 0, p.pads[1])
    return Parameters(values), ifm[:, None], weight[None]


def padded(ifm: np.ndarray, pads: tuple[int, ...], value: float = 0) -> np.ndarray:
    """[N, H, W, C] with (top, left, bottom, right) rows and columns around it, contiguous."""
    top, left, bottom, right = pads
    if not any(pads):
        return np.ascontiguousarray(ifm)
    n, h, w, c = ifm.shape
    image = np.empty((n, top + h + bottom, left + w + right, c), ifm.dtype)
    image[:, :top] = image[:, top + h :] = value
    image[:, top : top + h, :left] = image[:, top : top + h, left + w :] = value
    image[:, top : top + h, left : left + w] = ifm
    return image


def output_size(
    size: tuple[int, ...], kernel_: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, int]:
    """Output rows and columns of a window on an image that is padded already."""
    oh, ow = ((d - dil * (k - 1) - 1) // s + 1 for d, k, s, dil in zip(size, kernel_, strides, dilations))
    return oh, ow


def dense(
    image: np.ndarray, weight: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> np.ndarray:
    """Padded image [N, H, W, C], weight [KH, KW, C, M] -> [N, OH, OW, M]: im2col, one product a piece."""
    n, h, w, c = image.shape
    kh, kw, _, m = weight.shape
    matrix = np.ascontiguousarray(weight).reshape(kh * kw * c, m)
    if (kh, kw) == (1, 1):
        taken = np.ascontiguousarray(image[:, :: strides[0], :: strides[1]])
        return (taken.reshape(-1, c) @ matrix).reshape(*taken.shape[:3], m)
    oh, ow = output_size((h, w), (kh, kw), strides, dilations)
    windows = sliding(image, (kh, kw), (oh, ow), strides, dilations)
    ofm = np.empty((n, oh, ow, m), image.dtype)
    rows = max(1, min(oh, COLUMN_BYTES // max(1, ow * matrix.shape[0] * image.itemsize)))
    columns = np.empty((rows, ow, kh, kw, c), image.dtype)
    for i in range(n):
        for row in range(0, oh, rows):
            count = min(rows, oh - row)
            columns[:count] = windows[i, row : row + count]
            np.matmul(
                columns[:count].reshape(count * ow, -1),
                matrix,
                out=ofm[i, row : row + count].reshape(count * ow, m),
            )
    return ofm


def sliding(
    image: np.ndarray,
    kernel_: tuple[int, int],
    out: tuple[int, int],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> np.ndarray:
    """A view [N, OH, OW, KH, KW, C] of the padded image."""
    n, _, _, c = image.shape
    sn, sh, sw, sc = image.strides
    steps = (sn, strides[0] * sh, strides[1] * sw, dilations[0] * sh, dilations[1] * sw, sc)
    return as_strided(image, (n, *out, *kernel_, c), steps, writeable=False)


def grouped(image: np.ndarray, weight: np.ndarray, p: Parameters) -> np.ndarray:
    """A dense convolution for each group of channels."""
    c, m = weight.shape[-2], weight.shape[-1] // p.groups
    parts = [
        dense(
            np.ascontiguousarray(image[..., g * c : (g + 1) * c]),
            weight[..., g * m : (g + 1) * m],
            p.strides,
            p.dilations,
        )
        for g in range(p.groups)
    ]
    return np.concatenate(parts, axis=-1)


def depthwise(
    image: np.ndarray, weight: np.ndarray, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> np.ndarray:
    """Padded image [N, H, W, C], weight [KH, KW, 1, M]; output channel m reads channel m // (M / C).

    One product a tap. Columns of one stride phase lie side by side, so a tap's row is one contiguous run.
    """
    kh, kw, _, m = weight.shape
    oh, ow = output_size(image.shape[1:3], (kh, kw), strides, dilations)
    if m != image.shape[-1]:
        image = np.repeat(image, m // image.shape[-1], axis=-1)
    phases = [np.ascontiguousarray(image[:, :, i :: strides[1]]) for i in range(strides[1])]
    taps = np.broadcast_to(weight, (kh, kw, ow, m)).reshape(kh, kw, ow * m)
    flat = [phase.reshape(*phase.shape[:2], -1) for phase in phases]  # [N, H, W' · M]
    ofm = np.zeros((len(image), oh, ow * m), image.dtype)
    product = np.empty(ow * m, image.dtype)
    for n in range(len(image)):
        for row in range(oh):
            acc = ofm[n, row]
            for i in range(kh):
                source = row * strides[0] + i * dilations[0]
                for j in range(kw):
                    step, phase = divmod(j * dilations[1], strides[1])
                    np.multiply(flat[phase][n, source, step * m : (step + ow) * m], taps[i, j], out=product)
                    acc += product
    return ofm.reshape(len(image), oh, ow, m)


# --- transposed convolution ------------------------------------------------------------------------------
@kernel(graph.ConvTransposeOp)
def conv_transpose(
    p: Parameters, ifm: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """Every input pixel adds its product with the weights to ofm[i · stride + k · dilation − pad]."""
    if ifm.ndim == 3:
        p1, ifm1, weight1 = as_2d(p, ifm, weight)
        return conv_transpose(p1, ifm1, weight1, bias)[:, 0]
    n, h, w, _ = ifm.shape
    kh, kw, c_group, m = weight.shape
    sizes = [
        s * (d - 1) + extra + dil * (k - 1) + 1
        for s, d, extra, dil, k in zip(p.strides, (h, w), p.output_pads, p.dilations, (kh, kw))
    ]
    canvas = np.zeros((n, *sizes, m), ifm.dtype)
    for g in range(p.groups):
        inputs = slice(g * c_group, (g + 1) * c_group)
        outputs = slice(g * (m // p.groups), (g + 1) * (m // p.groups))
        scatter(canvas[..., outputs], ifm[..., inputs], weight[..., outputs], p)
    top, left, bottom, right = p.pads
    ofm = np.ascontiguousarray(canvas[:, top : sizes[0] - bottom, left : sizes[1] - right])
    if bias is not None:
        ofm += bias
    return ofm


def scatter(canvas: np.ndarray, ifm: np.ndarray, weight: np.ndarray, p: Parameters) -> None:
    """Add the products of one group, tap by tap, to the canvas [N, …, M / groups]."""
    n, h, w, c = ifm.shape
    pixels = np.ascontiguousarray(ifm).reshape(math.prod((n, h, w)), c)
    (sh, sw), (dh, dw) = p.strides, p.dilations
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            product = pixels @ np.ascontiguousarray(weight[i, j])
            rows = slice(i * dh, i * dh + (h - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (w - 1) * sw + 1, sw)
            canvas[:, rows, columns] += product.reshape(n, h, w, -1)
