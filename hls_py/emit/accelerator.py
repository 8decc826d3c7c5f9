"""The Verilog of a design."""

from __future__ import annotations

from rtl.contract.design_params import DesignParams
from rtl.streams.shared_module import EmittedDesign, emit_design

TOP = "tellme"


def emit_accelerator(params: DesignParams) -> EmittedDesign:
    """The accelerator of ``params`` with its kernels compiled; same parameters, same bytes.

    Ports: clk, rst, interrupt, AXI4-Lite s_axi_control_*, AXI4 m_axi_0_* … .
    """
    from hls_py.kernels.registry import KERNELS
    from rtl.accelerator import Accelerator
    return emit_design(Accelerator(params, KERNELS), TOP)


def design_verilog(params: DesignParams) -> str:
    """Text of ``emit_accelerator``."""
    return emit_accelerator(params).verilog
