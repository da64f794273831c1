"""Launches of quantised_curve.cl: logistic function and hyperbolic tangent of int16."""

from __future__ import annotations

import math

from ....passes.npu.soft_kernels import Arguments, Build, Call, Defines, Library
from ....runtime.kernels.quantised_functions import logistic_samples
from .quantised_softmax import samples

LIBRARY = Library(__package__)


def of_curve(build: Build) -> Defines:
    """How the input becomes steps of 1 / (3 * 4096), and the samples of the logistic function."""
    multiplier, shift = build.parameters.multiplier, build.parameters.shift
    half = 1 << (shift - 1) if shift else 0
    return {"MULTIPLIER": multiplier, "SHIFT": shift, "HALF": half, "SAMPLES": samples(logistic_samples())}


@LIBRARY.kernel("qnn.logistic", "quantised_curve.cl", defines=of_curve)
@LIBRARY.kernel("qnn.tanh", "quantised_curve.cl", entry="tanh16", defines=of_curve)
def curve(call: Call) -> Arguments:
    """One work item an element."""
    return Arguments((), (math.prod(call.outputs[0]),))
