"""AXI4-Lite registers: 32 bits each, byte addresses, read from here by hardware, host, C header and docs."""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

ADDRESS_BITS = 12
IDENTITY = 0x7E11ACC0
MAX_PORTS = 8


class Access(IntEnum):
    READ = 0
    WRITE = 1
    """Write has an effect, reads give zero."""
    READ_WRITE = 2
    WRITE_1_CLEAR = 3


@dataclass(frozen=True)
class Register:
    name: str
    address: int
    access: Access
    doc: str
    count: int = 1
    """Registers of an array, ``stride`` bytes apart."""
    stride: int = 4
    busy_write: bool = True
    """False: a write while a pass runs stops it with REGISTER_WRITE_WHILE_BUSY."""


class Control(IntFlag):
    ABORT = 1
    """Stop the running pass, drop the queued ones; STATUS goes idle with cause ABORTED."""
    ACKNOWLEDGE = 2
    """Clear the error; queued passes may run again."""


class Status(IntFlag):
    BUSY = 1
    """A pass is queued, runs, or is being stopped."""
    ERROR = 2
    """ERROR_CAUSE is valid; nothing starts before ACKNOWLEDGE."""
    QUEUE_FULL = 4
    DRAINING = 8
    """Memory still owes answers from before the stop."""


class ErrorCause(IntEnum):
    NONE = 0
    ABORTED = 1
    WATCHDOG = 2
    """No progress for WATCHDOG_LIMIT cycles, in all or by a memory port that owes an answer; ERROR_INFO: bit mask of
    busy units (Unit numbers), bit 14 pass loader, bit 15 sequencer, bit 16 + p silent port p."""
    READ_ERROR = 3
    """AXI read answered SLVERR or DECERR; ERROR_INFO: port."""
    WRITE_ERROR = 4
    """AXI write answered SLVERR or DECERR; ERROR_INFO: port."""
    RECORD_MAGIC = 5
    """A record's header has no magic; ERROR_INFO: sequence number expected."""
    RECORD_CRC = 6
    """ERROR_INFO: sequence number of the record."""
    RECORD_FRAMING = 7
    """A record's length or destination doesn't match the program; ERROR_INFO: sequence number."""
    BAD_COMMAND = 8
    """Unknown opcode or a field beyond the design's limits; ERROR_INFO: command number."""
    BAD_PASS = 9
    """Pass header without magic, or rows, groups or addresses out of range; ERROR_INFO: 0 header, else 1 + entry."""
    BAD_ROW = 10
    """Row or group entry out of range; ERROR_INFO: row (or 0x100 + group)."""
    WRONG_DESIGN = 11
    """The program was compiled for another design."""
    REGISTER_WRITE_WHILE_BUSY = 12
    """ERROR_INFO: register address."""
    QUEUE_OVERFLOW = 13
    """A pass was pushed while the queue was full."""
    READ_OVERFLOW = 14
    """A word from memory found no room that was reserved for it: a fault of the design; ERROR_INFO: port."""


class Counter(IntEnum):
    """64-bit counters that run while a pass runs; two registers each, low word first."""

    BUSY_CYCLES = 0
    ENGINE_STEPS = 1
    ENGINE_WAIT_STREAM = 2
    ENGINE_WAIT_ACTIVATION = 3
    """A tile waits for slices that the vector unit has not delivered."""
    ENGINE_WAIT_TABLE = 4
    """A slice waits for its tables to be built (activations were there)."""
    ENGINE_WAIT_DRAIN = 5
    """The drain ring has no room for the last slice."""
    ENGINE_NO_COMMAND = 6
    DRAIN_BUSY = 7
    QUANTISE_BUSY = 8
    GATHER_BUSY = 9
    ATTENTION_BUSY = 10
    ATTENTION_WAIT_MEMORY = 11
    KV_WRITER_BUSY = 12
    HEAD_BUSY = 13
    RING_FULL = 14
    """Weight fetch held back: no room in port 0's ring."""
    STREAM_BEATS = 15
    KV_READ_BEATS = 16
    TABLE_READ_BEATS = 17
    WRITE_BEATS = 18
    SEQUENCER_WAIT = 19
    """The sequencer waits for a queue."""


REGISTERS = [
    Register("ID", 0x000, Access.READ, "IDENTITY"),
    Register("CONTRACT_VERSION", 0x004, Access.READ, "CONTRACT_VERSION of the hardware"),
    Register("DESIGN_HASH", 0x008, Access.READ, "128 bits, low word first", count=4),
    Register("CONTROL", 0x018, Access.WRITE, "Control bits"),
    Register("STATUS", 0x01C, Access.READ, "Status bits"),
    Register("ERROR_CAUSE", 0x020, Access.READ, "an ErrorCause, the first since ACKNOWLEDGE"),
    Register("ERROR_INFO", 0x024, Access.READ, "depends on the cause"),
    Register("PASS_ADDRESS_LOW", 0x028, Access.READ_WRITE, "low word of a pass descriptor's byte address"),
    Register("PASS_ADDRESS_HIGH", 0x02C, Access.WRITE, "high word; the write queues the pass"),
    Register("PASSES_DONE", 0x030, Access.READ, "passes finished without error since reset, modulo 2**32"),
    Register("WATCHDOG_LIMIT", 0x034, Access.READ_WRITE, "cycles without progress that stop a pass; 0 turns it off",
             busy_write=False),
    Register("INTERRUPT_ENABLE", 0x038, Access.READ_WRITE, "bit 0: a pass is done, bit 1: error"),
    Register("INTERRUPT_STATUS", 0x03C, Access.WRITE_1_CLEAR, "bit 0: a pass is done, bit 1: error"),
    Register("COUNTERS_CLEAR", 0x040, Access.WRITE, "any write zeroes the counters"),
    Register("COUNTER", 0x100, Access.READ, "64-bit counters (enum Counter), low word first", count=2 * len(Counter)),
    Register("KV_BASE", 0x300, Access.READ_WRITE, "byte address of the KV cache on each port: low, high",
             count=2 * MAX_PORTS, busy_write=False),
    Register("TABLE_BASE", 0x340, Access.READ_WRITE,
             "byte address of the tables (embedding, rotary) on each port: low, high",
             count=2 * MAX_PORTS, busy_write=False),
]

BY_NAME = {r.name: r for r in REGISTERS}
PASS_QUEUE_DEPTH = 4
WATCHDOG_DEFAULT_CYCLES = 100_000


def address(name: str, index: int = 0) -> int:
    """Byte address of register ``name`` (element ``index`` of an array)."""
    register = BY_NAME[name]
    if not 0 <= index < register.count:
        raise ValueError(f"register {name} has {register.count} elements, asked for {index}")
    return register.address + index * register.stride
