"""A small design with the accelerator's ports, for tests of the simulator: copies beats through all ports of memory."""

from pathlib import Path

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hls_py.emit.simulator.build import cached_simulator
from hls_py.emit.verilator import build_once, build_root, keep_shared_modules, write_sources
from rtl.contract import register_map
from rtl.contract.design_params import DesignParams
from rtl.control.register_bank import RegisterBank
from rtl.memory_ports import axi4
from rtl.memory_ports.read_port import ReadPort
from rtl.memory_ports.striped_reader import StripedReader
from rtl.memory_ports.striped_writer import StripedWriter
from rtl.memory_ports.write_port import WritePort
from rtl.streams.shared_module import EmittedDesign, SharedModule, emit_design

DEFECTS = ("none", "ar_drops", "ar_wraps", "ar_id", "ar_narrow", "ar_unaligned", "ar_long", "ar_crosses_page",
           "r_waits", "aw_moves", "w_changes", "w_last_missing", "w_drops")
"""What the design can be told to do wrong on port 0: the number goes to WATCHDOG_LIMIT."""


class CopyMachine(wiring.Component):
    """Pushing a pass of address n copies n beats from TABLE_BASE to KV_BASE of each port; bit 31 of n masks odd bytes.

    PASSES_DONE counts read beats and write bursts that were answered with an error; STATUS bit 0 is busy.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        members = axi4.flat_members("s_axi_control", axi4.lite_signature(register_map.ADDRESS_BITS).flip())
        for p in range(params.ports):
            members |= axi4.flat_members(f"m_axi_{p}", axi4.read_signature(params))
            members |= axi4.flat_members(f"m_axi_{p}", axi4.write_signature(params))
        super().__init__({**members, "interrupt": Out(1)})

    def elaborate(self, platform):
        m = Module()
        params = self.params
        m.submodules.registers = registers = RegisterBank(params)
        axi4.connect_flat(m, self, "s_axi_control", registers.bus)
        m.submodules.reader = reader = StripedReader(params, depth_beats=32)
        m.submodules.writer = writer = StripedWriter(params)
        errors, busy, odd_off = Signal(32), Signal(), Signal()
        counts = []
        defect = registers.watchdog_limit
        for p in range(params.ports):
            reads, writes = ReadPort(params, 1), WritePort(params, 1)
            m.submodules[f"read_{p}"] = SharedModule(reads, "read_port")
            m.submodules[f"write_{p}"] = SharedModule(writes, "write_port")
            wiring.connect(m, reader.port_request[p], reads.request[0])
            wiring.connect(m, reader.port_data[p], reads.data[0])
            wiring.connect(m, writer.port_request[p], writes.request[0])
            wiring.connect(m, writer.port_data[p], writes.data[0])
            m.d.comb += writer.port_idle[p].eq(writes.idle)
            axi4.connect_flat(m, self, f"m_axi_{p}", reads.bus)
            axi4.connect_flat(m, self, f"m_axi_{p}", writes.bus)
            counts += [reads.error, writes.error]
            if p == 0:
                self._break_rules(m, defect, reads.bus, writes.bus)
        m.d.sync += errors.eq(errors + sum(counts))
        m.d.comb += [
            reader.base.eq(registers.table_base), writer.base.eq(registers.kv_base),
            registers.status.eq(busy), registers.busy.eq(busy), registers.passes_done.eq(errors),
            self.interrupt.eq(registers.interrupt),
            writer.data.valid.eq(reader.data.valid), reader.data.ready.eq(writer.data.ready),
            writer.data.p.data.eq(reader.data.p),
            writer.data.p.strobe.eq(~0),
        ]
        with m.If(odd_off):
            m.d.comb += writer.data.p.strobe.eq(int("01" * (params.beat_bytes // 2), 2))
        asked = Signal(2)
        requests = (reader.request, writer.request)
        for n, request in enumerate(requests):
            m.d.comb += [request.valid.eq(asked[n]), request.p.beat.eq(0)]
            with m.If(request.valid & request.ready):
                m.d.sync += asked[n].eq(0)
        with m.If(registers.pass_push):
            m.d.sync += [busy.eq(1), asked.eq(3), odd_off.eq(registers.pass_address[31])]
            m.d.sync += [request.p.beats.eq(registers.pass_address) for request in requests]
        with m.Elif(busy & ~asked.any() & writer.idle):
            m.d.sync += busy.eq(0)
            m.d.comb += registers.event_done.eq(1)
        return m

    def _break_rules(self, m, defect, reads, writes):
        """Override pins of port 0, which simulate a broken master."""
        flip = Signal()
        m.d.sync += flip.eq(~flip)

        def pin(name):
            return getattr(self, f"m_axi_0_{name}")

        broken = {
            "ar_drops": [pin("arvalid").eq(reads.arvalid & flip)],
            "ar_wraps": [pin("arburst").eq(2)],
            "ar_id": [pin("arid").eq(1)],
            "ar_narrow": [pin("arsize").eq(1)],
            "ar_unaligned": [pin("araddr").eq(reads.araddr | 1)],
            "ar_long": [pin("arlen").eq(reads.arlen + self.params.burst_beats)],
            "ar_crosses_page": [pin("araddr").eq(reads.araddr + self.params.port_bytes)],
            "r_waits": [pin("rready").eq(flip)],
            "aw_moves": [pin("awaddr").eq(writes.awaddr + (flip << 12))],
            "w_changes": [pin("wdata").eq(writes.wdata ^ flip)],
            "w_last_missing": [pin("wlast").eq(0)],
            "w_drops": [pin("wvalid").eq(writes.wvalid & flip)],
        }
        with m.Switch(defect):
            for name, statements in broken.items():
                with m.Case(DEFECTS.index(name)):
                    m.d.comb += statements


def copy_machine_design(params: DesignParams) -> EmittedDesign:
    return emit_design(CopyMachine(params), "tellme")


def copy_machine_library(params: DesignParams) -> Path:
    """The copy machine's simulator."""
    design = copy_machine_design(params)

    def write(folder: Path) -> None:
        write_sources(design, folder)

    folder = build_once("copy_machine", [design.verilog, keep_shared_modules(design)], write)
    return cached_simulator(params, [folder / "tellme.vlt", folder / "tellme.v"], build_root() / "simulators")
