"""The engine's machine code: a function as bytes and back.

Little endian. A header, the strings, the arguments, the instructions and, if wanted, a table of source lines. An
instruction is a word of 12 bytes (opcode, type, registers, number of immediates) and its immediates of 8 bytes. Every
value has a register of its own. Control flow is structured:

    if c … move r, a   else … move r, b   end             the moves give the results
    move k, start   loop … move k, next   end again       k is the argument in the body and the result after it
    group x, y, z                                         first of all: the work group the kernel is written for

The moves before a loop, an `else` or an `end` happen together: none sees what another of them wrote.
Opcodes, operands and immediates follow from the classes of the dialect; attributes that are no parameters are left out.
"""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, StringAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from ...dialects import ppu
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import f32
from ...errors import CompileError

MAGIC = b"PPU1"
HEADER = struct.Struct("<4s6I")
"""Magic, instruction set, kernel's name (a string), strings, arguments, instructions, lines."""
ARGUMENT = struct.Struct("<BxxxI")
"""Type, name."""
WORD = struct.Struct("<BBHHHHH")
"""Opcode, type of the result (of moves: of the value), result, three operands, number of immediates."""
IMMEDIATE = struct.Struct("<q")
MAX_TABLE = 8 * (0xFFFF - 2)
"""Bytes of a table, which are immediates behind its label and its length."""
LINE = struct.Struct("<4I")
"""Number of the instruction, file, line, column."""
NONE = 0xFFFF
FUNCTION = 0xFFFFFFFF
"""Stands for the function where a line belongs to it."""
MAX_DEPTH = 64
"""Regions within regions."""


class Control(IntEnum):
    """Opcodes that are no operations of their own."""

    MOVE = 0xF0
    ELSE = 0xF1
    END = 0xF2
    GROUP = 0xF3


TYPES: tuple[Attribute, ...] = (
    *ppu.SCALARS, *(ppu.pointer(e, s) for s in ppu.Space for e in (*ppu.INTEGERS, f32)),
)  # fmt: skip
TYPE_CODE = {type_: code for code, type_ in enumerate(TYPES)}
OPCODE = {cls: code for code, cls in enumerate(ppu.OPS)}


@functools.cache
def parameters_of(cls: type[Operation]) -> tuple[tuple[str, bool], ...]:
    """Names of the parameters that a class declares, in order, and whether each is a word."""
    if not issubclass(cls, DeclarativeOp):
        return ()
    declared = cls.get_irdl_definition().properties
    return tuple((name, StringAttr in (d.constr.get_bases() or ())) for name, d in declared.items())


@functools.cache
def operands_of(cls: type[Operation]) -> int:
    """How many operands a class declares."""
    return len(cls.get_irdl_definition().operands)  # type: ignore[attr-defined]


@functools.cache
def instruction_set() -> int:
    """A checksum of operations, parameters and types: code of another set of them is refused."""
    table = [(c.name, operands_of(c), parameters_of(c)) for c in ppu.OPS]
    return zlib.crc32(repr((table, [str(t) for t in TYPES])).encode())


def encode(function: ppu.FuncOp, lines: bool = True) -> bytes:
    """A verified function as machine code; with lines, faults of the decoded function name their place in the source.

    Raises CompileError for a function that is too large for it.
    """
    return Encoder(lines).function(function)


@dataclass
class Encoder:
    """Collects the sections."""

    lines: bool
    code: bytearray = field(default_factory=bytearray)
    table: bytearray = field(default_factory=bytearray)
    count: int = 0
    registers: dict[SSAValue, int] = field(default_factory=dict)
    taken: int = 0
    strings: dict[str, int] = field(default_factory=dict)
    depth: int = 0

    def function(self, op: ppu.FuncOp) -> bytes:
        name = self.string(op.sym_name.data)
        arguments = b"".join(
            ARGUMENT.pack(TYPE_CODE[a.type], self.string(n)) for n, a in zip(op.names(), op.body.block.args)
        )
        for argument in op.body.block.args:
            self.registers[argument] = self.new()
        self.locate(op, FUNCTION)
        if (group := op.group_size()) is not None:
            self.word(Control.GROUP, immediates=group)
        self.block(op.body.block)
        self.word(OPCODE[ppu.ReturnOp], at=op.body.block.last_op)
        texts = b"".join(struct.pack("<I", len(t)) + t for t in map(str.encode, self.strings))
        lines = len(self.table) // LINE.size
        head = (MAGIC, instruction_set(), name, len(self.strings), len(op.names()), self.count, lines)
        return HEADER.pack(*head) + texts + arguments + self.code + self.table

    # -- tables
    def new(self) -> int:
        if self.taken == NONE:
            raise CompileError(f"a kernel of more than {NONE} values is too large for the engine: split it")
        self.taken += 1
        return self.taken - 1

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def locate(self, op: Operation | None, number: int) -> None:
        """An entry of the line table."""
        if self.lines and op is not None and isinstance(at := op.location, FileLineColLoc):
            self.table += LINE.pack(number, self.string(at.filename.data), at.line.data, at.column.data)

    def word(
        self, opcode: int, type_: Attribute | None = None, result: int = NONE, operands: tuple[int, ...] = (),
        immediates: tuple[int, ...] = (), at: Operation | None = None,
    ) -> None:  # fmt: skip
        a, b, c = (*operands, NONE, NONE, NONE)[:3]
        code = 0 if type_ is None else TYPE_CODE[type_]
        self.locate(at, self.count)
        self.code += WORD.pack(opcode, code, result, a, b, c, len(immediates))
        self.code += b"".join(map(IMMEDIATE.pack, immediates))
        self.count += 1

    # -- operations
    def block(self, block: Block) -> None:
        """All but the terminator."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CompileError(f"a kernel of more than {MAX_DEPTH} ppu.if and ppu.loop in each other: split it")
        for op in block.ops:
            if isinstance(op, ppu.IfOp):
                self.decision(op)
            elif isinstance(op, ppu.LoopOp):
                self.loop(op)
            elif not isinstance(op, (ppu.YieldOp, ppu.ReturnOp)):
                self.plain(op)
        self.depth -= 1

    def moves(self, targets: list[int], values: list[SSAValue]) -> None:
        for target, value in zip(targets, values):
            self.word(Control.MOVE, value.type, target, (self.registers[value],))

    def decision(self, op: ppu.IfOp) -> None:
        targets = [self.new() for _ in op.outputs]
        self.word(OPCODE[ppu.IfOp], operands=(self.registers[op.condition],), at=op)
        for region, end in ((op.then, Control.ELSE), (op.otherwise, Control.END)):
            self.block(region.block)
            last = region.block.last_op
            assert last is not None
            self.moves(targets, list(last.operands))
            self.word(end, at=last)
        self.registers.update(zip(op.outputs, targets))

    def loop(self, op: ppu.LoopOp) -> None:
        carried = [self.new() for _ in op.inputs]
        self.moves(carried, list(op.inputs))
        self.word(OPCODE[ppu.LoopOp], at=op)
        self.registers.update(zip(op.body.block.args, carried))
        self.block(op.body.block)
        last = op.body.block.last_op
        assert last is not None
        again, *latest = last.operands
        self.moves(carried, latest)
        self.word(Control.END, operands=(self.registers[again],), at=last)
        self.registers.update(zip(op.outputs, carried))

    def plain(self, op: Operation) -> None:
        """An operation without regions."""
        immediates: tuple[int, ...] = ()
        if isinstance(op, ppu.ConstantOp):
            number = op.number()
            immediates = (int(np.float32(number).view(np.uint32)) if op.result.type == f32 else int(number),)
        elif isinstance(op, ppu.TableOp):
            immediates = self.contents(op)
        elif isinstance(op, DeclarativeOp):
            given = op.parameters()
            words = parameters_of(type(op))
            immediates = tuple(self.string(given[n]) if is_word else int(given[n]) for n, is_word in words)
        operands = tuple(self.registers[v] for v in op.operands)
        type_, result = None, NONE
        if op.results:
            type_, result = op.results[0].type, self.new()
            self.registers[op.results[0]] = result
        self.word(OPCODE[type(op)], type_, result, operands, immediates, op)

    def contents(self, op: ppu.TableOp) -> tuple[int, ...]:
        """The immediates of a table: label, length in bytes, and the bytes, with zeros up to a whole immediate."""
        data = op.values.data.data
        if len(data) > MAX_TABLE:
            found = f"the table '{op.label.data}' has {len(data)} bytes"
            raise CompileError(f"{found}, of which at most {MAX_TABLE} fit: pass it as an argument")
        padded = data + bytes(-len(data) % IMMEDIATE.size)
        return self.string(op.label.data), len(data), *(word for (word,) in IMMEDIATE.iter_unpack(padded))


assert len(ppu.OPS) <= Control.MOVE, "opcodes of operations and of control flow do not meet"
