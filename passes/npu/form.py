"""Which form an npu module is in: whole layers in DRAM, tiles in SRAM, or addresses."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr

from ...errors import CompileError

LAYER, TILE, ADDRESS = "layer", "tile", "address"
ATTRIBUTE = "npu.form"


def form_of(module: ModuleOp) -> str | None:
    """The form a module says it is in, None for a module of another level."""
    attribute = module.attributes.get(ATTRIBUTE)
    return attribute.data if isinstance(attribute, StringAttr) else None


def set_form(module: ModuleOp, form: str) -> None:
    """Record the form."""
    module.attributes[ATTRIBUTE] = StringAttr(form)


def require_form(module: ModuleOp, form: str, pass_name: str) -> None:
    """Raise CompileError when a pass is run on a module of another form."""
    if (found := form_of(module)) != form:
        what = f"is in {found} form" if found else "is no npu module"
        raise CompileError(f"{pass_name} works on the npu dialect's {form} form, but the module {what}")
