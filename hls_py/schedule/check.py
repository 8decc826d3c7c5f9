"""Runs a program against the machine's finite queues and buffers, and refuses one that would wait for ever.

Time is left out: a command is carried out as soon as everything it needs is there. If that ends with commands left
over, no timing can save them; if it ends with none, every wait of the real machine ends too, because a command that
could run only ever frees what others wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from hls_py.errors import TellmeError
from hls_py.schedule.shape import ModelShape
from hls_py.schedule.stream_order import Codes, Gains, HeadRows, head_records, layer_records
from rtl.contract import command_words as words
from rtl.contract.command_words import QUEUE_COMMANDS, SEMAPHORES, UNIT_OF, DrainMode, Opcode, QuantiseTarget, Unit

Command = tuple[int, Opcode, dict[str, int | float]]


class _Machine:
    """State of everything that can make a command wait."""

    def __init__(self, shape: ModelShape, records: Iterable[Gains | Codes | HeadRows]):
        self.params = shape.params
        self.records: Iterator[Gains | Codes | HeadRows] = iter(records)
        self.record = next(self.records, None)
        self.semaphores = [0] * SEMAPHORES
        self.queues: dict[Unit, deque[Command]] = {unit: deque() for unit in Unit}
        self.bank_full = [False, False]
        self.buffer_full = [False, False]
        self.tiles: deque[int] = deque()
        self.handlers = {Opcode.TILE: self._tile, Opcode.DRAIN: self._drain, Opcode.QUANTISE: self._quantise,
                         Opcode.GATHER: self._writes, Opcode.ATTEND: self._writes, Opcode.KV_WRITE: lambda f: True,
                         Opcode.HEAD: self._head}

    def _take_gains(self) -> None:
        """Gains pass from the stream into their banks as these become free."""
        while isinstance(self.record, Gains) and not self.bank_full[self.record.bank]:
            self.bank_full[self.record.bank] = True
            self.record = next(self.records, None)

    def _tile(self, f: dict) -> bool:
        room = self.params.drain_steps - sum(self.tiles)
        if not (isinstance(self.record, Codes) and self.buffer_full[f["activation"]] and f["steps"] <= room
                and len(self.tiles) < words.DRAIN_TILES):
            return False
        if self.record.tile.steps != f["steps"]:
            raise TellmeError(f"the program sweeps {f['steps']} steps where the stream holds {self.record}")
        self.tiles.append(f["steps"])
        self.record = next(self.records, None)
        if f["release"]:
            self.buffer_full[f["activation"]] = False
        return True

    def _writes(self, f: dict) -> bool:
        """A command whose written values are gathered for a norm needs that norm's gains."""
        return not f["has_norm"] or self.bank_full[f["gain_bank"]]

    def _drain(self, f: dict) -> bool:
        needed = 2 if f["mode"] == DrainMode.GATED else 1
        if len(self.tiles) < needed or not self._writes(f):
            return False
        for _ in range(needed):
            self.tiles.popleft()
        return True

    def _quantise(self, f: dict) -> bool:
        to_buffer = f["target"] == QuantiseTarget.ACTIVATION
        if not self._writes(f) or (to_buffer and self.buffer_full[f["activation"]]):
            return False
        if f["has_norm"]:
            self.bank_full[f["gain_bank"]] = False
        if to_buffer:
            self.buffer_full[f["activation"]] = True
        return True

    def _head(self, f: dict) -> bool:
        if not isinstance(self.record, HeadRows):
            return False
        while isinstance(self.record, HeadRows):
            self.record = next(self.records, None)
        return True

    def step(self) -> bool:
        """Carry out one command that can run; False when none can."""
        self._take_gains()
        for queue in self.queues.values():
            if not queue:
                continue
            _, opcode, fields = queue[0]
            waits = [s for s in range(SEMAPHORES) if int(fields["wait"]) >> s & 1]
            if not all(self.semaphores[s] for s in waits) or not self.handlers[opcode](fields):
                continue
            queue.popleft()
            for s in range(SEMAPHORES):
                self.semaphores[s] += (int(fields["signal"]) >> s & 1) - (s in waits)
            return True
        return False


def check_program(shape: ModelShape, program: bytes, with_head: bool) -> None:
    """Raises :class:`TellmeError` naming the command that would never start, or what is left over at the end."""
    records: list[Gains | Codes | HeadRows] = [r for n in range(shape.config.layers) for r in layer_records(shape, n)]
    if with_head:
        records += head_records(shape)
    machine = _Machine(shape, records)
    size = words.COMMAND_BYTES
    commands = [(n, *words.decode(program[n * size:(n + 1) * size])) for n in range(len(program) // size)]
    if not commands or commands[-1][1] is not Opcode.END:
        raise TellmeError("the program doesn't end with END")
    for command in commands[:-1]:
        queue = machine.queues[UNIT_OF[command[1]]]
        while len(queue) >= QUEUE_COMMANDS:
            if not machine.step():
                _refuse(machine)
        queue.append(command)
    while machine.step():
        pass
    if any(machine.queues.values()):
        _refuse(machine)
    left = [f"{sum(machine.semaphores)} semaphore counts" if any(machine.semaphores) else "",
            f"record {machine.record}" if machine.record is not None else "",
            f"{len(machine.tiles)} tiles" if machine.tiles else "",
            "gains" if any(machine.bank_full) else "", "activations" if any(machine.buffer_full) else ""]
    if any(left):
        raise TellmeError(f"the program leaves behind: {', '.join(filter(None, left))}")


def _refuse(machine: _Machine) -> None:
    number, opcode, _ = min(queue[0] for queue in machine.queues.values() if queue)
    raise TellmeError(f"the program would wait for ever at command {number} ({opcode.name}); "
                      "this design's buffers are too small for the model")
