"""Board files: what is shipped loads; whatever is wrong in a file gives one line that names place and remedy."""

import copy

import pytest
import yaml

from hls_py.boards import FOLDER, RATE_UNIT, PortTiming, board_names, load_board
from hls_py.emit.c_header import design_header
from hls_py.errors import TellmeError
from rtl.contract.design_params import DesignParams


@pytest.fixture(scope="module")
def kv260():
    return yaml.safe_load((FOLDER / "kv260.yaml").read_text())


def load(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_board(path)


@pytest.mark.parametrize("name", board_names())
def test_shipped_boards(name):
    board = load_board(name)
    resolved = board.resolved()
    assert DesignParams.from_dict(resolved["design"]) == board.params
    assert int(resolved["design_hash"], 16) == board.params.design_hash
    assert resolved["memory"] in resolved["memories"]
    for memory in resolved["memories"].values():
        assert len(memory["ports"]) == len(memory["start_offsets_bytes"]) == len(board.ports) == board.params.ports
    assert board.to_json() == load_board(name).to_json()


def test_default_is_the_simulation_design():
    board = load_board()
    assert board.name == "simulation" and board.part is None and board.resources is None
    assert board.params == DesignParams(rows_per_builder=2)


def test_kv260():
    board = load_board("kv260")
    p = board.params
    assert (p.rows, p.tables, p.outputs, p.row_vectors, p.ports, p.port_bytes) == (16, 20, 5, 16, 4, 16)
    assert board.clock_hz == 250_000_000 and board.resources and board.resources["dsp"] == 1248
    placed, unplaced = board.memories["placed"], board.memories["unplaced"]
    assert placed.start_offsets_bytes == (0, 0, 48 * 1024, 24 * 1024) and set(unplaced.start_offsets_bytes) == {0}
    # The rate between refreshes, times the share of time without one, is what was measured.
    for model, measured in ((placed, (3.95e9, 3.77e9, 3.76e9, 3.91e9)), (unplaced, (3.83e9, 3.02e9, 3.01e9, 3.79e9))):
        for port, rate in zip(model.ports, measured):
            moving = 1 - port.refresh_cycles / port.refresh_interval_cycles
            assert port.rate_beats_per_million_cycles / RATE_UNIT * moving * 4e9 == pytest.approx(rate, rel=1e-5)
    assert all(port.rate_beats_per_million_cycles == RATE_UNIT for port in board.memories["ideal"].ports)


def test_by_path_and_overrides(tmp_path, kv260):
    board = load(tmp_path, kv260)
    assert board.name == "mine" and board.resolved() == load_board("kv260").resolved() | {"name": "mine"}
    assert load_board("simulation", {"rows": 1, "encoding": "dense"}).params.rows == 1
    with pytest.raises(TellmeError, match=r"unknown key 'row' of design \(did you mean rows\?\)"):
        load_board("simulation", {"row": 1})


def test_one_rate_for_all_ports_and_defaults(tmp_path, kv260):
    kv260 = copy.deepcopy(kv260)
    kv260["memory"] = {"bytes": 1 << 30, "default": "flat", "models": {"flat": {
        "port_bytes_per_second": 2e9, "read_latency_cycles": 7, "write_latency_cycles": 3}}}
    (timing,) = set(load(tmp_path, kv260).memories["flat"].ports)
    assert timing == PortTiming(500_000, 7, 3, 0, 0, 0, 64, 64)


def changed(content, path, value):
    """A copy in which the entry at ``path`` is ``value`` (None deletes it)."""
    content = copy.deepcopy(content)
    *way, last = path.split(".")
    place = content
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize("path, value, message", [
    ("clock_mhz", 250, "unknown key 'clock_mhz'.*clock_hz"),
    ("clock_hz", 250, "clock_hz is 250; it must be an integer, 1000000 … 2000000000"),
    ("clock_hz", "fast", "clock_hz is 'fast'; it must be an integer"),
    ("clock_hz", True, "clock_hz is True"),
    ("clock_hz", None, "clock_hz is missing"),
    ("part", 7, "part is 7; it must be null or the vendor's part number"),
    ("ports", ["a", "a", "b", "c"], "ports is .*different port names"),
    ("ports", ["a", "b", "c"], "ports is 3; it must be 1, 2, 4 or 8"),
    ("resources.luts", 5, r"unknown key 'luts' of resources \(did you mean lut\?\); known keys are bram36, dsp"),
    ("resources.lut", -5, "resources.lut is -5; it must be an integer, 0"),
    ("resources.uram", None, "resources.uram is missing"),
    ("design.outptus", 5, r"unknown key 'outptus' of design \(did you mean outputs\?\)"),
    ("design.ports", 4, "unknown key 'ports' of design"),
    ("design.rows", 33, "rows is 33; it must be 1 … 32"),
    ("design.rows", 2.5, "design.rows is 2.5; it must be an integer"),
    ("design.encoding", "six_bit", "encoding is 'six_bit'; it must be one of five_bit, dense"),
    ("design.activations", "silu", "design.activations is 'silu'; it must be a list of names"),
    ("design.tables", 40, "tables is 40; a step's codes take 1000 bits of a beat of 512"),
    ("design", [1], "design must be a mapping"),
    ("memory.bytes", 0, "memory.bytes is 0; it must be an integer"),
    ("memory.default", "best", "memory.default is 'best'; it must be one of ideal, placed, unplaced"),
    ("memory.models", {}, "memory.models is {}; it must be at least one memory model"),
    ("memory.models.placed.latency", 5, "unknown key 'latency' of memory.models.placed.*read_latency_cycles"),
    ("memory.models.placed.read_latency_cycles", 0, "read_latency_cycles is 0; it must be an integer, 1 …"),
    ("memory.models.placed.refresh_cycles", 1950, "refresh_cycles is 1950; it must be an integer, 0 … 1949"),
    ("memory.models.placed.outstanding_reads", 65, "outstanding_reads is 65; it must be an integer, 1 … 64"),
    ("memory.models.placed.port_bytes_per_second", [1e9] * 3, "one for each of the 4 ports"),
    ("memory.models.placed.port_bytes_per_second", 4e9, "of at most 3.951e.09"),
    ("memory.models.placed.port_bytes_per_second", 0, "a number above 0"),
    ("memory.models.placed.start_offsets_bytes", [0, 0, 1, 0], "4 multiples of 64"),
])
def test_refusals(tmp_path, kv260, path, value, message):
    with pytest.raises(TellmeError, match=message) as caught:
        load(tmp_path, changed(kv260, path, value))
    assert str(tmp_path / "mine.yaml") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, message", [
    ("a: [", "not valid YAML"),
    ("- 1", "the file must be a mapping"),
    ("", "the file must be a mapping"),
    ("part: null\npart: null", "key 'part' occurs twice"),
    ("1: 2", "key 1 is not a name"),
])
def test_no_board_at_all(tmp_path, text, message):
    with pytest.raises(TellmeError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_unknown_names(tmp_path):
    with pytest.raises(TellmeError, match=r"no board 'kv620' \(did you mean kv260\?\); boards are kv260, simulation"):
        load_board("kv620")
    with pytest.raises(TellmeError, match="there is no board file"):
        load_board(tmp_path / "none.yaml")
    with pytest.raises(TellmeError, match="can't be read"):
        (tmp_path / "folder.yaml").mkdir()
        load_board(tmp_path / "folder.yaml")


def test_c_header(tmp_path):
    """It compiles without a warning as C99 and C++, and a program sees the contract's numbers."""
    import subprocess

    from rtl.contract import pass_descriptor, register_map
    params = load_board("kv260").params
    (tmp_path / "tellme_design.h").write_text(design_header(params))
    expected = {"REG_PASS_ADDRESS_HIGH": register_map.address("PASS_ADDRESS_HIGH"),
                "ERROR_RECORD_CRC": register_map.ErrorCause.RECORD_CRC, "STATUS_DRAINING": register_map.Status.DRAINING,
                "COUNTER_WRITE_BEATS": register_map.Counter.WRITE_BEATS, "PARAM_ROWS": 16, "PARAM_BEAT_BYTES": 64,
                "PASS_HEADER_BYTES": pass_descriptor.PASS_HEADER.size_bytes, "GROUP_ENTRY_LIST_ADDRESS_WORD": 2,
                "GROUP_ENTRY_LIST_ADDRESS_BITS": 64, "ROW_ENTRY_FLAGS_LSB": 16,
                "PASS_MAGIC": pass_descriptor.PASS_MAGIC, "EXTENT_BYTES": 48,
                "ROW_FLAG_LOGITS": pass_descriptor.RowFlag.LOGITS}
    prints = "".join(f'printf("%lu\\n", (unsigned long)TELLME_{name});' for name in expected)
    text = ('#include <stdio.h>\n#include "tellme_design.h"\nint main(void) {\n'
            "static const unsigned hash[4] = TELLME_DESIGN_HASH_WORDS;\n"
            f'{prints}printf("%08x%08x%08x%08x\\n", hash[3], hash[2], hash[1], hash[0]); return 0; }}\n')
    for compiler, standard, source in (("gcc", "-std=c99", "a.c"), ("g++", "-std=c++17", "a.cpp")):
        (tmp_path / source).write_text(text)
        strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
        subprocess.run([compiler, standard, *strict, "-o", "a", source], cwd=tmp_path, check=True)
        lines = subprocess.run(["./a"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
        assert lines == [*(str(int(value)) for value in expected.values()), f"{params.design_hash:032x}"]
    assert design_header(params) == design_header(params)
