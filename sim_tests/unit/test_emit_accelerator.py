"""The accelerator's Verilog: the same bytes whatever the hash seed, and the ports that everything else expects."""

import os
import re
import subprocess
import sys

from hls_py.emit.accelerator import emit_accelerator
from rtl.contract.design_params import DesignParams

SMALL = DesignParams(rows=1, tables=5, outputs=2, vector_lanes=2, row_vectors=2, ports=2, port_bytes=8,
                     rows_per_builder=1, max_hidden=64, max_inner=64, max_head_dim=32, max_kv_width=32, max_heads=2,
                     max_row_vectors=2, tile_steps=32, drain_steps=64, ring_words=64, top_k=4, activations=("silu",))


def test_same_bytes_and_ports():
    text = ("import sys; from hls_py.emit.accelerator import design_verilog; "
            "from rtl.contract.design_params import DesignParams\n"
            f"sys.stdout.write(design_verilog({SMALL!r}))")
    other = subprocess.Popen([sys.executable, "-c", text], env=os.environ | {"PYTHONHASHSEED": "12345"},
                             stdout=subprocess.PIPE, text=True)
    design = emit_accelerator(SMALL)
    assert other.communicate()[0] == design.verilog and other.returncode == 0
    assert design.name == "tellme" and design.clocked
    (header,) = re.findall(r"^module tellme\((.*?)\);", design.verilog, re.MULTILINE | re.DOTALL)
    ports = set(re.split(r"[\s,]+", header))
    assert {"clk", "rst", "interrupt", "s_axi_control_awaddr", "m_axi_0_araddr", "m_axi_1_wstrb"} <= ports
    assert all(re.fullmatch(r"clk|rst|interrupt|s_axi_control_[a-z]+|m_axi_[01]_[a-z]+", port) for port in ports)
    assert "src =" not in design.verilog and "/hls_py" not in design.verilog, "no paths of this machine"
