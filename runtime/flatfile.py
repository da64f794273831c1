"""The `.nacre` container: named sections in one flat file that is mapped, not read.

Little endian. A header of 64 bytes (magic, version, number of sections, file size, target family, checksum of
header and table), a table of 64 bytes a section (name, offset, size, CRC-32), then the sections, each aligned
to 64 bytes. Checksums of all sections but the constants are compared on loading; those of the constants by
`check()`, so that loading takes no longer for a larger model.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..dialects.store import write_bytes
from ..errors import FileFormatError

MAGIC = b"NACRE\x00\r\n"
VERSION = 1
ALIGNMENT = 64
HEADER = struct.Struct("<8sIIQ16sI20x")
HEADER_USED = HEADER.size - 20
ENTRY = struct.Struct("<24sQQI20x")
LAZY = "constants"
"""The section whose bytes are not touched on loading."""


def pack(family: str, sections: Mapping[str, bytes | np.ndarray]) -> bytes:
    """The bytes of a file."""
    offset = _aligned(HEADER.size + ENTRY.size * len(sections))
    entries, bodies = [], []
    for name, content in sections.items():
        body = bytes(content) if isinstance(content, (bytes, bytearray)) else content.tobytes()
        entries.append(ENTRY.pack(name.encode(), offset, len(body), zlib.crc32(body)))
        padded = _aligned(len(body))
        bodies.append(body + bytes(padded - len(body)))
        offset += padded
    table = b"".join(entries)
    head = (MAGIC, VERSION, len(sections), offset, family.encode())
    checksum = zlib.crc32(HEADER.pack(*head, 0) + table)
    front = HEADER.pack(*head, checksum) + table
    return front + bytes(_aligned(len(front)) - len(front)) + b"".join(bodies)


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


# --- states ----------------------------------------------------------------------------------------------
STATE = "state"
"""The section of the states, only in files of programs that have any."""
LENGTH = struct.Struct("<I")


def pack_states(states: Mapping[str, np.ndarray]) -> bytes:
    """The `state` section: the names, types and initial values of what is kept between runs.

    The length of a list [name, dtype, shape] in JSON, the list, then each value aligned to 64 bytes.
    """
    index = json.dumps([[name, x.dtype.str, list(x.shape)] for name, x in states.items()]).encode()
    parts = [LENGTH.pack(len(index)) + index, *(np.ascontiguousarray(x).tobytes() for x in states.values())]
    return b"".join(part + bytes(_aligned(len(part)) - len(part)) for part in parts)


def read_states(file: FlatFile) -> dict[str, np.ndarray]:
    """The initial values of a file's states by name, none where it has no such section. Raises FileFormatError."""
    section = file.sections.get(STATE)
    if section is None:
        return {}
    raw, found = section.tobytes(), {}
    try:
        (length,) = LENGTH.unpack_from(raw)
        at = _aligned(LENGTH.size + length)
        for name, dtype, shape in json.loads(raw[LENGTH.size : LENGTH.size + length]):
            count = int(np.prod(shape, dtype=np.int64))
            found[name] = np.frombuffer(raw, np.dtype(dtype), count, at).reshape(shape).copy()
            at += _aligned(found[name].nbytes)
    except (struct.error, ValueError, TypeError) as error:
        raise FileFormatError(f"'{file.label}' holds no sound states: {error}") from None
    return found


class FlatFile:
    """A file's sections as views of one mapping. Raises FileFormatError for anything but a sound file."""

    def __init__(self, data: bytes | mmap.mmap, label: str):
        self.label = label
        self.data = np.frombuffer(data, np.uint8)
        if len(self.data) < HEADER.size:
            raise FileFormatError(f"'{label}' is too short to be a .nacre file ({len(self.data)} bytes)")
        magic, version, count, size, family, checksum = HEADER.unpack_from(self.data, 0)  # type: ignore[arg-type]
        if magic != MAGIC:
            raise FileFormatError(f"'{label}' is no .nacre file: it does not start with its mark")
        if version != VERSION:
            raise FileFormatError(
                f"'{label}' is of format {version}, this Nacre reads {VERSION}: compile it again"
            )
        if size != len(self.data):
            raise FileFormatError(
                f"'{label}' has {len(self.data)} bytes where {size} belong: it is cut or damaged"
            )
        table_end = HEADER.size + ENTRY.size * count
        if table_end > size:
            raise FileFormatError(f"'{label}' is damaged: its section table leaves the file")
        head = HEADER.pack(magic, version, count, size, family, 0)
        fits = zlib.crc32(head + self.data[HEADER.size : table_end].tobytes()) == checksum
        if not fits or self.data[HEADER_USED : HEADER.size].any():
            raise FileFormatError(f"'{label}' is damaged: the checksum of its header does not fit")
        if self.data[table_end : _aligned(table_end)].any():
            raise FileFormatError(f"'{label}' is damaged behind its section table: the padding is not zero")
        self.family = family.rstrip(b"\0").decode("ascii", "replace")
        self.checksums: dict[str, int] = {}
        self.sections: dict[str, np.ndarray] = {}
        for index in range(count):
            name_, offset, length, crc = ENTRY.unpack_from(self.data, HEADER.size + ENTRY.size * index)  # type: ignore[arg-type]
            name = name_.rstrip(b"\0").decode("ascii", "replace")
            if offset + length > size:
                raise FileFormatError(f"'{label}' is damaged: section '{name}' leaves the file")
            if self.data[offset + length : _aligned(offset + length)].any():
                raise FileFormatError(
                    f"'{label}' is damaged behind section '{name}': the padding is not zero"
                )
            self.sections[name] = self.data[offset : offset + length]
            self.checksums[name] = crc
            if name != LAZY:
                self._compare(name)

    def __getitem__(self, name: str) -> np.ndarray:
        """A section's bytes. Raises FileFormatError when the file has no such section."""
        if name not in self.sections:
            raise FileFormatError(f"'{self.label}' has no section '{name}'")
        return self.sections[name]

    def check(self) -> None:
        """Compare every checksum, the constants' too. Raises FileFormatError naming the damaged section."""
        for name in self.sections:
            self._compare(name)

    def _compare(self, name: str) -> None:
        if zlib.crc32(self.sections[name]) != self.checksums[name]:  # type: ignore[arg-type]
            raise FileFormatError(f"'{self.label}' is damaged: the checksum of section '{name}' does not fit")


def open_file(path: str | os.PathLike[str]) -> FlatFile:
    """Map a file. Raises FileFormatError for a missing, empty or damaged one."""
    label = os.fspath(path)
    try:
        with open(path, "rb") as f:
            if os.fstat(f.fileno()).st_size == 0:
                raise FileFormatError(f"'{label}' is empty")
            return FlatFile(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), label)
    except OSError as error:
        raise FileFormatError(f"'{label}' cannot be read: {error.strerror or error}") from None


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all. Raises NacreError where that cannot be done."""
    write_bytes(Path(path), content)
