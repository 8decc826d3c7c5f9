"""rtl/ternary_matmul/code_decoder.py: every stored byte and code at every place, against the contract's definition."""

import numpy as np

from hls_py.golden.ternary_matmul.encoding import engine_codes
from rtl.ternary_matmul.code_decoder import CodeDecoder
from sim_tests.blocks.ternary_matmul_cases import design
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.simulations import SimulationClass, simulations


@simulations("name", ["five_bit_t7_q3", "dense_g4_t5_q3", "dense_g2_t13_q4", "dense_g3_t26_q4"],
             cocotb=["five_bit_t7_q3", "dense_g4_t5_q3"])
def test_every_byte_everywhere(simulation: SimulationClass, name: str):
    params = design(name)
    rng = np.random.default_rng(bench_seed())
    latency = CodeDecoder.latency_cycles(params.encoding)
    every = (np.arange(256)[:, None] + 37 * np.arange(params.beat_bytes)) % 256
    beats = np.concatenate([every, rng.integers(0, 256, (300, params.beat_bytes))]).astype(np.uint8)
    count = len(beats)
    valid = rng.random(count + latency) < 0.7
    valid[:count // 2], valid[count:] = True, False
    words = [int.from_bytes(beat.tobytes(), "little") for beat in beats] + [0] * latency
    run = simulation(CodeDecoder(params)).simulator().run_vectors(
        {"valid": valid.astype(int), "beat": np.array(words, object)}, ["codes"])

    if params.encoding == "five_bit":  # codes pass as they are, also those that no encoder writes
        bits = np.unpackbits(beats, axis=1, bitorder="little")[:, :params.tables * params.outputs * params.code_bits]
        codes = np.packbits(bits.reshape(count, -1, params.code_bits), axis=2, bitorder="little")[:, :, 0]
    else:
        codes = engine_codes(beats, params).reshape(count, -1)
    expected = None
    for n in range(count):
        if valid[n]:
            expected = sum(int(code) << i * params.code_bits for i, code in enumerate(codes[n]))
        assert int(run["codes"][n + latency]) == expected, f"beat {n}"
