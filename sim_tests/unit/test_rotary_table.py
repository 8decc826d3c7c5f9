"""The rotary table: rounded right, and like everything in an image the same on every machine."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from hls_py.errors import TellmeError
from hls_py.model_import.config import MAX_ANGLE, parse_config
from hls_py.model_import.model import Model
from hls_py.model_import.rope import Llama3Scaling, Rope
from hls_py.packing.image import pack
from hls_py.packing.tables import rotary_rows
from hls_py.packing.trigonometry import cosine_and_sine
from rtl.contract.design_params import DesignParams
from sim_tests.harness.bench import bench_seed
from sim_tests.harness.checkpoints import FAMILIES, Synthetic

TABLE_SHA256 = "61431a0f34faac52bf264a7a842c358b8ad2faade59f0aa6190a6e7d6f8a75c8"
"""Of 4,096 positions of BitNet 2B-4T's table."""


def angles() -> np.ndarray:
    """Small, ordinary and large ones, and the float32 nearest to many multiples of π/2, where one result is tiny."""
    rng = np.random.default_rng(bench_seed())
    multiples = np.rint(rng.uniform(0, 2 * MAX_ANGLE / math.pi, 20_000)) * (math.pi / 2)
    ordinary = [rng.uniform(0, largest, 50_000) for largest in (1, 100, 1 << 17, MAX_ANGLE)]
    both = np.concatenate([[0, 2.0**-149, 1e-30, MAX_ANGLE], multiples, *ordinary]).astype(np.float32)
    both = both[both <= MAX_ANGLE]
    return np.concatenate([both, -both])


def test_against_libm():
    """libm's float64 leaves 29 bits for the rounding to float32; where it can't tell, either neighbour will do."""
    x = angles()
    for name, found, function in zip(("cos", "sin"), cosine_and_sine(x), (math.cos, math.sin)):
        exact = np.array([function(float(angle)) for angle in x])
        error = np.abs(found.astype(np.float64) - exact)
        half_a_step = 0.5 * np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        worst = np.argmax(error / half_a_step)
        assert error[worst] <= half_a_step[worst] * (1 + 1e-7), (name, x[worst], found[worst], exact[worst])


def test_angles_beyond_the_range():
    with pytest.raises(ValueError, match="beyond 16777216 radians"):
        cosine_and_sine(np.array([1.0, 2.0 * MAX_ANGLE], np.float32))
    with pytest.raises(ValueError, match="beyond"):
        cosine_and_sine(np.array([np.nan], np.float32))


@pytest.mark.parametrize("rope", [
    Rope(1e4), Rope(1e-3), Rope(5e5, linear_factor=0.25), Rope(5e5, linear_factor=8.0),
    Rope(1e4, divisors=(2.0,) * 31 + (0.5,)), Rope(5e5, llama3=Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    Rope(5e5, llama3=Llama3Scaling(0.5, 1.0, 4.0, 8192))], ids=str)
def test_no_frequency_is_above_the_fastest(rope):
    assert rope.frequencies(64).max() <= rope.fastest * (1 + 1e-6)


def test_an_embedding_that_turns_too_fast_is_refused():
    config = Synthetic(FAMILIES["llama3-8b"].reduced()).config()
    for change in ({"rope_theta": 1e-20}, {"rope_scaling": {"rope_type": "linear", "factor": 1e-9}}):
        with pytest.raises(TellmeError, match=r"turns by up to .* radians a position; over 160 positions at most 1\.0"):
            parse_config(config | change)


# ---- the same on every machine --------------------------------------------------------------------------------------

PACK = """
import sys
from pathlib import Path
from sim_tests.unit.test_rotary_table import packed
packed(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def packed(model: Path, folder: Path) -> Path:
    params = DesignParams(tables=7, outputs=3, ports=1, port_bytes=16, max_hidden=256, max_inner=512)
    pack(Model(model), params, folder, progress=False)
    return folder


def test_known_table():
    rows = rotary_rows(Rope(5e5).frequencies(128), 0, 4096)
    assert hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest() == TABLE_SHA256


def test_an_image_does_not_depend_on_the_cpu(tmp_path):
    """NumPy without the code paths that it picks by CPU: masters quantised by absmean, head rows, tables, program."""
    dispatched = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    if not dispatched:
        pytest.skip("NumPy has no code path for this CPU that could be switched off")
    family = replace(FAMILIES["1bitllm-large"].reduced(), max_positions=512)
    model = Synthetic(family).write_huggingface(tmp_path / "model")
    here = packed(model, tmp_path / "here")
    subprocess.run([sys.executable, "-c", PACK, model, tmp_path / "there"], check=True,
                   env=os.environ | {"NPY_DISABLE_CPU_FEATURES": ",".join(dispatched)})
    files = sorted(path.name for path in here.iterdir())
    assert files
    for name in files:
        assert (here / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
