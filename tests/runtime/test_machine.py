"""Machine descriptions: what is shipped, what a user's file may hold, what is said when it is wrong."""

from pathlib import Path

import pydantic
import pytest
from nacre.errors import MachineError
from nacre.runtime.machine import figures, load_machine, machine_names, parse_machine

TINY = (Path(__file__).parents[2] / "runtime" / "machines" / "tiny.toml").read_text(encoding="utf-8")


def test_shipped_machines():
    assert machine_names() == ["tiny", "u65-512", "u65-512-384k", "v853"]
    assert [load_machine(n).macs_per_cycle for n in machine_names()] == [16, 512, 512, 1024]
    assert load_machine("u65-512-384k").sram_bytes == 3 * load_machine("u65-512").sram_bytes == 3 << 17


def test_v853_reaches_the_vendors_figure():
    v853 = load_machine("v853")
    assert 2 * v853.macs_per_cycle * v853.clock_hz == pytest.approx(1e12, rel=0.03)
    assert v853.sram_bytes == 128 * 1024


@pytest.mark.parametrize("name", machine_names())
def test_file_and_machine_have_one_name_and_every_figure_a_source(name):
    machine = load_machine(name)
    assert machine.name == name
    assert set(machine.sources) == set(figures())
    assert all(machine.sources.values())


def test_a_figure_without_a_source_counts_as_assumed():
    machine = parse_machine(TINY.replace('ppu_lanes = "invented"\n', ""), "t.toml")
    assert machine.source("ppu_lanes") == "assumed"
    assert machine.source("clock_hz") == "invented"


def test_a_users_file(tmp_path):
    file = tmp_path / "mine.toml"
    text = TINY.replace('name = "tiny"', 'name = "mine"').replace("8_192", "16384")
    file.write_text(text, encoding="utf-8")
    for machine in (load_machine(file), load_machine(str(file))):
        assert (machine.name, machine.sram_bytes) == ("mine", 16384)


def test_a_machine_is_frozen_and_hashable():
    machine = load_machine("tiny")
    with pytest.raises(pydantic.ValidationError):
        machine.sram_bytes = 1
    assert {machine: 1}[load_machine("tiny")] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sram_bytes = 8_192", "", "the figure 'sram_bytes' is missing"),
        ("sram_bytes = 8_192", "sram_bytes = 0", "sram_bytes = 0: input should be between 1 and 1073741824"),
        ("sram_bytes = 8_192", 'sram_bytes = "8K"', "sram_bytes = '8K': input should be a valid integer"),
        ("dma_channels = 2", "dma_channels = 3", "dma_channels = 3: input should be 1 or 2"),
        ("dram_bytes_per_cycle = 1.0", "dram_bytes_per_cycle = 0.0", "should be between 0.001 and 1000000.0"),
        ("dram_bytes_per_cycle = 1.0", "dram_bytes_per_cycle = inf", "between 0.001 and 1000000.0"),
        ("dram_bytes_per_cycle = 1.0", "dram_bytes_per_cycle = nan", "between 0.001 and 1000000.0"),
        ("dram_bytes_per_cycle = 1.0", "dram_bytes_per_cycle = 1e-9", "between 0.001 and 1000000.0"),
        ("sram_bytes = 8_192", "sram_bytes = 1_073_741_825", "between 1 and 1073741824"),
        ("dram_bytes = 67_108_864", "dram_bytes = 10_000_000_000_000", "between 1 and 1099511627776"),
        ("sram_banks = 2", "sram_banks = 1025", "sram_banks = 1025: input should be between 1 and 1024"),
        ("queue_depth = 8", "queue_depth = 9_999_999", "queue_depth = 9999999: input should be between"),
        ("dram_burst = 8", "dram_burst = 12", "dram_burst = 12: input should be a power of two"),
        ("dram_latency = 20", "dram_latency = -1", "dram_latency = -1: input should be between 0 and 1000000"),
        ('"int8"', '"int4"', "types.1 = 'int4': input should be 'int8', 'uint8' or 'int16'"),
        ('mac_rows = "invented"', 'macs = "invented"', "sources names 'macs', which is no figure"),
        ("mac_rows = 4", "mac_rows = ", "t.toml is no TOML file"),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence(old, new, message):
    assert old in TINY
    with pytest.raises(MachineError, match=r"^t\.toml") as error:
        parse_machine(TINY.replace(old, new, 1), "t.toml")
    assert message in str(error.value)


def test_a_misspelt_figure_gets_a_suggestion():
    with pytest.raises(MachineError, match="'mac_row' is no figure of a machine; did you mean 'mac_rows'"):
        parse_machine(TINY.replace("mac_rows = 4", "mac_rows = 4\nmac_row = 4", 1), "t.toml")


def test_an_unknown_machine_gets_a_suggestion():
    with pytest.raises(MachineError, match=r"no machine 'tinny': did you mean 'tiny'\? Known are tiny, u65"):
        load_machine("tinny")
    with pytest.raises(MachineError, match="no machine 'xyzzy': known are tiny, u65-512"):
        load_machine("xyzzy")


def test_a_binary_file_is_refused(tmp_path):
    file = tmp_path / "picture.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MachineError, match="UTF-8"):
        load_machine(file)
