"""What tests of npu passes share: a builder of small quantised networks, and runs of one at every level."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from nacre.backends.npu.select import SelectPass
from nacre.dialects import graph, qnn
from nacre.dialects.nacre import Source, set_sources, store_of
from nacre.dialects.npu import Instruction
from nacre.dialects.npu_instructions import AllocOp, ConstantOp
from nacre.dialects.quant import quantised
from nacre.dialects.text import make_context, parse_module, print_module
from nacre.dialects.types import dtype_of, i8, shape_of, tensor
from nacre.passes.manager import PassManager
from nacre.passes.npu.allocate import AllocatePass
from nacre.passes.npu.schedule import SchedulePass
from nacre.passes.npu.target import set_target
from nacre.passes.npu.tile import TilePass
from nacre.runtime import isa
from nacre.runtime.emulator import Emulator
from nacre.runtime.executable import Executable
from nacre.runtime.interpreter import expected_inputs, interpret, main_function
from nacre.runtime.kernels.quantised_elementwise import add_parameters
from nacre.runtime.link import link
from nacre.runtime.machine import load_machine
from nacre.runtime.npu_interpreter import interpret_npu
from nacre.runtime.sanitizer import check
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    NameLoc,
    NoneAttr,
    StringAttr,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, SSAValue


class Net:
    """Builds a module of qnn and graph ops, weights drawn from a seed; ops are named by kind and number."""

    def __init__(self, *shapes: Sequence[int], element=None, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.element = element or quantised(i8, 0.05, 3)
        self.block = Block(arg_types=[tensor(s, self.element) for s in shapes])
        self.function = FuncOp("main", FunctionType.from_lists(self.block.arg_types, []), visibility="public")
        self.function.body.detach_block(0)
        self.function.body.add_block(self.block)
        self.module = ModuleOp([self.function])
        self.args = list(self.block.args)
        self.count = 0

    @property
    def storage(self):
        return self.element.storage

    @property
    def limits(self) -> tuple[int, int]:
        info = np.iinfo(dtype_of(self.storage))
        return int(info.min), int(info.max)

    def add(self, op) -> SSAValue:
        """Append an op that stands for a source tensor of its own name."""
        name = f"{op.name.partition('.')[2]}{self.count}"
        self.count += 1
        op.location = NameLoc(StringAttr(name), NoneAttr())
        self.block.add_op(op)
        for result in op.results:
            set_sources(result, (Source(name, tuple(range(len(shape_of(result))))),))
        return op.results[0]

    def constant(self, array: np.ndarray, element=None) -> SSAValue:
        op = graph.ConstantOp.of(array, store_of(self.function), "", element)
        self.block.add_op(op)
        return op.result

    def _weights(self, *shape: int) -> SSAValue:
        array = self.rng.integers(-127, 128, shape).astype(np.int8)
        return self.constant(array, quantised(i8, 0.01, 0))

    def _requantise(self, depth: int, channels: int) -> list[SSAValue]:
        wide = 256 if np.iinfo(dtype_of(self.storage)).bits == 16 else 1
        real = 50 / (math.sqrt(depth) * 74 * 73)  # spreads the results over the 8- or 16-bit range
        shift = math.floor(math.log2(real)) + 1
        multiplier = self.rng.integers(2**30, 2**31, channels).astype(np.int32)
        bias = self.rng.integers(-2000 * wide, 2000 * wide, channels).astype(np.int32)
        shifts = np.full(channels, shift, np.int32)
        return [self.constant(multiplier), self.constant(shifts), self.constant(bias)]

    def conv(
        self,
        x,
        filters=8,
        kernel=(3, 3),
        strides=(1, 1),
        pads=(1, 1, 1, 1),
        depthwise=False,
        low=None,
        high=None,
    ):
        channels = shape_of(x)[-1]
        groups = channels if depthwise else 1
        weight = self._weights(*kernel, channels // groups, filters)
        vectors = self._requantise(kernel[0] * kernel[1] * channels // groups, filters)
        least, most = self.limits
        return self.add(
            qnn.ConvOp.make(
                x, weight, *vectors, element=self.element, strides=strides, pads=pads, dilations=(1, 1),
                groups=groups, ifm_zero=self.element.zero, ofm_zero=self.element.zero,
                low=least if low is None else low, high=most if high is None else high,
            )
        )  # fmt: skip

    def matmul(self, x, columns=8):
        depth = shape_of(x)[-1]
        vectors = self._requantise(depth, columns)
        zero, (low, high) = self.element.zero, self.limits
        return self.add(
            qnn.MatmulOp.make(
                x, self._weights(depth, columns), *vectors, element=self.element, a_zero=zero, ofm_zero=zero,
                low=low, high=high,
            )
        )  # fmt: skip

    def sum(self, a, b, subtract=False, scales=(0.05, 0.03)):
        zero = self.element.zero
        rescale = add_parameters(scales[0], zero, scales[1], zero, 0.06, 1, dtype_of(self.storage))
        return self.add(qnn.AddOp.make(a, b, element=self.element, rescale=tuple(rescale), subtract=subtract))

    def product(self, a, b):
        low, high = self.limits
        return self.add(
            qnn.MulOp.make(
                a, b, element=self.element, a_zero=3, b_zero=3, multiplier=1 << 30, shift=-4,
                low=low, high=high,
            )
        )  # fmt: skip

    def clamp(self, x, low, high):
        return self.add(qnn.ClampOp.make(x, element=self.element, low=low, high=high))

    def table(self, x):
        low, high = self.limits
        entries = self.constant(
            self.rng.integers(low, high + 1, 256).astype(dtype_of(self.storage)), self.element
        )
        return self.add(qnn.TableOp.make(x, entries, element=self.element))

    def max_pool(self, x, kernel, strides, pads=(0, 0, 0, 0)):
        pooling = graph.MaxPoolOp.make(x, kernel=kernel, strides=strides, pads=pads, dilations=(1, 1))
        return self.add(pooling)

    def average_pool(self, x, kernel, strides):
        low, high = self.limits
        return self.add(
            qnn.AvgPoolOp.make(
                x, element=self.element, kernel=kernel, strides=strides, pads=(0, 0, 0, 0), low=low, high=high
            )
        )  # fmt: skip

    def concat(self, *xs, axis=3):
        return self.add(graph.ConcatOp.make(*xs, axis=axis))

    def reshape(self, x, shape):
        return self.add(graph.ReshapeOp.make(x, shape=shape))

    def slice(self, x, starts, sizes):
        return self.add(graph.SliceOp.make(x, starts=starts, sizes=sizes, steps=(1,) * len(sizes)))

    def done(self, *results: SSAValue) -> ModuleOp:
        """The module, verified; results are named y0, y1, …"""
        self.block.add_op(ReturnOp(*results))
        outputs = [r.type for r in results]
        self.function.function_type = FunctionType.from_lists(self.block.arg_types, outputs)
        names = [DictionaryAttr({"nacre.name": StringAttr(f"y{i}")}) for i in range(len(outputs))]
        self.function.properties["res_attrs"] = ArrayAttr(names)
        self.module.verify()
        return self.module


class Npu:
    """Helpers on modules, handed to tests as the fixture `npu`."""

    Net = Net

    def feeds(self, module: ModuleOp, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        made = {}
        for name, (shape, dtype) in expected_inputs(main_function(module)).items():
            if dtype.kind == "f":
                made[name] = rng.standard_normal(shape).astype(dtype)
            else:
                made[name] = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
        return made

    def select(self, module: ModuleOp, target: str = "tiny") -> ModuleOp:
        """The layer form of a copy of a module."""
        module = module.clone()
        set_target(module, target)
        PassManager([SelectPass()]).run(module)
        module.verify()
        return module

    def lowered(self, module: ModuleOp, *passes) -> ModuleOp:
        """A copy of a module after some passes, verified after each."""
        module = module.clone()
        PassManager(passes, verify=True).run(module)
        return module

    def address_form(self, module: ModuleOp) -> ModuleOp:
        """A layer-form module with addresses and tokens."""
        return self.lowered(module, TilePass(), AllocatePass(), SchedulePass())

    def executable(self, module: ModuleOp) -> Executable:
        """What the machine runs, its commands decoded from encoded bytes."""
        machine = load_machine(module.attributes["nacre.target"].data)
        program = link(module, machine)
        kernels = list(program.kernels)
        numbers = {name: i for i, name in enumerate(kernels)}
        program.commands = isa.decode(b"".join(isa.encode(c, numbers) for c in program.commands), kernels)
        return program

    def everywhere(self, layers: ModuleOp, feeds, expected) -> Executable:
        """Run a layer-form module as layers, as tiles and on the emulator: the same bits each time."""
        self.equal(interpret_npu(layers, feeds), expected)
        tiles = self.lowered(layers, TilePass())
        self.equal(interpret_npu(tiles, feeds), expected)
        program = self.executable(self.lowered(tiles, AllocatePass(), SchedulePass()))
        check(program)
        self.equal(Emulator(program).run(feeds), expected)
        return program

    def fused(self, module: ModuleOp, *passes, target: str = "tiny", seed: int = 0) -> ModuleOp:
        """The layer form of a qnn module after passes that change no bit, checked at all levels."""
        feeds = self.feeds(module, seed)
        expected = interpret(module, feeds)
        assert all(len(np.unique(y)) > 1 for y in expected.values()), "a constant result shows nothing"
        layers = self.select(module, target)
        self.equal(interpret_npu(layers, feeds), expected)
        made = self.lowered(layers, *passes)
        self.everywhere(made, feeds, expected)
        return made

    def equal(self, found, expected) -> None:
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)

    def instructions(self, module: ModuleOp) -> list[Instruction]:
        return [op for op in main_function(module).body.block.ops if isinstance(op, Instruction)]

    def names(self, module: ModuleOp) -> list[str]:
        """Instructions of @main by name, without the prefix."""
        return [op.name.removeprefix("npu.") for op in self.instructions(module)]

    def dead(self, module: ModuleOp) -> list[str]:
        """Allocations and constants that nobody uses."""
        ops = main_function(module).body.block.ops
        return [str(op) for op in ops if isinstance(op, (AllocOp, ConstantOp)) and not op.result.first_use]

    def reparsed(self, module: ModuleOp, generic: bool = False, label: str = "<text>") -> str:
        """A module's text, which parses, verifies and prints as the same text again."""
        text = print_module(module, generic=generic)
        again = parse_module(text, make_context(), label)
        assert print_module(again, generic=generic) == text
        return text


@pytest.fixture(scope="session")
def npu() -> Npu:
    return Npu()
