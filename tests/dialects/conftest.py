"""What dialect tests share: text that reads back as itself, and messages for text that does not fit."""

import pytest
from nacre.dialects.text import make_context, parse_module, print_module
from nacre.errors import NacreError
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation


class Syntax:
    """Helpers, handed to tests as the fixture `syntax`."""

    def module(self, arguments: list[Attribute], body) -> ModuleOp:
        """@main with arguments and the ops that `body` makes of them."""
        function = FuncOp("main", (arguments, []))
        block = function.body.block
        ops: list[Operation] = list(body(*block.args))
        block.add_ops([*ops, ReturnOp()])
        return ModuleOp([function])

    def both_forms(self, module: ModuleOp | str, label: str = "<text>") -> str:
        """Check that a module reads back as itself in both forms, and give the custom text."""
        if isinstance(module, str):
            module = self.parse(module, label)
        module.verify()
        texts = []
        for generic in (False, True):
            text = print_module(module, generic=generic)
            again = parse_module(text, make_context(), label)
            assert print_module(again, generic=generic) == text
            texts.append(print_module(again))
        assert texts[0] == texts[1], "the generic form says something else than the custom form"
        return texts[0]

    def parse(self, text: str, label: str = "<text>") -> ModuleOp:
        """A module from text; a text without a function is the body of one."""
        if "func.func" not in text and "builtin.module" not in text:
            text = f"func.func @main() {{\n{text}\nfunc.return\n}}"
        return parse_module(text, make_context(), label)

    def refuses(self, text: str, message: str) -> None:
        """Check that text is refused with a message that holds these words."""
        with pytest.raises(NacreError) as refusal:
            self.parse(text)
        assert message in str(refusal.value), f"\n{refusal.value}"


@pytest.fixture(scope="session")
def syntax() -> Syntax:
    return Syntax()
