"""AXI4-Lite register bank, built from the contract's register map."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract import register_map
from rtl.contract.design_params import CONTRACT_VERSION, DesignParams
from rtl.contract.register_map import Access, Control, Counter
from rtl.memory_ports.axi4 import lite_signature


class RegisterBank(wiring.Component):
    """The registers of ``rtl.contract.register_map``, one 32-bit access at a time.

    Addresses that hold no register read as zero and ignore writes; byte strobes are ignored (write whole words).

    Ports
    -----
    bus : AXI4-Lite slave.
    abort, acknowledge, counters_clear : one-cycle pulses.
    pass_push, pass_address : a pulse with the pass descriptor's address.
    watchdog_limit, kv_base, table_base : written values.
    busy : while set, writing a register with ``busy_write`` False is refused; ``bad_write`` pulses with
    ``bad_address``. status, error_cause, error_info, passes_done : what reads give.
    counter_asked, counter : the counter that is read, whose ``counter_value`` is wanted in the same cycle.
    event_done, event_error : pulses that set INTERRUPT_STATUS; ``interrupt`` is its masked or.

    Timing: a write takes effect, and is answered, two cycles after address and data are both there; a read is answered
    two cycles after its address.
    """

    def __init__(self, params: DesignParams):
        self.params = params
        bases = data.ArrayLayout(params.address_bits, params.ports)
        super().__init__({
            "bus": In(lite_signature(register_map.ADDRESS_BITS)),
            "abort": Out(1), "acknowledge": Out(1), "counters_clear": Out(1),
            "pass_push": Out(1), "pass_address": Out(params.address_bits),
            "watchdog_limit": Out(32, init=register_map.WATCHDOG_DEFAULT_CYCLES),
            "kv_base": Out(bases), "table_base": Out(bases),
            "busy": In(1), "bad_write": Out(1), "bad_address": Out(register_map.ADDRESS_BITS),
            "status": In(4), "error_cause": In(8), "error_info": In(32), "passes_done": In(32),
            "counter_asked": Out(1), "counter": Out(range(len(Counter))), "counter_value": In(64),
            "event_done": In(1), "event_error": In(1), "interrupt": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._writes(m)
        self._reads(m)
        return m

    def _writes(self, m):
        bus = self.bus
        take = Signal()
        write, address, value = Signal(), Signal(register_map.ADDRESS_BITS), Signal(32)
        m.d.comb += [
            take.eq(bus.awvalid & bus.wvalid & (~bus.bvalid | bus.bready) & ~write),
            bus.awready.eq(take), bus.wready.eq(take), bus.bresp.eq(0),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        m.d.sync += write.eq(take)
        with m.If(take):
            m.d.sync += [address.eq(bus.awaddr), value.eq(bus.wdata)]
        # The answer comes with the effect, so that a read behind it sees what the write did.
        with m.If(write):
            m.d.sync += bus.bvalid.eq(1)

        self.low = Signal(32)
        self.interrupt_enable, self.interrupt_status = Signal(2), Signal(2)
        raised = Cat(self.event_done, self.event_error)
        m.d.sync += self.interrupt_status.eq(self.interrupt_status | raised)
        m.d.comb += self.interrupt.eq((self.interrupt_status & self.interrupt_enable).any())
        m.d.sync += [self.abort.eq(0), self.acknowledge.eq(0), self.counters_clear.eq(0), self.pass_push.eq(0),
                     self.bad_write.eq(0)]
        with m.If(write):
            with m.Switch(address):
                for register in register_map.REGISTERS:
                    if register.access is Access.READ:
                        continue
                    for index in range(register.count):
                        with m.Case(register.address + index * register.stride):
                            self._write(m, register, index, address, value, raised)

    def _write(self, m, register, index, address, value, raised):
        """Effect of writing one register."""
        effect = {
            "CONTROL": lambda: [self.abort.eq((value & Control.ABORT.value).any()),
                                self.acknowledge.eq((value & Control.ACKNOWLEDGE.value).any())],
            "PASS_ADDRESS_LOW": lambda: [self.low.eq(value)],
            "PASS_ADDRESS_HIGH": lambda: [self.pass_push.eq(1), self.pass_address.eq(Cat(self.low, value))],
            "WATCHDOG_LIMIT": lambda: [self.watchdog_limit.eq(value)],
            "INTERRUPT_ENABLE": lambda: [self.interrupt_enable.eq(value)],
            "INTERRUPT_STATUS": lambda: [self.interrupt_status.eq(self.interrupt_status & ~value[:2] | raised)],
            "COUNTERS_CLEAR": lambda: [self.counters_clear.eq(1)],
            "KV_BASE": lambda: self._base(self.kv_base, index, value),
            "TABLE_BASE": lambda: self._base(self.table_base, index, value),
        }[register.name]()
        if register.busy_write:
            m.d.sync += effect
            return
        with m.If(self.busy):
            m.d.sync += [self.bad_write.eq(1), self.bad_address.eq(address)]
        with m.Else():
            m.d.sync += effect

    def _base(self, base, index, value):
        """Low or high half of a port's base address."""
        if index // 2 >= self.params.ports:
            return []
        half = base[index // 2][32 * (index % 2):32 * (index % 2) + 32]
        return [half.eq(value)] if len(half) else []

    def _reads(self, m):
        bus = self.bus
        pending, address = Signal(), Signal(register_map.ADDRESS_BITS)
        m.d.comb += [bus.arready.eq(~pending & ~bus.rvalid), bus.rresp.eq(0)]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [pending.eq(1), address.eq(bus.araddr)]
        # Two registers a counter, whose number is in the address: the first one's is a multiple of all their bytes.
        counters = register_map.BY_NAME["COUNTER"]
        number = address[3:3 + len(self.counter)]
        assert counters.stride == 4 and counters.address % (8 << len(self.counter)) == 0
        m.d.comb += [self.counter_asked.eq(pending), self.counter.eq(number)]
        with m.If(pending):
            m.d.sync += [pending.eq(0), bus.rvalid.eq(1), bus.rdata.eq(0)]
            # Which address it is doesn't matter to the multiplexers, as long as it is one.
            values = {register.address + index * register.stride: Value.cast(value) for register in
                      register_map.REGISTERS for index in range(register.count)
                      if (value := self._read(register.name, index)) is not None}
            with m.Switch(address):
                with m.Case(*values):
                    m.d.sync += bus.rdata.eq(_multiplexer(values, address))
                with m.Case(*(counters.address + n * counters.stride for n in range(counters.count))):
                    m.d.sync += bus.rdata.eq(self.counter_value.word_select(address[2], 32))

    def _read(self, name, index):
        """What a register reads as; None for one that gives zero."""
        word = slice(32 * (index % 2), 32 * (index % 2) + 32)
        if name in ("KV_BASE", "TABLE_BASE"):
            base = self.kv_base if name == "KV_BASE" else self.table_base
            return base[index // 2][word] if index // 2 < self.params.ports else None
        return {
            "ID": lambda: register_map.IDENTITY,
            "CONTRACT_VERSION": lambda: CONTRACT_VERSION,
            "DESIGN_HASH": lambda: self.params.design_hash >> 32 * index & 0xFFFFFFFF,
            "STATUS": lambda: self.status,
            "ERROR_CAUSE": lambda: self.error_cause,
            "ERROR_INFO": lambda: self.error_info,
            "PASS_ADDRESS_LOW": lambda: self.low,
            "PASSES_DONE": lambda: self.passes_done,
            "WATCHDOG_LIMIT": lambda: self.watchdog_limit,
            "INTERRUPT_ENABLE": lambda: self.interrupt_enable,
            "INTERRUPT_STATUS": lambda: self.interrupt_status,
        }.get(name, lambda: None)()


def _multiplexer(values: dict[int, Value], address: Value) -> Value:
    """``values[address]``, lowest bits first; anything for an address that isn't there."""
    level = values
    for bit in address:
        level = {n >> 1: Mux(bit, level[n | 1], level[n & ~1]) if n ^ 1 in level else level[n] for n in level}
    return level[0]
