"""AXI4 and AXI4-Lite as the machine uses them, and their flat port names.

Source: AMBA AXI and ACE protocol specification, ARM IHI 0022 (AXI4, AXI4-Lite). Masters use one ID, INCR bursts of the
full data width, and never cross a 4096-byte boundary.
"""

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.contract.design_params import DesignParams

PAGE_BYTES = 4096
"""No burst crosses a multiple of it."""

BURST_INCR = 1
CACHE_NORMAL = 0b0011
"""Normal non-cacheable bufferable memory: interconnects may merge and widen."""


def read_signature(params: DesignParams) -> wiring.Signature:
    """AR and R channel, as the master sees them."""
    return wiring.Signature({
        "arid": Out(1), "araddr": Out(params.address_bits), "arlen": Out(8), "arsize": Out(3), "arburst": Out(2),
        "arlock": Out(1), "arcache": Out(4), "arprot": Out(3), "arqos": Out(4), "arvalid": Out(1), "arready": In(1),
        "rid": In(1), "rdata": In(8 * params.port_bytes), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
        "rready": Out(1),
    })


def write_signature(params: DesignParams) -> wiring.Signature:
    """AW, W and B channel, as the master sees them."""
    return wiring.Signature({
        "awid": Out(1), "awaddr": Out(params.address_bits), "awlen": Out(8), "awsize": Out(3), "awburst": Out(2),
        "awlock": Out(1), "awcache": Out(4), "awprot": Out(3), "awqos": Out(4), "awvalid": Out(1), "awready": In(1),
        "wdata": Out(8 * params.port_bytes), "wstrb": Out(params.port_bytes), "wlast": Out(1), "wvalid": Out(1),
        "wready": In(1),
        "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
    })


def lite_signature(address_bits: int) -> wiring.Signature:
    """AXI4-Lite with 32 bits of data, as the master sees it; a register bank has ``In(lite_signature(…))``."""
    return wiring.Signature({
        "awaddr": Out(address_bits), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
        "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
        "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "araddr": Out(address_bits), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
        "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
    })


def flat_members(prefix: str, signature: wiring.Signature) -> dict[str, wiring.Member]:
    """Members ``{prefix}_{name}`` for a top module: one underscore, so that tools bind the bus by its prefix.

    For a slave hand in ``signature.flip()``.
    """
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def connect_flat(m: Module, top: wiring.Component, prefix: str, bus: wiring.PureInterface) -> None:
    """Join ``bus``, an interface of a submodule, with the ports that ``flat_members`` gave ``top``."""
    for name, member in bus.signature.members.items():
        inner, outer = getattr(bus, name), getattr(top, f"{prefix}_{name}")
        m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)


def port_word(params: DesignParams) -> data.StructLayout:
    """A word read from a port; ``last`` on the last word of the request."""
    return data.StructLayout({"data": 8 * params.port_bytes, "last": 1})
