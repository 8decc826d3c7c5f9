"""rtl/control behind real buses: AXI4-Lite and AXI4 by cocotbext-axi, units played by the bench.

What is checked: commands reach each unit in program order and only when their semaphores are up; extents and prefetch;
every cause that control itself detects can be read, and the next pass runs.
"""

from __future__ import annotations

import random

import cocotb
import pytest
from amaranth.hdl import Cat, Const, DomainRenamer, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiRamRead, AxiReadBus

from rtl.accelerator import CONTROL_PREFIX, connect_lite
from rtl.contract import command_words as words
from rtl.contract import pass_descriptor as descriptor
from rtl.contract import register_map
from rtl.contract.command_words import Opcode, Unit
from rtl.contract.design_params import DesignParams
from rtl.contract.register_map import Access, Control, Counter, ErrorCause, Status
from rtl.control.control import UNIT_DOMAIN, add_unit_domain
from rtl.control.control import Control as ControlPlane
from rtl.control.supervisor import ERROR
from rtl.memory_ports import axi4
from rtl.memory_ports.linear_reader import LinearReader
from rtl.memory_ports.read_port import ReadPort
from rtl.streams import shapes
from sim_tests.harness.bench import reset, run_bench

MEMORY = 1 << 16
PROGRAM, EXTENTS, LISTS, PASS = 0x1000, 0x4000, 0x5000, 0x6000


def design(rows: int = 4, ports: int = 2, port_bytes: int = 16) -> DesignParams:
    return DesignParams(rows=rows, tables=4, outputs=2, ports=ports, port_bytes=port_bytes, address_bits=40)


class ControlBench(wiring.Component):
    """Control, its two linear readers, and the read port 0."""

    def __init__(self, params: DesignParams):
        self.params = params
        units = len(Unit)
        super().__init__({
            **axi4.flat_members(CONTROL_PREFIX, axi4.lite_signature(register_map.ADDRESS_BITS).flip()),
            **axi4.flat_members("m_axi_0", axi4.read_signature(params)),
            "interrupt": Out(1), "valid": Out(units), "command": Out(data.ArrayLayout(shapes.COMMAND_BITS, units)),
            "ready": In(units), "done": In(units), "unit_busy": In(units), "progress": In(1), "unit_error": In(ERROR),
            "extents": Out(stream.Signature(shapes.extent(params))),
            "rows": Out(8), "tokens": Out(data.ArrayLayout(32, params.rows)), "running": Out(1),
            "slot_write": In(1), "slot": In(16), "slot_token": In(32), "unit_reset": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        p = self.params
        m.submodules.control = control = ControlPlane(p, errors=2)
        add_unit_domain(m, control.unit_reset)
        in_unit = DomainRenamer(UNIT_DOMAIN)
        port = ReadPort(p, 2)
        m.submodules.port = in_unit(port)
        for client, name in enumerate(("loader", "program")):
            reader = LinearReader(p)
            m.submodules[f"{name}_reader"] = in_unit(reader)
            wiring.connect(m, getattr(control, f"{name}_request"), reader.request)
            wiring.connect(m, reader.data, getattr(control, f"{name}_data"))
            wiring.connect(m, reader.port_request, port.request[client])
            wiring.connect(m, port.data[client], reader.port_data)
        connect_lite(m, self, control.bus)
        axi4.connect_flat(m, self, "m_axi_0", port.bus)
        wiring.connect(m, control.extents, wiring.flipped(self.extents))
        for u in range(len(Unit)):
            m.d.comb += [self.valid[u].eq(control.commands[u].valid), self.command[u].eq(control.commands[u].payload),
                         control.commands[u].ready.eq(self.ready[u])]
        m.d.comb += [
            self.interrupt.eq(control.interrupt), control.done.eq(self.done), control.unit_busy.eq(self.unit_busy),
            control.progress.eq(self.progress), control.memory_quiet.eq(1), control.settled.eq(port.outstanding == 0),
            port.stop.eq(control.stop), self.rows.eq(control.pass_state.rows), self.tokens.eq(control.pass_state.token),
            self.running.eq(control.running), self.unit_reset.eq(control.unit_reset),
            control.slot_write.eq(self.slot_write), control.slot.eq(self.slot), control.slot_token.eq(self.slot_token),
            control.errors[0].eq(Cat(port.error, Const(ErrorCause.READ_ERROR.value,
                                                       8))), control.errors[1].eq(self.unit_error),
        ]
        return m


def mask(*semaphores: int) -> int:
    return sum(1 << s for s in semaphores)


def program(rng: random.Random) -> tuple[list[bytes], list[tuple[Unit, int, int]]]:
    """Commands whose waits are signalled by earlier ones, END last; (unit, wait, signal) of each."""
    raised = [0] * words.SEMAPHORES
    commands, plan = [], []
    makers = {
        Opcode.TILE: dict(steps=3, slices=2), Opcode.DRAIN: dict(steps=3, outputs=8, mode=0),
        Opcode.QUANTISE: dict(words=4, slices=1), Opcode.GATHER: dict(words=4), Opcode.KV_WRITE: dict(head_dim=8,
            kv_heads=1),
        Opcode.ATTEND: dict(head_dim=8, kv_heads=1, queries_per_kv=1), Opcode.HEAD: dict(vocabulary=9, segments=1,
            top_k=1),
    }
    for _ in range(40):
        opcode = rng.choice(list(makers))
        wait = [s for s in range(4) if raised[s] and rng.random() < 0.5]
        signal = [s for s in range(4) if raised[s] - (s in wait) < 3 and rng.random() < 0.4]
        for s in wait:
            raised[s] -= 1
        for s in signal:
            raised[s] += 1
        commands.append(words.LAYOUTS[opcode].pack(opcode=opcode, wait=mask(*wait), signal=mask(*signal),
                                                   **makers[opcode]))
        plan.append((words.UNIT_OF[opcode], mask(*wait), mask(*signal)))
    # Whatever is still up is taken, so that the next pass starts from zero.
    while any(raised):
        wait = [s for s in range(words.SEMAPHORES) if raised[s]]
        for s in wait:
            raised[s] -= 1
        commands.append(words.KV_WRITE.pack(opcode=Opcode.KV_WRITE, wait=mask(*wait), head_dim=8, kv_heads=1))
        plan.append((Unit.KV_WRITER, mask(*wait), 0))
    return [*commands, words.END.pack(opcode=Opcode.END)], plan


class TB:
    """Buses, memory contents, and units that take random times."""

    def __init__(self, dut, bench):
        self.dut, self.bench, self.params = dut, bench, design(bench.rows, bench.ports, bench.port_bytes)
        self.rng = random.Random(bench.seed)
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, CONTROL_PREFIX), dut.clk, dut.rst)
        self.ram = AxiRamRead(AxiReadBus.from_prefix(dut, "m_axi_0"), dut.clk, dut.rst, size=MEMORY)
        if bench.stall:
            for channel in (self.ram.ar_channel, self.ram.r_channel, self.registers.write_if.aw_channel,
                            self.registers.write_if.w_channel, self.registers.write_if.b_channel,
                            self.registers.read_if.ar_channel, self.registers.read_if.r_channel):
                channel.set_pause_generator(iter(lambda: self.rng.random() < bench.stall, None))
        self.started: list[tuple[Unit, int]] = []
        self.order: list[tuple[str, Unit]] = []
        self.extents: list[int] = []
        self.frozen = False
        self.in_flight: dict[Unit, list[int]] = {u: [] for u in Unit}

    async def read(self, name: str, index: int = 0) -> int:
        return await self.registers.read_dword(register_map.address(name, index))

    async def write(self, name: str, value: int, index: int = 0) -> None:
        await self.registers.write_dword(register_map.address(name, index), value)

    def place(self, commands: list[bytes], rows: int = 2, groups: int = 1, extents: int = 2, base: int = 0,
              **header: int):
        """A pass in memory; ``header`` overrides fields of the pass header."""
        p = self.params
        self.ram.write(PROGRAM, b"".join(commands))
        size = descriptor.extent_bytes(p.ports)
        for n in range(extents):
            raw = (100 + base + n).to_bytes(8, "little") + b"".join((0x100 * (n + 1)).to_bytes(8, "little")
                                                                   for _ in range(p.ports))
            self.ram.write(EXTENTS + n * size, raw.ljust(size, b"\0"))
        fields = dict(magic=descriptor.PASS_MAGIC, rows=rows, groups=groups, program_address=PROGRAM,
                      commands=len(commands), extents=extents, extents_address=EXTENTS,
                      design_id=p.design_hash & 0xFFFFFFFF)
        raw = descriptor.PASS_HEADER.pack(**{**fields, **header})
        for r in range(rows):
            raw += descriptor.ROW_ENTRY.pack(position=r, token=7 + r, slot=r, visible=(2 << r) - 1)
        raw += descriptor.GROUP_ENTRY.pack(first_row=0, rows=rows, past=0, list_address=LISTS, blocks=1)
        self.ram.write(PASS, raw)

    async def push(self) -> None:
        await self.write("PASS_ADDRESS_LOW", PASS)
        await self.write("PASS_ADDRESS_HIGH", 0)

    async def finish(self) -> Status:
        """Poll until idle or error."""
        for _ in range(3000):
            status = Status(await self.read("STATUS"))
            if status & Status.ERROR or not status & Status.BUSY:
                return status
        raise AssertionError("still busy")

    async def recover(self) -> None:
        await self.write("CONTROL", int(Control.ABORT))
        await self.write("CONTROL", int(Control.ACKNOWLEDGE))
        for _ in range(200):
            if not Status(await self.read("STATUS")) & (Status.BUSY | Status.ERROR):
                return
        raise AssertionError("no recovery")

    async def units(self) -> None:
        """Take commands, finish them later in order; progress while anything moves."""
        dut = self.dut
        waiting: dict[Unit, list[int]] = {u: [] for u in Unit}
        while True:
            ready = sum(1 << u for u in Unit if not self.frozen and self.rng.random() < 0.5)
            done = 0
            for u in Unit:
                if waiting[u] and not self.frozen:
                    waiting[u][0] -= 1
                    if waiting[u][0] <= 0:
                        waiting[u].pop(0)
                        self.order.append(("done", u))
                        done |= 1 << u
            dut.ready.value, dut.done.value = ready, done
            dut.unit_busy.value = sum(1 << u for u in Unit if waiting[u])
            dut.extents__ready.value = int(self.rng.random() < 0.5)
            await ReadOnly()
            taken = int(dut.valid.value) & ready
            command = int(dut.command.value)
            if int(dut.extents__valid.value) and int(dut.extents__ready.value):
                self.extents.append(int(dut.extents__payload.value) & 0xFFFFFFFF)
            clear = int(dut.unit_reset.value)
            await RisingEdge(dut.clk)
            for u in Unit:
                if clear:
                    waiting[u].clear()
                elif taken >> u & 1:
                    self.started.append((u, command >> 256 * u & ((1 << 256) - 1)))
                    self.order.append(("start", u))
                    waiting[u].append(self.rng.randint(1, 12))


async def set_up(dut) -> TB:
    bench = await reset(dut)
    tb = TB(dut, bench)
    cocotb.start_soon(tb.units())
    return tb


@cocotb.test()
async def registers_read_back(dut):
    tb = await set_up(dut)
    assert await tb.read("ID") == register_map.IDENTITY
    found = [await tb.read("DESIGN_HASH", i) for i in range(4)]
    assert sum(w << 32 * i for i, w in enumerate(found)) == tb.params.design_hash
    for register in register_map.REGISTERS:
        if register.access is Access.READ_WRITE:
            await tb.write(register.name, 0x12345678 & 3 if register.name == "INTERRUPT_ENABLE" else 0x12345678)
            value = await tb.read(register.name)
            assert value == (0x12345678 & 3 if register.name == "INTERRUPT_ENABLE" else 0x12345678), register.name
    assert await tb.read("COUNTER", 2 * Counter.BUSY_CYCLES) == 0


@cocotb.test()
async def passes_run_in_order(dut):
    tb = await set_up(dut)
    await tb.write("INTERRUPT_ENABLE", 1)
    for number in range(3):
        commands, plan = program(tb.rng)
        tb.started.clear()
        tb.order.clear()
        tb.place(commands)
        await tb.push()
        assert not (await tb.finish()) & Status.ERROR
        assert await tb.read("PASSES_DONE") == number + 1
        assert int(dut.interrupt.value) == 1
        await tb.write("INTERRUPT_STATUS", await tb.read("INTERRUPT_STATUS"))
        assert int(dut.interrupt.value) == 0
        for unit in Unit:
            expected = [int.from_bytes(c, "little") for c, (u, _, _) in zip(commands, plan) if u == unit]
            assert [c for u, c in tb.started if u == unit] == expected
        check_semaphores(tb, plan)
    # Layers and head of every pass, the first extent prefetched once and not queued twice.
    assert tb.extents == [100, 101, 100, 101, 100, 101, 100]
    assert await tb.read("COUNTER", 2 * Counter.BUSY_CYCLES) > 0


def check_semaphores(tb: TB, plan: list[tuple[Unit, int, int]]) -> None:
    """Replay starts and ends: no command started before its semaphores were up."""
    of_unit = {u: [(w, s) for unit, w, s in plan if unit == u] for u in Unit}
    begun, ended = {u: 0 for u in Unit}, {u: 0 for u in Unit}
    count = [0] * words.SEMAPHORES
    for what, unit in tb.order:
        if what == "start":
            wait = of_unit[unit][begun[unit]][0]
            begun[unit] += 1
            for s in range(words.SEMAPHORES):
                count[s] -= wait >> s & 1
                assert count[s] >= 0, f"{unit.name} started before semaphore {s} was up"
        else:
            signal = of_unit[unit][ended[unit]][1]
            ended[unit] += 1
            for s in range(words.SEMAPHORES):
                count[s] += signal >> s & 1
    assert begun == ended == {u: len(v) for u, v in of_unit.items()}


@cocotb.test()
async def another_first_extent_resets_the_stream(dut):
    tb = await set_up(dut)
    commands, _ = program(tb.rng)
    for base in (0, 50):
        tb.place(commands, base=base)
        await tb.push()
        assert not (await tb.finish()) & Status.ERROR
    assert tb.extents == [100, 101, 100, 150, 151, 150]
    assert await tb.read("PASSES_DONE") == 2


@cocotb.test()
async def token_from_a_slot(dut):
    tb = await set_up(dut)
    dut.slot_write.value, dut.slot.value, dut.slot_token.value = 1, 3, 4242
    await RisingEdge(dut.clk)
    dut.slot_write.value = 0
    commands, _ = program(tb.rng)
    tb.place(commands)
    row = descriptor.ROW_ENTRY.pack(position=1, token=3, slot=1, visible=3, flags=descriptor.RowFlag.TOKEN_FROM_SLOT)
    tb.ram.write(PASS + descriptor.PASS_HEADER.size_bytes + 16, row)
    await tb.push()
    assert not (await tb.finish()) & Status.ERROR
    tokens = int(dut.tokens.value)
    assert [tokens & 0xFFFFFFFF, tokens >> 32 & 0xFFFFFFFF] == [7, 4242]


@cocotb.test()
async def every_cause_can_be_read_and_the_next_pass_runs(dut):
    tb = await set_up(dut)
    commands, _ = program(tb.rng)
    bad = list(commands)
    bad[5] = bytes([99]) + bad[5][1:]
    long_tile = words.TILE.pack(opcode=Opcode.TILE, steps=tb.params.tile_steps + 1, slices=1)
    stuck = [words.KV_WRITE.pack(opcode=Opcode.KV_WRITE, wait=mask(9), head_dim=8, kv_heads=1), commands[-1]]

    cases = [
        ("magic", ErrorCause.BAD_PASS, 0, lambda: tb.place(commands, magic=1)),
        ("rows", ErrorCause.BAD_PASS, 0, lambda: tb.place(commands, rows=tb.params.rows + 1)),
        ("design", ErrorCause.WRONG_DESIGN, 0, lambda: tb.place(commands, design_id=1)),
        ("group", ErrorCause.BAD_ROW, 0x100, lambda: (tb.place(commands), tb.ram.write(
            PASS + 64 + 32, descriptor.GROUP_ENTRY.pack(first_row=1, rows=1, blocks=1)))),
        ("blocks", ErrorCause.BAD_ROW, 0x100, lambda: (tb.place(commands), tb.ram.write(
            PASS + 64 + 32, descriptor.GROUP_ENTRY.pack(first_row=0, rows=2, past=127, blocks=1)))),
        ("slot", ErrorCause.BAD_ROW, 1, lambda: (tb.place(commands), tb.ram.write(
            PASS + 64 + 16, descriptor.ROW_ENTRY.pack(slot=tb.params.max_slots)))),
        ("mask", ErrorCause.BAD_ROW, 0, lambda: (tb.place(commands), tb.ram.write(
            PASS + 64, descriptor.ROW_ENTRY.pack(visible=4)))),
        ("opcode", ErrorCause.BAD_COMMAND, 5, lambda: tb.place(bad)),
        ("tile", ErrorCause.BAD_COMMAND, 0, lambda: tb.place([long_tile, commands[-1]])),
        ("no end", ErrorCause.BAD_COMMAND, len(commands) - 1, lambda: tb.place(commands[:-1])),
        ("stuck", ErrorCause.WATCHDOG, 1 << 15, lambda: tb.place(stuck)),
    ]
    await tb.write("WATCHDOG_LIMIT", 1000)
    for passes, (name, cause, info, arrange) in enumerate(cases):
        arrange()
        await tb.push()
        assert await tb.finish() & Status.ERROR, name
        assert ErrorCause(await tb.read("ERROR_CAUSE")) is cause, name
        assert await tb.read("ERROR_INFO") == info, name
        await tb.recover()
        tb.place(commands)
        await tb.push()
        assert not (await tb.finish()) & Status.ERROR, f"pass after {name}"
        assert await tb.read("PASSES_DONE") == passes + 1


@cocotb.test()
async def abort_overflow_and_writes_while_busy(dut):
    tb = await set_up(dut)
    commands, _ = program(tb.rng)
    tb.place(commands)
    for what, cause in (("abort", ErrorCause.ABORTED), ("write", ErrorCause.REGISTER_WRITE_WHILE_BUSY),
                        ("overflow", ErrorCause.QUEUE_OVERFLOW), ("unit", ErrorCause.RECORD_CRC)):
        tb.frozen = True
        await tb.push()
        while not int(dut.running.value):
            await RisingEdge(dut.clk)
        if what == "abort":
            await tb.write("CONTROL", int(Control.ABORT))
        elif what == "write":
            await tb.write("KV_BASE", 64)
        elif what == "overflow":
            for _ in range(register_map.PASS_QUEUE_DEPTH + 2):
                await tb.push()
        else:
            dut.unit_error.value = 1 | ErrorCause.RECORD_CRC << 1 | 77 << 9
            await RisingEdge(dut.clk)
            dut.unit_error.value = 0
        assert await tb.finish() & Status.ERROR, what
        assert ErrorCause(await tb.read("ERROR_CAUSE")) is cause, what
        if what == "write":
            assert await tb.read("ERROR_INFO") == register_map.address("KV_BASE")
        if what == "unit":
            assert await tb.read("ERROR_INFO") == 77
        tb.frozen = False
        await tb.recover()
        before = await tb.read("PASSES_DONE")
        await tb.push()
        assert not (await tb.finish()) & Status.ERROR, what
        assert await tb.read("PASSES_DONE") == before + 1


@pytest.mark.parametrize("rows, ports, port_bytes, stall", [(4, 2, 16, 0.0), (3, 1, 64, 0.4), (16, 4, 4, 0.3)])
def test_control(rows: int, ports: int, port_bytes: int, stall: float):
    run_bench(ControlBench(design(rows, ports, port_bytes)), __name__, rows=rows, ports=ports, port_bytes=port_bytes,
              stall=stall)
