"""The built-in functions of OpenCL C that the subset has (OpenCL C 1.2, 6.12), by name: what each emits.

    @builtin("clamp")
    def clamp(e, node, arguments): …
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from ...dialects import ppu
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import f32, i32
from .arithmetic import ArithmeticEmitter
from .emitter import Node, Value
from .types import (
    BOOL,
    FLOAT,
    INT,
    NAMES,
    UCHAR,
    UINT,
    ULONG,
    USHORT,
    Arithmetic,
    PointerTo,
    Scalar,
    Vector,
    element_of,
    size_of,
    unsigned,
    with_element,
)

Builtin = Callable[[ArithmeticEmitter, Node, Sequence[Value]], Value]
BUILTINS: dict[str, tuple[int, Builtin]] = {}
"""Number of arguments and definition by name. Arguments are converted by the definition."""


def builtin(count: int, *names: str) -> Callable[[Builtin], Builtin]:
    """Register a function as the definition of built-ins."""

    def register(function: Builtin) -> Builtin:
        for name in names:
            BUILTINS[name] = count, function
        return function

    return register


def builtin_named(name: str) -> tuple[int, Builtin] | None:
    """Number of arguments and definition; conversions are spelled out in their names."""
    if name in BUILTINS:
        return BUILTINS[name]
    conversion = re.fullmatch(r"convert_([a-z]+\d*)(_sat)?(?:_(rte|rtz|rtp|rtn))?", name)
    if conversion and isinstance(NAMES.get(conversion[1]), Arithmetic):
        return 1, converter(name, NAMES[conversion[1]], bool(conversion[2]), conversion[3])  # type: ignore[arg-type]
    reading = re.fullmatch(r"as_([a-z]+\d*)", name)
    if reading and isinstance(NAMES.get(reading[1]), Arithmetic) and reading[1] != "bool":
        return 1, reader(name, NAMES[reading[1]])  # type: ignore[arg-type]
    return None


# --- work items ------------------------------------------------------------------------------------------
def _query(query: str) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        dimension = 0
        if arguments:
            part = e.convert(node, arguments[0], UINT).parts[0]
            owner = part.owner
            if not isinstance(owner, ppu.ConstantOp) or not 0 <= owner.number() < 3:
                e.fail(node, f"the dimension of 'get_{query}' is the constant 0, 1 or 2")
            dimension = int(owner.number())  # type: ignore[union-attr]
        found = e.make(ppu.WorkItemOp, query=query, dimension=dimension)
        if query == "work_dim":
            return e.convert(node, Value(ULONG, (found,)), UINT)
        return Value(ULONG, (found,))

    return emit


for _name in ppu.QUERIES:
    BUILTINS[f"get_{_name}"] = (0 if _name == "work_dim" else 1), _query(_name)


@builtin(1, "barrier")
def barrier(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    e.convert(node, arguments[0], UINT)
    e.emit(ppu.BarrierOp.make())
    return Value(NAMES["void"], ())


# --- conversions -----------------------------------------------------------------------------------------
def converter(name: str, target: Arithmetic, saturate: bool, rounding: str | None) -> Builtin:
    """`convert_T_sat_rte` and its kind (OpenCL C 1.2, 6.2.3): to integers towards zero unless the name says else."""

    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        (value,) = arguments
        if not isinstance(value.type, Arithmetic) or size_of(value.type) != size_of(target):
            e.fail(node, f"'{name}' does not take an argument of type '{value.type}'")
        assert isinstance(value.type, Arithmetic)
        source, element = element_of(value.type), element_of(target)
        if saturate and (element.is_float or element is BOOL):
            e.fail(node, f"'{name}': only conversions to integers saturate")
        if source.bits == 64 and element.is_float and rounding not in (None, "rte"):
            e.fail(node, f"'{name}' of a 64-bit integer is not in the subset; 'rte' is")
        options: dict[str, object] = {"saturate": True} if saturate else {}
        if rounding and source.is_float != element.is_float and element is not BOOL and source is not BOOL:
            options["rounding"] = rounding
        return Value(target, tuple(e.element(p, source, element, **options) for p in value.parts))

    return emit


def reader(name: str, target: Arithmetic) -> Builtin:
    """`as_T`: the same bits, in elements of another type; the first one has the lowest bits."""

    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        (value,) = arguments
        if value.type is BOOL:
            value = e.convert(node, value, INT)
        width = size_of(target) * element_of(target).bits
        if not isinstance(value.type, Arithmetic) or size_of(value.type) * element_of(value.type).bits != width:
            e.fail(node, f"'{name}' does not take an argument of type '{value.type}': it reads {width} bits")
        assert isinstance(value.type, Arithmetic)
        element = element_of(target).element
        parts = regrouped(e, value.parts, element_of(value.type), element_of(target))
        return Value(target, tuple(p if p.type == element else e.make(ppu.BitcastOp, p, type=element) for p in parts))

    return emit


def regrouped(e: ArithmeticEmitter, parts: Sequence[SSAValue], source: Scalar, target: Scalar) -> Sequence[SSAValue]:
    """Numbers as numbers of another width that have the same bits together; floats give integers then."""
    if source.bits == target.bits:
        return parts
    narrow, wide = (by_width(min(source.bits, target.bits)), by_width(max(source.bits, target.bits)))
    if source.is_float:
        parts = [e.make(ppu.BitcastOp, p, type=by_width(source.bits).element) for p in parts]
    count = wide.bits // narrow.bits
    amounts = [e.number(k * narrow.bits, wide.element) for k in range(count)]
    if source.bits == wide.bits:
        return [e.element(e.make(ppu.ShrUOp, p, a), wide, narrow) for p in parts for a in amounts]
    shifted = [e.make(ppu.ShlOp, e.element(p, narrow, wide), amounts[k % count]) for k, p in enumerate(parts)]
    whole = range(0, len(parts), count)
    return [functools.reduce(lambda a, b: e.make(ppu.OrOp, a, b), shifted[k : k + count]) for k in whole]


def by_width(bits: int) -> Scalar:
    """The integer without sign of a width."""
    return next(t for t in (UCHAR, USHORT, UINT, ULONG) if t.bits == bits)


# --- functions of numbers --------------------------------------------------------------------------------
def floats(e: ArithmeticEmitter, node: Node, name: str, arguments: Sequence[Value]) -> tuple[list[Value], Arithmetic]:
    """Arguments as floats: all scalars, or all the shape of the one vector."""
    shape: Arithmetic = FLOAT
    for value in arguments:
        if isinstance(value.type, Vector):
            shape = Vector(FLOAT, value.type.size)
            if not element_of(value.type).is_float:
                e.fail(node, f"'{name}' takes floats, not '{value.type}'")
    return [e.convert(node, v, shape) for v in arguments], shape


def _float_function(name: str, cls: type[DeclarativeOp]) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        values, shape = floats(e, node, name, arguments)
        return e.each(shape, lambda *parts: e.make(cls, *parts), *values)

    return emit


for _name, _count, _cls in (
    ("fabs", 1, ppu.AbsOp), ("sqrt", 1, ppu.SqrtOp), ("native_sqrt", 1, ppu.SqrtOp), ("half_sqrt", 1, ppu.SqrtOp),
    ("floor", 1, ppu.FloorOp),
    ("ceil", 1, ppu.CeilOp), ("trunc", 1, ppu.TruncOp), ("rint", 1, ppu.RintOp), ("fmin", 2, ppu.MinOp),
    ("fmax", 2, ppu.MaxOp), ("fma", 3, ppu.FmaOp),
):  # fmt: skip
    BUILTINS[_name] = _count, _float_function(_name, _cls)


def _float_test(name: str, emit_test: Callable[..., SSAValue]) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        values, shape = floats(e, node, name, arguments)
        return e.logical_result(shape, tuple(emit_test(e, *p) for p in zip(*(v.parts for v in values))))

    return emit


def _is_infinite(e: ArithmeticEmitter, x: SSAValue) -> SSAValue:
    return e.make(ppu.CompareOp, e.make(ppu.AbsOp, x), e.number(float("inf"), f32), predicate="eq")


def _ordered(predicate: str) -> Callable[..., SSAValue]:
    return lambda e, a, b: e.make(ppu.CompareOp, a, b, predicate=predicate)


def _within(low: float, closed: bool) -> Callable[[ArithmeticEmitter, SSAValue], SSAValue]:
    """Whether a magnitude is finite and at least `low`."""

    def emit(e: ArithmeticEmitter, x: SSAValue) -> SSAValue:
        size = e.make(ppu.AbsOp, x)
        finite = e.make(ppu.CompareOp, size, e.number(float("inf"), f32), predicate="lt")
        if not closed:
            return finite
        return e.make(ppu.AndOp, finite, e.make(ppu.CompareOp, size, e.number(low, f32), predicate="ge"))

    return emit


def _both_numbers(e: ArithmeticEmitter, a: SSAValue, b: SSAValue) -> SSAValue:
    return e.make(ppu.AndOp, *(e.make(ppu.CompareOp, x, x, predicate="eq") for x in (a, b)))


def _one_is_larger(e: ArithmeticEmitter, a: SSAValue, b: SSAValue) -> SSAValue:
    return e.make(ppu.OrOp, *(e.make(ppu.CompareOp, a, b, predicate=p) for p in ("lt", "gt")))


def _sign_is_set(e: ArithmeticEmitter, x: SSAValue) -> SSAValue:
    return e.make(ppu.CompareOp, e.make(ppu.BitcastOp, x, type=i32), e.number(0, i32), predicate="lt")


for _name, _count, _test in (
    ("isnan", 1, lambda e, x: e.make(ppu.CompareOp, x, x, predicate="ne")), ("isinf", 1, _is_infinite),
    ("isfinite", 1, _within(0.0, False)), ("isnormal", 1, _within(2.0**-126, True)), ("signbit", 1, _sign_is_set),
    ("isequal", 2, _ordered("eq")), ("isnotequal", 2, _ordered("ne")), ("isgreater", 2, _ordered("gt")),
    ("isgreaterequal", 2, _ordered("ge")), ("isless", 2, _ordered("lt")), ("islessequal", 2, _ordered("le")),
    ("islessgreater", 2, _one_is_larger), ("isordered", 2, _both_numbers),
    ("isunordered", 2, lambda e, a, b: e.make(ppu.XorOp, _both_numbers(e, a, b), e.true)),
):  # fmt: skip
    BUILTINS[_name] = _count, _float_test(_name, _test)


def matching(e: ArithmeticEmitter, node: Node, name: str, arguments: Sequence[Value]) -> tuple[list[Value], Arithmetic]:
    """Arguments as one type: they have to agree already, but for scalars beside a vector and int constants."""
    type_ = arguments[0].type
    if not isinstance(type_, Arithmetic):
        e.fail(node, f"'{name}' does not take an argument of type '{type_}'")
    values = [e.convert(node, v, INT) if v.type is BOOL else v for v in arguments]
    shape = values[0].type
    assert isinstance(shape, Arithmetic)
    for value in values[1:]:
        if isinstance(shape, Scalar) and value.type != shape and not _literal(value):
            e.fail(node, f"'{name}' takes arguments of one type, not '{shape}' and '{value.type}': convert one of them")
    return [e.convert(node, v, shape) for v in values], shape


def _literal(value: Value) -> bool:
    return len(value.parts) == 1 and isinstance(value.parts[0].owner, ppu.ConstantOp)


def _extreme(name: str, plain: type[DeclarativeOp], without_sign: type[DeclarativeOp]) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        values, shape = matching(e, node, name, arguments)
        cls = plain if element_of(shape).signed else without_sign
        return e.each(shape, lambda a, b: e.make(cls, a, b), *values)

    return emit


minimum, maximum = _extreme("min", ppu.MinOp, ppu.MinUOp), _extreme("max", ppu.MaxOp, ppu.MaxUOp)
BUILTINS |= {"min": (2, minimum), "max": (2, maximum)}


@builtin(3, "clamp")
def clamp(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    x, low, high = arguments
    return minimum(e, node, [maximum(e, node, [x, low]), high])


@builtin(1, "abs")
def absolute(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    """The magnitude, in the type without sign."""
    (value,), shape = matching(e, node, "abs", arguments)
    element = element_of(shape)
    if element.is_float:
        e.fail(node, f"'abs' takes integers, not '{shape}'; 'fabs' takes floats")
    result = with_element(shape, unsigned(element))
    return Value(result, value.parts) if not element.signed else e.each(result, lambda x: e.make(ppu.AbsOp, x), value)


@builtin(3, "mad")
def multiply_add(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    """a · b + c with two roundings, which the standard leaves open."""
    (a, b, c), _ = floats(e, node, "mad", arguments)
    return e.binary(node, "+", e.binary(node, "*", a, b), c)


@builtin(2, "copysign")
def copysign(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    """The magnitude of the first with the sign bit of the second, whatever both are."""
    (x, y), shape = floats(e, node, "copysign", arguments)
    most, least = e.number(0x7FFFFFFF, i32), e.number(-(2**31), i32)

    def join(a: SSAValue, b: SSAValue) -> SSAValue:
        bits = [e.make(ppu.BitcastOp, p, type=i32) for p in (a, b)]
        made = e.make(ppu.OrOp, e.make(ppu.AndOp, bits[0], most), e.make(ppu.AndOp, bits[1], least))
        return e.make(ppu.BitcastOp, made, type=f32)

    return e.each(shape, join, x, y)


@builtin(3, "select")
def choose(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
    """`c ? b : a`; of vectors each element by its sign bit (OpenCL C 1.2, 6.12.6)."""
    a, b, c = arguments
    (a, b), shape = matching(e, node, "select", [a, b])
    ctype = c.type
    if not isinstance(ctype, Arithmetic) or element_of(ctype).is_float or size_of(ctype) != size_of(shape):
        e.fail(node, f"'select' does not take a condition of type '{c.type}'")
    if isinstance(shape, Scalar):
        return e.each(shape, lambda p, q, t: e.make(ppu.SelectOp, t, q, p), a, b, e.convert(node, c, BOOL))
    zero = e.number(0, element_of(ctype).element)  # type: ignore[arg-type]
    negative = e.each(shape, lambda t: e.make(ppu.CompareOp, t, zero, predicate="lt"), c)
    return e.each(shape, lambda p, q, t: e.make(ppu.SelectOp, t, q, p), a, b, negative)


# --- vectors in arrays of scalars ------------------------------------------------------------------------
def _vector_pointer(e: ArithmeticEmitter, node: Node, name: str, size: int, pointer: Value) -> tuple[Vector, Value]:
    if not isinstance(pointer.type, PointerTo) or not isinstance(pointer.type.element, Scalar) or pointer.type.rows:
        e.fail(node, f"'{name}' takes a pointer to scalars, not '{pointer.type}'")
    assert isinstance(pointer.type, PointerTo) and isinstance(pointer.type.element, Scalar)
    return Vector(pointer.type.element, size), pointer


def _offsets(e: ArithmeticEmitter, node: Node, size: int, offset: Value) -> list[SSAValue]:
    first = e.make(ppu.MulOp, e.index(node, offset), e.number(size, ULONG.element))
    return [e.make(ppu.AddOp, first, e.number(k, ULONG.element)) for k in range(size)]


def _vload(size: int) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        type_, pointer = _vector_pointer(e, node, f"vload{size}", size, arguments[1])
        places = _offsets(e, node, size, arguments[0])
        return Value(type_, tuple(e.load(pointer, at).parts[0] for at in places))

    return emit


def _vstore(size: int) -> Builtin:
    def emit(e: ArithmeticEmitter, node: Node, arguments: Sequence[Value]) -> Value:
        type_, pointer = _vector_pointer(e, node, f"vstore{size}", size, arguments[2])
        value = e.convert(node, arguments[0], type_)
        for part, at in zip(value.parts, _offsets(e, node, size, arguments[1])):
            e.store(node, Value(type_.element, (part,)), pointer, at)
        return Value(NAMES["void"], ())

    return emit


for _size in (2, 4, 8, 16):
    BUILTINS[f"vload{_size}"] = 2, _vload(_size)
    BUILTINS[f"vstore{_size}"] = 3, _vstore(_size)

LEFT_OUT = re.compile(
    r"a?(sin|cos|tan)pi|atan2pi|sincos|pown|rootn|[lt]gamma(_r)?|fract|modf|frexp|remquo|nan"
    r"|atomic?_\w+|async_\w+|mem_fence|(read|write)_mem_fence|printf|shuffle2?"
    r"|fast_\w+|mad_sat|upsample|ctz|bitselect|prefetch|wait_group_events|vec_step"
)
"""Built-ins of OpenCL C that the subset does not have."""
