"""Errors of devices and images: each a HostError with its cause, and the next pass runs."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hls_py.boards import load_board
from host.accelerator import Accelerator, content_hash, read_manifest
from host.board import read_board
from host.devices.golden import GoldenDevice
from host.devices.verilator import VerilatorDevice
from host.errors import HostError, PassError
from host.sequences import SequencePool
from rtl.contract import pass_descriptor as descriptor
from rtl.contract import register_map
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.pass_descriptor import RowFlag
from rtl.contract.register_map import Status
from sim_tests.harness.machines import all_logits, small_design

TOKENS = [5, 9, 2, 33, 7]


@pytest.fixture
def expected(machine: Accelerator) -> np.ndarray:
    return all_logits(machine, TOKENS)


def flip(machine: Accelerator, address: int) -> None:
    machine.device.write_memory(address, machine.device.read_memory(address, 1) ^ 0xFF)


def stopped(machine: Accelerator, cause: str, spoil, repair) -> PassError:
    """A pass in the middle of a sequence stops with ``cause`` and changes nothing; repaired, the sequence goes on."""
    pool = SequencePool(machine)
    sequence = pool.open()
    pool.feed(sequence, TOKENS[:2])
    spoil()
    with pytest.raises(PassError) as caught:
        pool.feed(sequence, TOKENS[2:], last=RowFlag.LOGITS)
    assert caught.value.cause == cause and cause in str(caught.value) and "\n" not in str(caught.value)
    assert sequence.length == 2
    assert machine.device.read_register(register_map.address("STATUS")) == Status(0)
    repair()
    row = pool.feed(sequence, TOKENS[2:], last=RowFlag.LOGITS)[-1]
    pool.close(sequence)
    assert row.logits is not None
    np.testing.assert_array_equal(row.logits, all_logits(machine, TOKENS)[-1])
    return caught.value


def test_a_damaged_weight_is_found(machine: Accelerator, expected: np.ndarray):
    """On either port, in the first record's payload and in the stream's last word."""
    stream, width = machine.map.stream, machine.params.port_bytes
    for address in (stream.bases[0] + width, stream.bases[1] + width, stream.bases[1] + stream.beats * width - 1):
        change = partial(flip, machine, address)
        error = stopped(machine, "RECORD_CRC", change, change)
        assert "the weights in memory are damaged; load the image again" in str(error)
    np.testing.assert_array_equal(all_logits(machine, TOKENS), expected)


def test_a_damaged_record_header_is_found(machine: Accelerator):
    address = machine.map.stream.bases[0]
    stopped(machine, "RECORD_MAGIC", lambda: flip(machine, address), lambda: flip(machine, address))
    # Its length: too long for the command that takes it.
    stopped(machine, "RECORD_CRC", lambda: flip(machine, address + 3), lambda: flip(machine, address + 3))


def test_a_malformed_program_is_found(machine: Accelerator):
    """An opcode that is none, in the third command."""
    address = machine.map.program + (machine.manifest.program_with_head.first + 2) * COMMAND_BYTES
    good = machine.device.read_memory(address, COMMAND_BYTES)
    error = stopped(machine, "BAD_COMMAND",
                    lambda: machine.device.write_memory(address, np.full(COMMAND_BYTES, 0xFF, np.uint8)),
                    lambda: machine.device.write_memory(address, good))
    assert error.info == 2


def test_a_program_of_another_design_is_found(machine: Accelerator, monkeypatch):
    pack = descriptor.PASS_HEADER.pack

    def other(**fields):
        return pack(**{**fields, "design_id": fields["design_id"] ^ 1})

    stopped(machine, "WRONG_DESIGN", lambda: monkeypatch.setattr(machine, "_descriptor", broken(machine, other)),
            lambda: monkeypatch.undo())


def test_a_bad_pass_is_found(machine: Accelerator, monkeypatch):
    pack = descriptor.PASS_HEADER.pack
    stopped(machine, "BAD_PASS", lambda: monkeypatch.setattr(
        machine, "_descriptor", broken(machine, lambda **fields: pack(**{**fields, "magic": 0}))), monkeypatch.undo)


def broken(machine: Accelerator, pack):
    """``_descriptor`` with another header."""
    original = machine._descriptor

    def changed(*arguments):
        raw = original(*arguments)
        fields = {k: int(v) for k, v in descriptor.PASS_HEADER.unpack(raw).items()}
        return pack(**fields) + raw[descriptor.PASS_HEADER.size_bytes:]

    return changed


def test_a_program_in_a_wrong_order_is_a_host_error(machine: Accelerator, expected: np.ndarray):
    """What golden can't follow; hardware would wait until its watchdog stops it."""
    first = machine.map.program + machine.manifest.program_with_head.first * COMMAND_BYTES
    good = machine.device.read_memory(first, 8 * COMMAND_BYTES)
    commands = good.reshape(8, COMMAND_BYTES)
    machine.device.write_memory(first, np.ascontiguousarray(commands[::-1]))
    with pytest.raises(HostError):
        all_logits(machine, TOKENS)
    machine.device.write_memory(first, good)
    np.testing.assert_array_equal(all_logits(machine, TOKENS), expected)


def test_memory_beyond_its_end(machine: Accelerator):
    device = machine.device
    for address, count in ((-1, 1), (device.memory_bytes, 1), (device.memory_bytes - 3, 4), (1 << 40, 1)):
        with pytest.raises(HostError, match="lies outside the memory"):
            device.read_memory(address, count)
        with pytest.raises(HostError, match="lies outside the memory"):
            device.write_memory(address, bytes(count))


def test_causes_that_nobody_knows():
    assert str(PassError(99, 5)) == "the accelerator stopped with cause 99 (info 0x5)"


# ---- images ---------------------------------------------------------------------------------------------------------


def load(image: Path, size: int = 8 << 20, **changes: object) -> Accelerator:
    return Accelerator(GoldenDevice(small_design(**changes), size), image)


def test_a_memory_that_is_too_small(tiny_image: Path):
    found = set()
    for size in range(0, 4 << 20, 1 << 16):
        try:
            fits = load(tiny_image, size)
        except HostError as error:
            found.add(str(error).split(" (")[0])
    assert found == {"the model needs more than the device's memory",
                     "after the weights no room is left for a block of the KV cache"}
    assert fits.map.blocks >= 1


@pytest.mark.parametrize("name", ["stream.bin", "tables.bin", "program.bin"])
def test_a_damaged_image_is_refused(image: Path, name: str):
    raw = bytearray((image / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (image / name).write_bytes(raw)
    with pytest.raises(HostError, match=r"don't have the hash that image\.json states; pack the model again"):
        load(image)
    (image / name).write_bytes(raw[:-5])
    with pytest.raises(HostError, match="don't have the hash"):
        load(image)
    (image / name).unlink()
    with pytest.raises(HostError, match=f"{name} can't be read .*; pack the model again"):
        load(image)


def test_an_image_of_another_design_is_refused(tiny_image: Path):
    with pytest.raises(HostError, match=r"was packed for design .*, the device is .*; pack the model for this design"):
        load(tiny_image, rows=3)


def test_an_image_of_another_contract_is_refused(image: Path):
    change_manifest(image, contract_version=99)
    with pytest.raises(HostError, match="has contract version 99, this software 1; pack the model again"):
        load(image)


def change_manifest(image: Path, **values: object) -> None:
    raw = json.loads((image / "image.json").read_text()) | values
    (image / "image.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("values, message", [
    ({"max_rows": 0}, "max_rows is 0"), ({"vocabulary": "67"}, "vocabulary is '67'"),
    ({"layers": None}, "layers is None"),
    ({"head_extent": {"first": 0, "count": -1}}, "head_extent"), ({"head_extent": {"first": 0}}, "damaged"),
    ({"head_extent": 5}, "damaged"), ({"colour": "red"}, "keys are not those"),
    ({"design_hash": 5}, "design_hash is 5")])
def test_a_damaged_manifest_is_refused(image: Path, values, message):
    change_manifest(image, **values)
    with pytest.raises(HostError, match=message) as caught:
        load(image)
    assert "image.json is damaged" in str(caught.value) and "pack the model again" in str(caught.value)


def test_folders_that_are_no_image(tmp_path: Path, image: Path):
    with pytest.raises(HostError, match="is no image folder"):
        load(tmp_path / "none")
    for text in ("", "{", "[]", "5"):
        (image / "image.json").write_text(text)
        with pytest.raises(HostError, match=r"image\.json is damaged"):
            load(image)
    (image / "image.json").write_bytes(b"\xff\xfe")
    with pytest.raises(HostError, match=r"image\.json is damaged"):
        load(image)


def test_hash_and_manifest_of_a_good_image(tiny_image: Path):
    assert content_hash(tiny_image) == read_manifest(tiny_image).content_hash


# ---- boards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def board_file(tmp_path: Path) -> Path:
    path = tmp_path / "board.json"
    path.write_text(load_board().to_json())
    return path


def test_a_board(board_file: Path):
    board, source = read_board(board_file), load_board()
    assert board.params == source.params and board.clock_hz == 250e6 and board.memory_bytes == 1 << 30
    assert len(board.ports) == len(board.port_offsets) == board.params.ports
    assert read_board(board_file, "ideal").ports != board.ports
    with pytest.raises(HostError, match="has no memory model 'fast'; it has ideal, steady"):
        read_board(board_file, "fast")


@pytest.mark.parametrize("change, message", [
    ({"memory_bytes": "much"}, "memory_bytes is 'much'"), ({"memory_bytes": -1}, "memory_bytes is -1"),
    ({"memories": []}, ""), ({"memories": {"steady": 5}}, ""), ({"clock_hz": "fast"}, "fast"), ({"design": {}}, None),
    ({"design": {"rows": 99}}, "rows"), ({"design": 5}, ""), ({"memory": "gone"}, "it has no 'gone'")])
def test_damaged_boards(board_file: Path, change, message):
    raw = json.loads(board_file.read_text()) | change
    board_file.write_text(json.dumps(raw))
    if message is None:  # a design of defaults
        assert read_board(board_file).params.rows == 4
        return
    with pytest.raises(HostError, match=r"board\.json can't be read as a board .*generate it again") as caught:
        read_board(board_file)
    assert message in str(caught.value)


def test_files_that_are_no_board(board_file: Path):
    raw = json.loads(board_file.read_text())
    raw["memories"]["steady"]["ports"] = raw["memories"]["steady"]["ports"][:1]
    for text in ("", "{", "[]", "5", "{}", '"text"', json.dumps(raw)):
        board_file.write_text(text)
        with pytest.raises(HostError, match="can't be read as a board"):
            read_board(board_file)
    board_file.unlink()
    with pytest.raises(HostError, match="can't be read as a board"):
        read_board(board_file)


def test_a_simulator_that_is_none(board_file: Path, tmp_path: Path):
    board = dataclasses.replace(read_board(board_file), memory_bytes=1 << 16)
    with pytest.raises(HostError, match=r"can't be loaded .*; build the simulator again"):
        VerilatorDevice(tmp_path / "none.so", board)
    (tmp_path / "damaged.so").write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(HostError, match="can't be loaded"):
        VerilatorDevice(tmp_path / "damaged.so", board)
