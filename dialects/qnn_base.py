"""What the operations of the qnn dialect share: their base class, and how a result is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import traits_def
from xdsl.traits import Pure

from .declarative import Canonicalizes, DeclarativeOp
from .graph_base import fail
from .quant import STORAGE_NAMES, QuantType
from .types import element_type, i32, i64, storage_of, tensor


class QnnOp(DeclarativeOp):
    """An integer operation; the builder chooses the quantised element type of its first result, mostly the only one."""

    traits = traits_def(Pure(), Canonicalizes())

    def shape(self) -> tuple[int, ...]:
        """The result's shape. Raises VerifyException where operands and parameters do not fit."""
        raise NotImplementedError(f"{self.name} has no shape rule")

    def types(self, element: Attribute) -> list[Attribute]:
        """The results' types, the first one's element type given."""
        return [tensor(self.shape(), element)]

    def infer(self) -> Sequence[Attribute]:
        return self.types(element_type(self.results[0]))

    @classmethod
    def make(  # type: ignore[override]
        cls, *operands: SSAValue, element: Attribute, location: LocationAttr | None = None, **parameters: Any
    ) -> Self:
        """Build the op with a first result of the given quantised element type; the shape is inferred."""
        op = cls._unchecked(operands, parameters, ())
        made = cls.create(operands=operands, properties=op.properties, result_types=op.types(element))
        op.drop_all_references()
        if location is not None:
            made.location = location
        return made

    def verify_(self) -> None:
        super().verify_()
        for value in (*self.operands, *self.results):
            element = element_type(value)
            if not isinstance(element, QuantType) and element not in (i32, i64):
                raise fail(self, f"works on quantised tensors, i32 and i64, not on {element}")


def check_storage(op: DeclarativeOp, operand: SSAValue, result: SSAValue) -> None:
    """The result is stored as the operand is, or as the parameter `to` says."""
    before, after = storage_of(element_type(operand)), storage_of(element_type(result))
    wanted = STORAGE_NAMES.get(to) if (to := op.parameters().to) else before
    if not to and before != after:
        raise fail(op, f"keeps the storage type, but goes from {before} to {after}")
    if wanted != after:
        raise fail(op, f"goes to {to}, but the result is stored in {after}")
