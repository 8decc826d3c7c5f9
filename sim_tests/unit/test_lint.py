"""The accelerator's Verilog passes Verilator's lint with -Wall and the waivers of rtl/lint_waivers.vlt."""

import subprocess
from pathlib import Path

from hls_py import design_folder
from hls_py.boards import load_board
from hls_py.cache import Cache
from hls_py.emit.accelerator import TOP
from hls_py.emit.verilator import build_root, tool_environment, verilator_command
from hls_py.progress import Progress

WAIVERS = Path(__file__).resolve().parents[2] / "rtl" / "lint_waivers.vlt"


def lint(verilog: Path) -> str:
    """Verilator's complaints."""
    command = [verilator_command(), "--lint-only", "-Wall", "--top-module", TOP, str(WAIVERS), str(verilog)]
    done = subprocess.run(command, env=tool_environment(), capture_output=True, text=True)
    return done.stderr or ("" if not done.returncode else "Verilator failed")


def test_accelerator_passes_lint():
    design = Cache(build_root(), Progress(quiet=True)).design(load_board().params)
    assert not lint(design / design_folder.VERILOG_FILE)[:4000]


def test_a_finding_is_seen(tmp_path: Path):
    """A latch in the top would be reported."""
    text = f"module {TOP}(input a, input b, output reg q); always_comb if (a) q = b; endmodule\n"
    (tmp_path / "latch.v").write_text(text.replace("always_comb", "always @*"))
    assert "LATCH" in lint(tmp_path / "latch.v")
