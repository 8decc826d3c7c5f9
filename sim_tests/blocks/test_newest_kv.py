"""rtl/attention/newest_kv.py and query_buffer.py: what was written comes back in beats, at every row."""

import numpy as np

from rtl.attention import kv_shapes
from rtl.attention.newest_kv import NewestKv
from rtl.attention.query_buffer import QueryBuffer
from rtl.contract.number_formats import SEGMENT_BYTES
from rtl.streams.shapes import HeadKind
from sim_tests.blocks.attention_cases import Case, DesignSizes, ModelSizes, params
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations

# (ports, port_bytes, A, P, W), (KV heads, queries per KV head, head_dim), rows
SIZES = [((1, 16, 2, 3, 2), (2, 3, 18), 3), ((2, 16, 6, 4, 4), (3, 1, 100), 3), ((4, 16, 4, 21, 4), (2, 2, 40), 21),
         ((4, 16, 4, 21, 4), (5, 1, 64), 9), ((4, 64, 4, 2, 4), (3, 1, 96), 2)]


def case_of(design: DesignSizes, model: ModelSizes, rows: int) -> Case:
    return Case(params(*design), *model, [(rows, 5)], seed=bench_seed())


def of_kinds(streams: dict, *kinds: HeadKind) -> dict:
    """The streams' items of some kinds, under the blocks' port names."""
    chosen = {}
    for name, port in (("heads", "segments"), ("head_scales", "scales")):
        mask = np.isin(streams[name]["kind"], [k.value for k in kinds])
        chosen[port] = {field: values[mask] for field, values in streams[name].items()}
    return chosen


@simulations("design, model, rows", SIZES, cocotb=SIZES[:1])
def test_newest_kv(simulation: SimulationClass, design: DesignSizes, model: ModelSizes, rows: int):
    case = case_of(design, model, rows)
    p, S = case.params, case.params.segments
    simulator = simulation(NewestKv(p)).simulator()
    simulator.set("rows", rows)
    for stall in (0.4, 0.0):
        run = simulator.run_streams(of_kinds(case.head_streams(), HeadKind.KEY, HeadKind.VALUE), {}, stall=stall)
    segments = case.keys.shape[1] * case.keys.shape[2] // SEGMENT_BYTES * rows
    assert run.cycles == 2 * segments

    bench_rng = np.random.default_rng(bench_seed())
    # Every beat of every head at every first row that has a row within the pass.
    D = case.layout.padded_dim
    word_bytes, parts = p.newest_bank_bytes, kv_shapes.value_parts(p)
    key_stride, value_stride = -(-rows // word_bytes), -(-rows // SEGMENT_BYTES)
    reads, wanted, known = [], [], []
    for head in range(case.kv_heads):
        for first in range(1 - SEGMENT_BYTES, rows):
            for segment in range(D // SEGMENT_BYTES):
                reads.append((0, first, (head * D // SEGMENT_BYTES + segment) * key_stride, 0))
                at = np.arange(first, first + S)
                inside = (at >= 0) & (at < rows)
                piece = case.keys[at.clip(0, rows - 1), head].reshape(S, -1, SEGMENT_BYTES)[:, segment]
                wanted.append(piece)
                known.append(np.broadcast_to(inside[:, None], piece.shape))
            for group in range(D // S):
                word, part = group // parts, group % (SEGMENT_BYTES // S)
                reads.append((1, first, (head * D // word_bytes + word) * value_stride, part))
                at = np.arange(first, first + SEGMENT_BYTES)
                inside = (at >= 0) & (at < rows)
                piece = case.values[at.clip(0, rows - 1), head, group * S:group * S + S].T
                wanted.append(piece)
                known.append(np.broadcast_to(inside, piece.shape))
    of_values, at_row, place, piece_of = (np.array(c) for c in zip(*reads))
    after = kv_shapes.READ_STAGES + 1  # cycles until the data are there

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values, (0, after))

    empty = bench_rng.random(len(reads)) < 0.1
    overlays = [int.from_bytes(bench_rng.bytes(2 * S), "little") if n else 0 for n in empty]
    out = simulator.run_vectors(
        {"read__enable": padded((~empty).astype(int)), "read__is_empty": padded(empty.astype(int)),
         "read__is_value": padded(of_values), "read__row": padded(at_row), "read__word": padded(place),
         "read__part": padded(piece_of), "read__overlay": np.array([0] * (after - 1) + overlays + [0], object),
         "read__advance": np.full(len(reads) + after, (1 << kv_shapes.READ_STAGES) - 1)},
        ["read__data"])["read__data"][after:]
    got = np.stack([np.frombuffer(int(v).to_bytes(p.beat_bytes, "little"), np.int8) for v in out])
    laid_over = np.stack([np.frombuffer(n.to_bytes(2 * S, "little") * 8, np.int8) for n in overlays])
    np.testing.assert_array_equal(got[empty], laid_over[empty])
    wanted, known = [w for w, e in zip(wanted, empty) if not e], [k for k, e in zip(known, empty) if not e]
    got, reads = got[~empty], [r for r, e in zip(reads, empty) if not e]
    defined = np.stack(known).reshape(len(reads), -1)
    np.testing.assert_array_equal(got[defined], np.stack(wanted).reshape(len(reads), -1)[defined])

    simulator.set("scale_read__enable", 1)
    for head in range(case.kv_heads):
        for first in range(1 - S, rows):
            simulator.set("scale_read__row", first)
            simulator.set("scale_read__kv_head", head)
            for of_value, scales in enumerate((case.key_scales, case.value_scales)):
                simulator.set("scale_read__is_value", of_value)
                simulator.step()
                found = simulator.get("scale_read__scales")
                here = [s for s in range(S) if 0 <= first + s < rows]
                assert [int(found[s]) for s in here] == [int(scales[first + s, head]) for s in here]


@simulations("design, model, rows", SIZES[:3], cocotb=SIZES[:1])
def test_query_buffer(simulation: SimulationClass, design: DesignSizes, model: ModelSizes, rows: int):
    case = case_of(design, model, rows)
    simulator = simulation(QueryBuffer(case.params)).simulator()
    simulator.set("rows", rows)
    simulator.run_streams(of_kinds(case.head_streams(), HeadKind.QUERY), {}, stall=0.3)
    pieces = case.queries.reshape(rows, -1, SEGMENT_BYTES)
    places = [(r, w) for r in range(rows) for w in range(pieces.shape[1])]
    word = np.array([w * rows + r for r, w in places] + [0])
    out = simulator.run_vectors({"read_enable": np.ones(len(word), int), "read_word": word},
                                ["read_data"])["read_data"][1:]
    assert [int(v).to_bytes(16, "little") for v in out] == [pieces[place].tobytes() for place in places]
    row, head = (np.append(a.reshape(-1), 0) for a in np.indices(case.query_scales.shape))
    found = simulator.run_vectors({"scale_address": {"row": row, "head": head}}, ["scale_data"])["scale_data"][1:]
    np.testing.assert_array_equal(found, case.query_scales.reshape(-1))
