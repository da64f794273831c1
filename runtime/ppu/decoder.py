"""Machine code as a function again. Nothing that the bytes say is believed before it is checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, LocationAttr, StringAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from ...dialects import ppu
from ...dialects.declarative import DeclarativeOp
from ...dialects.types import DTYPE_OF, f32, i1
from ...errors import FileFormatError
from .code import (
    ARGUMENT,
    FUNCTION,
    HEADER,
    IMMEDIATE,
    LINE,
    MAGIC,
    MAX_DEPTH,
    TYPES,
    WORD,
    Control,
    instruction_set,
    operands_of,
    parameters_of,
)

LENGTH = struct.Struct("<I")


def decode(code: bytes | memoryview) -> ppu.FuncOp:
    """The function that machine code stands for, verified. Raises FileFormatError where it is damaged or none."""
    decoder = Decoder(bytes(code))
    try:
        return decoder.function()
    except (struct.error, IndexError, KeyError, ValueError, VerifyException) as error:
        where = f"instruction {decoder.count}" if decoder.count else "its head"
        reason = "it names a register, type or word that there is not"
        if not isinstance(error, (IndexError, KeyError)):
            reason = str(error).strip().splitlines()[-1]
        raise FileFormatError(f"the code of a kernel is damaged at byte {decoder.at} ({where}): {reason}") from None


@dataclass
class Frame:
    """A region that is being read."""

    op: type[Operation]
    block: Block
    location: LocationAttr | None
    inputs: list[SSAValue]
    """The condition of a ppu.if, the start values of a loop."""
    targets: list[int]
    """The registers that a loop carries, or that the first region of a ppu.if gives."""
    outside: dict[int, SSAValue]
    """Registers as they were before it."""
    then: Block | None = None
    """The first region of a ppu.if once it is complete."""


@dataclass
class Decoder:
    """Reads one section after the other."""

    code: bytes
    at: int = 0
    count: int = 0
    strings: list[str] = field(default_factory=list)
    lines: dict[int, LocationAttr] = field(default_factory=dict)
    registers: dict[int, SSAValue] = field(default_factory=dict)
    moves: list[tuple[int, SSAValue]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    group: Sequence[int] | None = None

    def unpack(self, packing: struct.Struct) -> tuple:
        values = packing.unpack_from(self.code, self.at)
        self.at += packing.size
        return values

    def function(self) -> ppu.FuncOp:
        magic, version, name, strings, arguments, words, lines = self.unpack(HEADER)
        if magic != MAGIC or version != instruction_set():
            found = "it does not begin as code does" if magic != MAGIC else "it is of another version of the engine"
            raise ValueError(f"{found}; compile the kernel anew")
        for _ in range(strings):
            (length,) = self.unpack(LENGTH)
            if length > len(self.code) - self.at:
                raise ValueError("a string goes beyond the end")
            self.strings.append(self.code[self.at : self.at + length].decode())
            self.at += length
        declared = [self.unpack(ARGUMENT) for _ in range(arguments)]
        block = Block(arg_types=[TYPES[code] for code, _ in declared])
        self.registers.update(enumerate(block.args))
        self.lines = self.line_table(lines)
        self.frames.append(Frame(ppu.FuncOp, block, None, [], [], {}))
        for number in range(words):
            self.count = number
            self.instruction(number, number == words - 1)
        if self.frames or self.at + lines * LINE.size != len(self.code):
            raise ValueError("the code does not end where its head says")
        names = [self.strings[n] for _, n in declared]
        function = ppu.FuncOp.of(self.strings[name], names, Region(block), self.group)
        if FUNCTION in self.lines:
            function.location = self.lines[FUNCTION]
        function.verify()
        return function

    def line_table(self, count: int) -> dict[int, LocationAttr]:
        start = len(self.code) - count * LINE.size
        if start < self.at:
            raise ValueError("there are fewer bytes than lines need")
        rows = LINE.iter_unpack(self.code[start:])
        return {k: source_line(self.strings[f], line, column) for k, f, line, column in rows}

    # -- instructions
    def instruction(self, number: int, last: bool) -> None:
        """One word with its immediates."""
        opcode, code, result, *operands, count = self.unpack(WORD)
        immediates = [self.unpack(IMMEDIATE)[0] for _ in range(count)]
        at, type_ = self.lines.get(number), TYPES[code]
        if not self.frames:
            raise ValueError("an instruction after the end")
        if opcode == Control.MOVE:
            value = self.registers[operands[0]]
            if value.type != type_:
                raise ValueError(f"a move of {value.type} says it is one of {type_}")
            self.moves.append((result, value))
            return
        if opcode == Control.GROUP:
            if number:
                raise ValueError("the work group is not the first instruction")
            self.group = immediates
            return
        if opcode in (Control.ELSE, Control.END):
            self.end(opcode, operands[0], at)
            return
        cls = ppu.OPS[opcode]
        if cls is ppu.LoopOp:
            self.loop(at)
        elif self.moves:
            raise ValueError(f"moves lead to {cls.name}")
        elif cls is ppu.IfOp:
            self.enter(Frame(cls, Block(), at, [self.registers[operands[0]]], [], dict(self.registers)))
        elif cls is ppu.ReturnOp:
            if len(self.frames) > 1 or not last:
                raise ValueError("the function ends in the midst of it")
            self.append(ppu.ReturnOp.make(), at)
            self.frames.pop()
        elif cls in (ppu.YieldOp, ppu.FuncOp):
            raise ValueError(f"{cls.name} is no instruction")
        else:
            op = self.plain(cls, type_, [self.registers[k] for k in operands[: operands_of(cls)]], immediates)
            self.append(op, at)
            if op.results:
                if op.results[0].type != type_:
                    raise ValueError(f"{cls.name} gives {op.results[0].type}, not {type_}")
                self.registers[result] = op.results[0]

    def append(self, op: Operation, at: LocationAttr | None) -> None:
        if at is not None:
            op.location = at
        self.frames[-1].block.add_op(op)

    def plain(
        self, cls: type[Operation], type_: Attribute, operands: Sequence[SSAValue], immediates: Sequence[int]
    ) -> Operation:
        """An operation without regions."""
        if issubclass(cls, ppu.ConstantOp):
            (bits,) = immediates
            if type_ not in ppu.SCALARS:
                raise ValueError(f"there is no constant of type {type_}")
            number = float(np.array(bits & 0xFFFFFFFF, np.uint32).view(np.float32)) if type_ == f32 else bits
            return cls.of(bool(bits) if type_ == i1 else number, type_)
        if issubclass(cls, ppu.TableOp):
            return self.table(type_, immediates)
        assert issubclass(cls, DeclarativeOp)
        words = parameters_of(cls)
        if len(immediates) != len(words):
            raise ValueError(f"{cls.name} has {len(words)} immediates, not {len(immediates)}")
        given: dict[str, Any] = {}
        for (name, is_word), value in zip(words, immediates):
            if is_word and value < 0:
                raise ValueError("a word has no negative number")
            default = cls.defaults().get(name)
            given[name] = self.strings[value] if is_word else bool(value) if is_flag(default) else value
        if issubclass(cls, ppu.TypedOp):
            return cls.make(*operands, type=type_, **given)
        return cls.make(*operands, **given)

    def table(self, type_: Attribute, immediates: Sequence[int]) -> ppu.TableOp:
        """A table of its label, its length in bytes and its bytes."""
        if not isinstance(type_, ppu.PointerType) or type_.data.space is not ppu.Space.CONSTANT:
            raise ValueError(f"a table lies in constant memory, not in {type_}")
        if len(immediates) < 2:
            raise ValueError("a table has neither a label nor a length")
        label, length, *words = immediates
        dtype, data = DTYPE_OF[type_.data.element], b"".join(map(IMMEDIATE.pack, words))
        if length < 1 or length % dtype.itemsize or -(-length // IMMEDIATE.size) != len(words) or any(data[length:]):
            raise ValueError(f"{len(data)} bytes are no table of {length} bytes of {type_.data.element}")
        if label < 0:
            raise ValueError("a word has no negative number")
        return ppu.TableOp.of(np.frombuffer(data[:length], dtype.newbyteorder("<")), self.strings[label])

    # -- control flow
    def enter(self, frame: Frame) -> None:
        if len(self.frames) >= MAX_DEPTH:
            raise ValueError(f"there are more than {MAX_DEPTH} regions in each other")
        self.frames.append(frame)

    def loop(self, at: LocationAttr | None) -> None:
        """The moves so far are the start values."""
        targets, inputs = [k for k, _ in self.moves], [v for _, v in self.moves]
        self.moves = []
        block = Block(arg_types=[v.type for v in inputs])
        self.enter(Frame(ppu.LoopOp, block, at, inputs, targets, dict(self.registers)))
        self.registers.update(zip(targets, block.args))

    def end(self, opcode: int, condition: int, at: LocationAttr | None) -> None:
        """A region is complete: its moves are what it gives."""
        targets, values = [k for k, _ in self.moves], [v for _, v in self.moves]
        self.moves = []
        frame = self.frames[-1]
        starts_else = opcode == Control.ELSE
        if starts_else != (frame.op is ppu.IfOp and frame.then is None) or frame.op is ppu.FuncOp:
            raise ValueError(f"{Control(opcode).name.lower()} where {frame.op.name} does not expect it")
        if not starts_else and targets != frame.targets:
            raise ValueError(f"the moves of {frame.op.name} have not the same targets")
        again = [self.registers[condition]] if frame.op is ppu.LoopOp else []
        self.append(ppu.YieldOp.of(*again, *values), at)
        self.registers = dict(frame.outside)
        if starts_else:
            frame.then, frame.block, frame.targets = frame.block, Block(), targets
            return
        self.frames.pop()
        op: Operation
        if frame.op is ppu.LoopOp:
            op = ppu.LoopOp.of(frame.inputs, frame.block)
        else:
            assert frame.then is not None
            op = ppu.IfOp.of(frame.inputs[0], frame.then, frame.block)
        self.append(op, frame.location)
        self.registers.update(zip(targets, op.results))


def source_line(name: str, line: int, column: int) -> LocationAttr:
    """A place in a file."""
    return FileLineColLoc(StringAttr(name), IntAttr(line), IntAttr(column))


def is_flag(default: Attribute | None) -> bool:
    """Whether a parameter is true or false."""
    return default is not None and getattr(default, "type", None) == i1
