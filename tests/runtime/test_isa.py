"""Encoding and decoding: every instruction class, random fields and regions; damaged bytes are refused."""

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.dialects.npu import INSTRUCTIONS, RANGES, Arity, Region, Space
from nacre.errors import FileFormatError
from nacre.runtime.isa import ELEMENTS, QUEUES, Command, decode, decode_region, encode, encode_region

KERNELS = ["softmax", "conv_4", "lstm"]
NUMBERS = {name: index for index, name in enumerate(KERNELS)}
CLASSES = [INSTRUCTIONS[code] for code in sorted(INSTRUCTIONS)]
INT32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def regions(draw):
    rank = draw(st.integers(0, 6))
    return Region(
        draw(st.sampled_from(Space)), draw(st.integers(0, 2**64 - 1)),
        tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=rank, max_size=rank))),
        tuple(draw(st.lists(INT32, min_size=rank, max_size=rank))),
        draw(st.sampled_from(ELEMENTS)),
    )  # fmt: skip


def field_values(field):
    if field.is_list:
        return st.lists(INT32, max_size=12).map(tuple)
    if field.is_symbol:
        return st.sampled_from(KERNELS)
    if field.code == "f":
        return st.floats(width=32, allow_nan=False)
    return st.integers(*RANGES[field.code])


@st.composite
def commands(draw, classes=tuple(CLASSES)):
    cls = draw(st.sampled_from(classes))
    ports = {}
    for port in cls.PORTS:
        low, high = {Arity.ONE: (1, 1), Arity.OPTIONAL: (0, 1), Arity.MANY: (0, 4)}[port.arity]
        if found := tuple(draw(st.lists(regions(), min_size=low, max_size=high))):
            ports[port.name] = found
    fields = SimpleNamespace(**{f.name: draw(field_values(f)) for f in cls.FIELDS})
    waits = tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=QUEUES, max_size=QUEUES)))
    return Command(cls, fields, ports, waits)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.name)
def test_round_trip_of_every_class(cls):
    @settings(max_examples=12, deadline=None)
    @given(commands((cls,)))
    def round_trip(command):
        code = encode(command, NUMBERS)
        assert decode(code, KERNELS) == [command]
        assert decode(memoryview(code), KERNELS) == [command]

    round_trip()


@settings(max_examples=50, deadline=None)
@given(st.lists(commands(), max_size=5))
def test_round_trip_of_programs(program):
    code = b"".join(encode(c, NUMBERS) for c in program)
    decoded = decode(code, KERNELS)
    assert decoded == program
    assert b"".join(encode(c, NUMBERS) for c in decoded) == code


@given(regions())
def test_a_region_takes_12_bytes_and_8_a_dimension(region):
    code = encode_region(region)
    assert len(code) == 12 + 8 * len(region.shape)
    assert decode_region(b"--" + code, 2) == (region, 2 + len(code))


def test_the_size_in_the_header_is_the_size():
    @settings(max_examples=50, deadline=None)
    @given(commands())
    def sized(command):
        code = encode(command, NUMBERS)
        assert struct.unpack_from("<I", code, 4) == (len(code),)

    sized()


@settings(max_examples=120, deadline=None)
@given(st.lists(commands(), min_size=1, max_size=3), st.data())
def test_damaged_code_decodes_or_is_refused(program, data):
    code = bytearray(b"".join(encode(c, NUMBERS) for c in program))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(code) - 1))
        code[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(code), KERNELS)
    except FileFormatError as error:
        assert "the code is damaged at byte" in str(error)


@settings(max_examples=60, deadline=None)
@given(commands(), st.data())
def test_truncated_code_is_refused(command, data):
    code = encode(command, NUMBERS)
    with pytest.raises(FileFormatError, match=r"damaged at byte 0 \(instruction 0\)"):
        decode(code[: data.draw(st.integers(1, len(code) - 1))], KERNELS)


@given(st.binary(min_size=1, max_size=64))
def test_noise_is_refused(noise):
    with pytest.raises(FileFormatError):
        decode(noise, KERNELS)


def test_an_instruction_on_a_foreign_queue_is_refused():
    code = bytearray(encode(Command(CLASSES[0], SimpleNamespace(), {}, (0,) * QUEUES), NUMBERS))
    code[1] ^= 1
    with pytest.raises(FileFormatError, match=r"header of npu\.load is inconsistent"):
        decode(bytes(code), KERNELS)


def test_an_instruction_with_bytes_too_many_is_refused():
    code = bytearray(encode(Command(CLASSES[0], SimpleNamespace(), {}, (0,) * QUEUES), NUMBERS))
    struct.pack_into("<I", code, 4, len(code) + 3)
    with pytest.raises(FileFormatError, match=r"npu\.load has 3 bytes too many"):
        decode(bytes(code) + bytes(3), KERNELS)


def test_codes_of_elements_stay_what_they_are():
    assert [str(e) for e in ELEMENTS] == ["i8", "ui8", "i16", "i32", "f32", "i1", "i64", "ui16", "f16", "f64"]
