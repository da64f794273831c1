"""The binary form of instructions, derived from their classes: encode, decode, and both ways to address form.

An instruction is a header (opcode, queue, size, five wait counts), its scalar fields as struct packs them,
its list fields (count, then i32s), then each port: a count and that many regions. A region is 12 bytes and 8
a
dimension. All little endian. `waits[q]` is how many instructions of queue q must have completed.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Operation, SSAValue

from ..dialects.npu import INSTRUCTIONS, Field, Instruction, Port, Queue, Region, Space
from ..dialects.npu_instructions import NPU  # defines the instructions
from ..dialects.types import f16, f32, f64, i1, i8, i16, i32, i64, u8, u16
from ..errors import FileFormatError
from .interpreter import main_function

assert NPU is not None
QUEUES = len(Queue)
HEADER = struct.Struct(f"<BBxxI{QUEUES}I")
REGION = struct.Struct("<BBBxQ")
ELEMENTS: tuple[Attribute, ...] = (i8, u8, i16, i32, f32, i1, i64, u16, f16, f64)
"""By their code; new ones come last, so that old files stay readable."""
_ELEMENT_CODE = {element: code for code, element in enumerate(ELEMENTS)}


@dataclass(slots=True)
class Command:
    """A decoded instruction."""

    cls: type[Instruction]
    fields: SimpleNamespace
    regions: dict[str, tuple[Region, ...]]
    waits: tuple[int, ...]

    @property
    def queue(self) -> Queue:
        return self.cls.QUEUE

    def accesses(self) -> Iterator[tuple[Port, Region]]:
        """Every region with its port."""
        for port in self.cls.PORTS:
            for region in self.regions.get(port.name, ()):
                yield port, region

    def __str__(self) -> str:
        ports = " ".join(f"{n}({', '.join(map(str, r))})" for n, r in self.regions.items())
        return f"{self.cls.name} {ports}"


@dataclass(frozen=True)
class Layout:
    """How a class's fields are packed."""

    scalars: struct.Struct
    scalar_fields: tuple[Field, ...]
    list_fields: tuple[Field, ...]
    symbol_fields: tuple[Field, ...]


@functools.cache
def layout(cls: type[Instruction]) -> Layout:
    """The packing of an instruction class. A symbol is encoded as its number in the kernel section."""
    scalar = tuple(f for f in cls.FIELDS if not f.is_list and not f.is_symbol)
    symbols = tuple(f for f in cls.FIELDS if f.is_symbol)
    code = "<" + "".join(f.code for f in scalar) + "H" * len(symbols)
    return Layout(struct.Struct(code), scalar, tuple(f for f in cls.FIELDS if f.is_list), symbols)


# --- encoding --------------------------------------------------------------------------------------------
def encode(command: Command, kernels: Mapping[str, int]) -> bytes:
    """The bytes of an instruction; `kernels` numbers the module's symbols."""
    cls, f = command.cls, command.fields
    packing = layout(cls)
    scalars = [getattr(f, s.name) for s in packing.scalar_fields]
    symbols = [kernels[getattr(f, s.name)] for s in packing.symbol_fields]
    parts = [packing.scalars.pack(*scalars, *symbols)]
    for lst in packing.list_fields:
        values = getattr(f, lst.name)
        parts.append(struct.pack(f"<H{len(values)}i", len(values), *values))
    for port in cls.PORTS:
        regions = command.regions.get(port.name, ())
        parts.append(struct.pack("<B", len(regions)))
        parts += [encode_region(r) for r in regions]
    body = b"".join(parts)
    return HEADER.pack(cls.OPCODE, cls.QUEUE, HEADER.size + len(body), *command.waits) + body


def encode_region(region: Region) -> bytes:
    """Space, element, rank, address, sizes, strides."""
    rank = len(region.shape)
    head = REGION.pack(region.space.value, _ELEMENT_CODE[region.element], rank, region.address)
    return head + struct.pack(f"<{rank}I{rank}i", *region.shape, *region.strides)


# --- decoding --------------------------------------------------------------------------------------------
def decode(code: bytes | memoryview, kernels: Sequence[str]) -> list[Command]:
    """All instructions of a code section. Raises FileFormatError where the bytes are no instructions."""
    commands: list[Command] = []
    at = 0
    while at < len(code):
        try:
            command, size = _decode_one(code, at, kernels)
        except (struct.error, KeyError, IndexError, ValueError) as error:
            raise FileFormatError(
                f"the code is damaged at byte {at} (instruction {len(commands)}): {error}"
            ) from None
        commands.append(command)
        at += size
    return commands


def _decode_one(code: bytes | memoryview, start: int, kernels: Sequence[str]) -> tuple[Command, int]:
    opcode, queue, size, *waits = HEADER.unpack_from(code, start)
    cls = INSTRUCTIONS[opcode]
    if queue != cls.QUEUE or size < HEADER.size or start + size > len(code):
        raise ValueError(f"header of {cls.name} is inconsistent")
    at = start + HEADER.size
    packing = layout(cls)
    values = packing.scalars.unpack_from(code, at)
    at += packing.scalars.size
    count = len(packing.scalar_fields)
    fields = {f.name: v for f, v in zip(packing.scalar_fields, values)}
    fields |= {f.name: kernels[v] for f, v in zip(packing.symbol_fields, values[count:])}
    for lst in packing.list_fields:
        (length,) = struct.unpack_from("<H", code, at)
        fields[lst.name] = struct.unpack_from(f"<{length}i", code, at + 2)
        at += 2 + 4 * length
    regions: dict[str, tuple[Region, ...]] = {}
    for port in cls.PORTS:
        number = code[at]
        at += 1
        found = []
        for _ in range(number):
            region, at = decode_region(code, at)
            found.append(region)
        if found:
            regions[port.name] = tuple(found)
    if at != start + size:
        raise ValueError(f"{cls.name} has {start + size - at} bytes too many")
    return Command(cls, SimpleNamespace(**fields), regions, tuple(waits)), size


def decode_region(code: bytes | memoryview, at: int) -> tuple[Region, int]:
    """A region and where the next thing begins."""
    space, element, rank, address = REGION.unpack_from(code, at)
    at += REGION.size
    numbers = struct.unpack_from(f"<{rank}I{rank}i", code, at)
    region = Region(Space(space), address, numbers[:rank], numbers[rank:], ELEMENTS[element])
    return region, at + 8 * rank


# --- address form <-> commands ---------------------------------------------------------------------------
def to_commands(ops: Iterable[Operation]) -> list[Command]:
    """Address form as commands. Queues are in order, so a set of tokens reduces to a count a queue."""
    place: dict[SSAValue, tuple[Queue, int]] = {}
    count = [0] * QUEUES
    commands = []
    for op in ops:
        if not isinstance(op, Instruction):
            continue
        waits = [0] * QUEUES
        for token in op.after:  # type: ignore[attr-defined]
            queue, number = place[token]
            waits[queue] = max(waits[queue], number)
        regions = {p.name: r for p in op.PORTS if (r := op.regions_at(p.name))}
        commands.append(Command(type(op), SimpleNamespace(**op.fields()), regions, tuple(waits)))
        count[op.QUEUE] += 1
        place[op.results[0]] = (op.QUEUE, count[op.QUEUE])
    return commands


def to_ops(commands: Iterable[Command]) -> list[Instruction]:
    """Commands as address form: each wait count becomes the token of that queue's instruction."""
    done: list[list[SSAValue]] = [[] for _ in range(QUEUES)]
    ops = []
    for command in commands:
        after = [done[q][n - 1] for q, n in enumerate(command.waits) if n]
        op = command.cls.make(command.regions, after, **vars(command.fields))
        done[command.queue].append(op.results[0])
        ops.append(op)
    return ops


def instructions_of(module: ModuleOp) -> list[Command]:
    """The commands of a module in address form."""
    return to_commands(main_function(module).body.block.ops)
