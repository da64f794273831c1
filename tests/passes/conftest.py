"""What pass tests share: parse a small function, show it with values numbered, run it on random inputs."""

from collections.abc import Callable
from io import StringIO

import numpy as np
import pytest
from nacre.dialects.graph import GRAPH
from nacre.dialects.nacre import NACRE, sources_of
from nacre.dialects.quant import QUANT
from nacre.runtime.interpreter import expected_inputs, interpret, main_function
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer


class Ir:
    """Helpers on modules, handed to tests as the fixture `ir`."""

    def parse(self, text: str) -> ModuleOp:
        """A module from text; text without a function is the body of one that takes %x and returns %y.

        Such text starts with the line `x: TYPE[, name: TYPE …]`.
        """
        if "func.func" not in text:
            head, body = text.strip().split("\n", 1)
            args = ", ".join(f"%{part.strip()}" for part in head.split(";"))
            text = f"func.func @main({args}) -> ANY {{\n{body}\nfunc.return %y : ANY\n}}"
            text = text.replace("ANY", self._type_of_y(body))
        context = Context()
        for dialect in (Builtin, Func, GRAPH, QUANT, NACRE):
            context.load_dialect(dialect)
        module = Parser(context, text).parse_module()
        module.verify()
        return module

    def _type_of_y(self, body: str) -> str:
        line = next(line for line in body.splitlines() if line.strip().startswith("%y ="))
        return line.rsplit(" loc(", 1)[0].rsplit(" : ", 1)[1].split(" to ")[-1]

    def lines(self, module: ModuleOp, locations: bool = False) -> list[str]:
        """The body of @main, an op a line, values numbered in order."""
        for op in module.walk():
            for value in op.results:
                value.name_hint = None
            for region in op.regions:
                for block in region.blocks:
                    for value in block.args:
                        value.name_hint = None
        out = StringIO()
        Printer(out, print_debuginfo=locations).print_op(module)
        text = [line.strip() for line in out.getvalue().splitlines()]
        start = next(i for i, line in enumerate(text) if line.startswith("func.func"))
        return [line for line in text[start + 1 :] if line.startswith("%")]

    def names(self, module: ModuleOp) -> list[str]:
        """The names of @main's ops without prefix, constants left out."""
        ops = main_function(module).body.block.ops
        return [
            op.name.removeprefix("graph.") for op in ops if op.name not in ("graph.constant", "func.return")
        ]

    def feeds(self, module: ModuleOp, seed: int = 0) -> dict[str, np.ndarray]:
        """Random inputs."""
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(shape) * 3).astype(dtype)
            for name, (shape, dtype) in expected_inputs(main_function(module)).items()
        }

    def run(self, module: ModuleOp, seed: int = 0) -> list[np.ndarray]:
        """The results on random inputs."""
        return list(interpret(module, self.feeds(module, seed)).values())

    def same(self, module: ModuleOp, change: Callable[[ModuleOp], None], rtol: float = 0) -> list[str]:
        """Apply a change, check that it verifies and computes the same (rtol 0: exactly); the new lines."""
        before = self.run(module)
        change(module)
        module.verify()
        after = self.run(module)
        assert len(before) == len(after)
        for old, new in zip(before, after):
            assert old.shape == new.shape and old.dtype == new.dtype
            if rtol:
                np.testing.assert_allclose(new, old, rtol=rtol, atol=rtol * max(1e-6, np.abs(old).max()))
            else:
                np.testing.assert_array_equal(new, old)
        return self.lines(module)

    def sources(self, module: ModuleOp, seed: int = 0) -> dict[str, np.ndarray]:
        """Every source tensor that some value still holds, in the source's axis order."""
        found: dict[str, np.ndarray] = {}

        def watch(value, array):
            for source in sources_of(value):
                found[source.tensor] = array.transpose(np.argsort(source.axes))

        interpret(module, self.feeds(module, seed), watch)
        return found


@pytest.fixture(scope="session")
def ir() -> Ir:
    return Ir()
