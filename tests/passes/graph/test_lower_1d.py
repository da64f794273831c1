"""graph-lower-1d: one-dimensional spatial ops as two-dimensional ones of height 1."""

import numpy as np
import pytest
from nacre.passes.graph import canonical
from nacre.passes.graph.lower_1d import Lower1dPass
from nacre.passes.rewrite import canonicalize

assert canonical.__all__  # importing it registered the patterns
X = "tensor<2x9x4xf32>"


def lower(module):
    Lower1dPass().run(module)
    canonicalize(module)


def weight(shape: str) -> str:
    sizes = [int(d) for d in shape.split("x")]
    values = np.random.default_rng(1).standard_normal(sizes).round(3)
    return f"%w = graph.constant dense<{values.tolist()}> : tensor<{shape}xf32>"


OPS = {
    "conv": (
        weight("3x2x6")
        + "\n%y = graph.conv %x, %w {strides = [2], pads = [1, 2], dilations = [2], groups = 2} "
            ": tensor<2x4x6xf32>"
    ),
    "conv_transpose": (
        weight("3x4x6") + "\n%y = graph.conv_transpose %x, %w "
        "{strides = [2], pads = [1, 0], dilations = [1], output_pads = [1]} : tensor<2x19x6xf32>"
    ),
    "max_pool": "%y = graph.max_pool %x {kernel = [3], strides = [2], pads = [1, 0], "
    "dilations = [1]} : tensor<2x4x4xf32>",
    "avg_pool": (
        "%y = graph.avg_pool %x {kernel = [3], strides = [2], pads = [1, 1], dilations = [1], "
        "overhang = [1], "
        "count_include_pad = true} : tensor<2x5x4xf32>"
    ),
    **{
        f"resize {mode} {where}": f'%y = graph.resize %x {{sizes = [14], mode = "{mode}", '
        f'coordinates = "{where}"'
        f"{more}}} : tensor<2x14x4xf32>"
        for mode in ("nearest", "linear", "cubic")
        for where, more in (
            ("half_pixel", ""), ("align_corners", ""), ("asymmetric", ", scales = [1.6]"),
            ("pytorch_half_pixel", ""),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_spatial_op(ir, name):
    module = ir.parse(f"x: {X}\n{OPS[name]}")
    lines = ir.same(module, lower, rtol=1e-6)
    assert ir.names(module) == ["reshape", name.split()[0], "reshape"]
    assert "tensor<2x1x" in lines[-2]


def test_reshapes_between_spatial_ops_cancel(ir):
    pool = "{kernel = [3], strides = [1], pads = [1, 1], dilations = [1]}"
    module = ir.parse(
        f"x: {X}\n%a = graph.max_pool %x {pool} : {X}\n%b = graph.relu %a : {X}\n"
        "%c = graph.constant dense<[0.5, 1.0, 2.0, 3.0]> : tensor<4xf32>\n"
        f"%d = graph.mul %b, %c : {X}\n%e = graph.add %d, %a : {X}\n%k = graph.add %e, %x : {X}\n"
        "%f = graph.concat %k, %a {axis = 2} : tensor<2x9x8xf32>\n"
        f"%y = graph.max_pool %f {pool} : tensor<2x9x8xf32>"
    )
    ir.same(module, lower)
    assert ir.names(module) == [
        "reshape", "max_pool", "relu", "mul", "add", "reshape", "add", "concat", "max_pool", "reshape"
    ]  # fmt: skip


def test_two_dimensional_ops_stay(ir):
    module = ir.parse(
        "x: tensor<1x4x4x2xf32>\n%y = graph.max_pool %x {kernel = [2, 2], strides = [1, 1], pads = [0, "
        "0, 0, 0], "
        "dilations = [1, 1]} : tensor<1x3x3x2xf32>"
    )
    before = ir.lines(module)
    assert ir.same(module, lower) == before
