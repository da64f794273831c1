"""What quantisation tests share: calibrate on random inputs, quantise, compare with the float module."""

import numpy as np
import pytest
from nacre.dialects.declarative import DeclarativeOp
from nacre.passes.quantise.calibrate import calibrate
from nacre.passes.quantise.quantise import quantise
from nacre.passes.rewrite import canonicalize
from nacre.runtime.interpreter import expected_inputs, interpret, main_function
from xdsl.dialects.builtin import ModuleOp


class Quantisation:
    """Helpers, handed to tests as the fixture `qu`."""

    def feeds(self, module: ModuleOp, count: int, low: float = -3, high: float = 3) -> list[dict]:
        """Uniformly distributed inputs (integers and booleans: 0 and 1)."""
        rng = np.random.default_rng(count)
        inputs = expected_inputs(main_function(module))
        return [
            {
                name: rng.uniform(low, high, shape).astype(dtype)
                if dtype == np.float32
                else rng.integers(0, 2, shape).astype(dtype)
                for name, (shape, dtype) in inputs.items()
            }
            for _ in range(count)
        ]

    def error(self, module: ModuleOp, dtype: str = "int8", low: float = -3, high: float = 3) -> float:
        """Quantise in place; the largest error of the first result on inputs that were calibrated on, as a
        share of the result's range."""
        feeds = self.feeds(module, 4, low, high)
        wanted = [next(iter(interpret(module, f).values())) for f in feeds]
        calibrate(module, feeds)
        quantise(module, dtype)
        module.verify()
        found = [next(iter(interpret(module, f).values())) for f in feeds]
        assert all(f.shape == w.shape and f.dtype == w.dtype for f, w in zip(found, wanted))
        span = max(max(w.max() for w in wanted), 0) - min(min(w.min() for w in wanted), 0)
        return max(float(np.abs(f.astype(np.float64) - w).max()) for f, w in zip(found, wanted)) / span

    def names(self, module: ModuleOp) -> list[str]:
        """The ops that compute or cast, with the dialect where it is not graph."""
        canonicalize(module)
        ops = main_function(module).body.block.ops
        skipped = ("graph.constant", "func.return")
        return [op.name.removeprefix("graph.") for op in ops if op.name not in skipped]

    def op(self, module: ModuleOp, name: str) -> DeclarativeOp:
        """The only op of a name."""
        [found] = [op for op in main_function(module).body.block.ops if op.name == name]
        return found


@pytest.fixture(scope="session")
def qu() -> Quantisation:
    return Quantisation()
