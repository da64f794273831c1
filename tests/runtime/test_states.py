"""States: kept between runs, in text and file, by interpreters and sessions, until a reset."""

from __future__ import annotations

import numpy as np
import pytest
from nacre.backends.assemble import assemble
from nacre.backends.compile import compile
from nacre.backends.npu.family import decode, disassemble_file
from nacre.backends.session import Session
from nacre.dialects.nacre import StateOp, initial_states, states_of, store_of
from nacre.dialects.npu import WRITE, Space
from nacre.dialects.text import load_module, parse_module, print_module, save_module
from nacre.errors import FileFormatError, InputError, NacreError
from nacre.passes.manager import Canonicalize, Cse, PassManager
from nacre.passes.quantise.calibrate import calibrate
from nacre.passes.quantise.ranges import range_of
from nacre.runtime.emulator import Emulator, legal_order
from nacre.runtime.flatfile import FlatFile, pack, pack_states, read_states
from nacre.runtime.interpreter import interpret
from nacre.runtime.npu_interpreter import interpret_npu

COUNTER = """
builtin.module {
  nacre.state @total dense<[1.0, 2.0]> : tensor<2xf32>
  nacre.state @runs dense<0> : tensor<1xi32>
  func.func @main(%x : tensor<2xf32> {nacre.name = "x"})
      -> (tensor<2xf32> {nacre.name = "before"}, tensor<2xf32> {nacre.name = "after"},
          tensor<1xi32> {nacre.name = "n"}) {
    %before = nacre.read_state @total : tensor<2xf32>
    %sum = graph.add %before, %x : tensor<2xf32>
    nacre.write_state @total, %sum : tensor<2xf32>
    %after = nacre.read_state @total : tensor<2xf32>
    %n = nacre.read_state @runs : tensor<1xi32>
    %one = graph.constant dense<1> : tensor<1xi32>
    %m = graph.add %n, %one : tensor<1xi32>
    nacre.write_state @runs, %m : tensor<1xi32>
    func.return %before, %after, %m : tensor<2xf32>, tensor<2xf32>, tensor<1xi32>
  }
}
"""
X = np.array([1, 10], np.float32)


def check_counting(run, reset) -> None:
    """Three runs, a reset, a run."""
    total = np.array([1, 2], np.float32)
    for n in range(1, 4):
        before, after, count = run()
        np.testing.assert_array_equal(before, total)
        np.testing.assert_array_equal(after, total := total + X)
        assert count.tolist() == [n]
    reset()
    before, after, count = run()
    assert before.tolist() == [1, 2] and after.tolist() == [2, 12] and count.tolist() == [1]


def test_the_interpreter_keeps_what_it_is_given():
    module = parse_module(COUNTER)
    states = initial_states(module)
    check_counting(
        lambda: interpret(module, {"x": X}, states=states).values(), lambda: states.update(initial_states(module))
    )


def test_without_states_each_run_is_the_first():
    module = parse_module(COUNTER)
    for _ in range(2):
        assert interpret(module, {"x": X})["n"].tolist() == [1]


def test_what_a_run_gives_is_not_the_state_itself():
    module = parse_module(COUNTER)
    states = initial_states(module)
    interpret(module, {"x": X}, states=states)["after"][:] = 0
    assert states["total"].tolist() == [2, 12]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"other": X}, "there is no state 'other'; the states are 'total', 'runs'"),
        ({"total": None}, "the state 'total' is missing"),
        ({"total": np.zeros(3, np.float32)}, r"the state 'total' should be float32\[2\], but is float32\[3\]"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, words):
    module = parse_module(COUNTER)
    states = {k: v for k, v in {**initial_states(module), **change}.items() if v is not None}
    with pytest.raises(InputError, match=words):
        interpret(module, {"x": X}, states=states)


def test_a_session_keeps_states_and_resets():
    session = Session(compile(parse_module(COUNTER), target="cpu", dtype="float32"))
    check_counting(lambda: session.run(None, {"x": X}), session.reset)


def test_two_sessions_do_not_share_states():
    program = compile(parse_module(COUNTER), target="cpu", dtype="float32")
    one, other = Session(program), Session(program)
    one.run(None, {"x": X})
    assert other.run(["n"], {"x": X})[0].tolist() == [1]


def test_cse_and_canonicalisation_keep_reads_and_writes_in_order():
    """Two reads without a write between them become one; a read that nobody uses goes; a write stays."""
    read = "nacre.read_state @total : tensor<2xf32>\n"
    text = COUNTER.replace("%sum = graph.add %before, %x", f"%again = {read} %sum = graph.add %again, %x")
    module = parse_module(text.replace("func.return", f"%dead = {read} func.return"))
    PassManager([Canonicalize(), Cse()]).run(module)
    printed = print_module(module)
    assert (printed.count("read_state"), printed.count("write_state")) == (3, 2)
    states = initial_states(module)
    check_counting(
        lambda: interpret(module, {"x": X}, states=states).values(), lambda: states.update(initial_states(module))
    )


@pytest.mark.parametrize("generic", [False, True])
def test_text_reads_back(generic):
    module = parse_module(COUNTER)
    assert print_module(parse_module(print_module(module, generic=generic))) == print_module(module)


def test_a_large_state_lies_beside_the_text(tmp_path):
    text = COUNTER.replace("2xf32", "200xf32").replace("dense<[1.0, 2.0]>", "dense<3.0>")
    module = parse_module(text)
    value = np.arange(200, dtype=np.float32)
    state = states_of(module)["total"]
    module.body.block.insert_op_before(StateOp.of("total", value, store_of(module)), state)
    state.detach()
    save_module(module, tmp_path / "m.mlir")
    assert "#nacre.blob" in (tmp_path / "m.mlir").read_text()
    np.testing.assert_array_equal(initial_states(load_module(tmp_path / "m.mlir"))["total"], value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("read_state @runs", "read_state @walks", "nacre.read_state: the module has no state @walks"),
        ("@runs dense<0> : tensor<1xi32>", "@runs dense<0> : tensor<2xi32>", "the state @runs is tensor<2xi32>"),
        ("@runs dense<0> : tensor<1xi32>", "@runs dense<0.0> : tensor<1xf32>", "the state @runs is tensor<1xf32>"),
        ("@runs", "@total", "total"),
    ],
)
def test_the_verifier_refuses(old, new, words):
    with pytest.raises(NacreError, match=words):
        parse_module(COUNTER.replace(old, new))


STATES = {"h/0": np.arange(70, dtype=np.float32).reshape(7, 10), "n": np.array([-3], np.int8), "e": np.zeros((0, 2))}


def test_the_state_section_reads_back():
    file = FlatFile(pack("cpu", {"state": pack_states(STATES), "constants": b"abc"}), "x")
    found = read_states(file)
    assert list(found) == list(STATES)
    for name, array in STATES.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    found["n"][:] = 1  # an array of its own
    assert read_states(file)["n"].tolist() == [-3]
    assert read_states(FlatFile(pack("cpu", {}), "x")) == {}


@pytest.mark.parametrize("content", [b"", b"\xff" * 4, pack_states(STATES)[:100], b"\x03\0\0\0[7]", b"\x04\0\0\0[[1]"])
def test_a_damaged_state_section_is_refused(content):
    with pytest.raises(FileFormatError, match="'x' holds no sound states"):
        read_states(FlatFile(pack("cpu", {"state": content}), "x"))


# --- on the npu ------------------------------------------------------------------------------------------
def npu_program(text: str = COUNTER):
    return compile(parse_module(text), target="tiny", dtype="float32")


def test_the_npu_keeps_states_and_resets():
    session = Session(npu_program(), sanitize=True)
    check_counting(lambda: session.run(None, {"x": X}), session.reset)


def test_buffer_form_keeps_states():
    module = npu_program().levels["npu"]
    states = initial_states(module)
    check_counting(
        lambda: interpret_npu(module, {"x": X}, states=states).values(), lambda: states.update(initial_states(module))
    )


def test_states_lie_outside_what_is_reused():
    program = decode(npu_program(LONG).to_file())
    others = [*program.inputs, *program.outputs]
    (state,) = program.states
    start, stop = state.region.address, state.region.address + state.region.nbytes
    assert start >= len(program.constants) and all(
        o.region.address + o.region.nbytes <= start or stop <= o.region.address for o in others
    )
    accesses = [access for command in program.commands for access in command.accesses()]
    written = [r for port, r in accesses if port.effect is WRITE and r.space is Space.DRAM]
    touching = [r for r in written if r.address < stop and start < r.address + r.nbytes]
    assert touching and all(start <= r.address and r.address + r.nbytes <= stop for r in touching)


LONG = """
builtin.module {
  nacre.state @h dense<0.5> : tensor<1x64x16xf32>
  func.func @main(%x : tensor<1x64x16xf32> {nacre.name = "x"}) -> (tensor<1x64x16xf32> {nacre.name = "y"}) {
    %h = nacre.read_state @h : tensor<1x64x16xf32>
    %a = graph.add %h, %x : tensor<1x64x16xf32>
    %t = graph.transpose %a {permutation = [0, 2, 1]} : tensor<1x16x64xf32>
    %b = graph.relu %t : tensor<1x16x64xf32>
    %u = graph.transpose %b {permutation = [0, 2, 1]} : tensor<1x64x16xf32>
    nacre.write_state @h, %u : tensor<1x64x16xf32>
    %c = graph.mul %u, %h : tensor<1x64x16xf32>
    %d = graph.neg %c : tensor<1x64x16xf32>
    %e = graph.add %d, %a : tensor<1x64x16xf32>
    func.return %e : tensor<1x64x16xf32>
  }
}
"""
"""Larger than the SRAM of `tiny`, and the old value is read behind the write."""


@pytest.mark.parametrize("fuse", [True, False])
def test_a_value_read_stays_what_it_was_behind_a_write(fuse):
    module = parse_module(LONG)
    program = compile(module, target="tiny", dtype="float32", fuse=fuse)
    session, states = Session(program, sanitize=True), initial_states(module)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.normal(size=(1, 64, 16)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(found, interpret(module, {"x": x}, states=states)["y"])


def test_any_legal_order_keeps_states():
    program = decode(npu_program(LONG).to_file())
    rng, plain = np.random.default_rng(1), Emulator(program)
    shuffled = Emulator(program)
    for _ in range(3):
        x = rng.normal(size=(1, 64, 16)).astype(np.float32)
        wanted = plain.run({"x": x})["y"]
        np.testing.assert_array_equal(shuffled.run({"x": x}, order=legal_order(program.commands, rng))["y"], wanted)


def test_a_state_that_moves_is_a_shift_register():
    """The state becomes its own tail and the input: read and written in one place."""
    text = """
    builtin.module {
      nacre.state @line dense<0.0> : tensor<1x8x4xf32>
      func.func @main(%x : tensor<1x1x4xf32> {nacre.name = "x"}) -> (tensor<1x8x4xf32> {nacre.name = "y"}) {
        %old = nacre.read_state @line : tensor<1x8x4xf32>
        %tail = graph.slice %old {starts = [0, 1, 0], sizes = [1, 7, 4], steps = [1, 1, 1]} : tensor<1x7x4xf32>
        %new = graph.concat %tail, %x {axis = 1} : tensor<1x8x4xf32>
        nacre.write_state @line, %new : tensor<1x8x4xf32>
        %y = graph.neg %new : tensor<1x8x4xf32>
        func.return %y : tensor<1x8x4xf32>
      }
    }
    """
    session = Session(npu_program(text), sanitize=True)
    line = np.zeros((1, 8, 4), np.float32)
    for i in range(12):
        x = np.full((1, 1, 4), i, np.float32)
        line = np.concatenate([line[:, 1:], x], axis=1)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], -line)


def test_a_quantised_state_is_kept_as_its_integers():
    text = """
    builtin.module {
      nacre.state @h dense<10> : tensor<4xi8> : tensor<4x!quant.uniform<i8:f32, 0.5:2>>
      func.func @main(%x : tensor<4xf32> {nacre.name = "x"}) -> (tensor<4xf32> {nacre.name = "y"}) {
        %h = nacre.read_state @h : tensor<4x!quant.uniform<i8:f32, 0.5:2>>
        %f = quant.dcast %h : tensor<4x!quant.uniform<i8:f32, 0.5:2>> to tensor<4xf32>
        %s = graph.add %f, %x : tensor<4xf32>
        %q = quant.qcast %s : tensor<4xf32> to tensor<4x!quant.uniform<i8:f32, 0.5:2>>
        nacre.write_state @h, %q : tensor<4x!quant.uniform<i8:f32, 0.5:2>>
        func.return %f : tensor<4xf32>
      }
    }
    """
    module = parse_module(text)
    program = compile(module, target="tiny", dtype="int8", calibration=[{"x": np.zeros(4, np.float32)}])
    session, states = Session(program, sanitize=True), initial_states(module)
    assert states["h"].dtype == np.int8
    for expected in (4.0, 5.0, 6.0):
        (found,) = session.run(None, {"x": np.full(4, 1.1, np.float32)})
        assert found.tolist() == [expected] * 4
        assert interpret(module, {"x": np.full(4, 1.1, np.float32)}, states=states)["y"].tolist() == [expected] * 4
    (region,) = (state.region for state in decode(program.to_file()).states)
    assert region.nbytes == 4
    assert "!quant" not in print_module(program.levels["npu"])


def test_an_assembled_program_has_the_same_states():
    program = npu_program()
    module = disassemble_file(program.to_file())
    again = assemble(parse_module(print_module(module)))
    assert again.to_bytes() == program.to_bytes()
    session = Session(again)
    check_counting(lambda: session.run(None, {"x": X}), session.reset)


def test_calibration_sees_states_grow():
    """A sum over four samples: its range is that of the whole sequence, not of one sample."""
    text = COUNTER.replace("tensor<2xf32>", "tensor<1x2xf32>").replace("dense<[1.0, 2.0]>", "dense<0.0>")
    module = parse_module(text)
    calibrate(module, [{"x": np.full((1, 2), 3, np.float32)}] * 4)
    ranges = [range_of(op.result) for op in module.walk() if op.name == "graph.add" and range_of(op.result)]
    assert max(r.high for r in ranges) == pytest.approx(12, rel=1e-3)


def test_a_file_whose_states_do_not_fit_its_plan_is_refused():
    program = npu_program()
    sections = dict(program.sections) | {"state": pack_states({"total": np.zeros(2, np.float32)})}
    with pytest.raises(FileFormatError, match="no initial value for the state 'runs'"):
        Session(FlatFile(pack("npu", sections), "x"))


def test_a_read_has_room_for_the_last_write():
    """One sample reads the initial zeros only, and the next run what that sample left."""
    text = COUNTER.replace("tensor<2xf32>", "tensor<1x2xf32>").replace("dense<[1.0, 2.0]>", "dense<0.0>")
    module = parse_module(text)
    calibrate(module, [{"x": np.full((1, 2), 3, np.float32)}])
    reads = [op for op in module.walk() if op.name == "nacre.read_state" and range_of(op.result)]
    assert len(reads) == 2 and all(range_of(op.result).high >= 3 for op in reads)
