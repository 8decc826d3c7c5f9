// Where the Verilated design keeps the pins of one AXI4 port. design_ports.h is generated beside the design.
#pragma once
#include <cstdint>
#include <type_traits>

#include "design_ports.h"

constexpr unsigned kPortBytes = TELLME_PORT_BYTES;
constexpr unsigned kStrobeBytes = (kPortBytes + 7) / 8;
constexpr unsigned kBurstBeats = TELLME_BURST_BEATS;
using AddressPin = std::conditional_t<(TELLME_ADDRESS_BITS > 32), uint64_t, uint32_t>;

struct AddressPins {
    const AddressPin* address;
    const uint8_t *id, *length, *size, *burst;
};

struct PortPins {  // as the memory sees them: const pins are the design's outputs
    AddressPins ar, aw;
    const uint8_t *arvalid, *rready, *awvalid, *wvalid, *wlast, *bready;
    const uint8_t *wdata, *wstrb;
    uint8_t *arready, *rvalid, *rlast, *rresp, *rdata, *rid, *awready, *wready, *bvalid, *bresp, *bid;
};

#define TELLME_BYTES(member) reinterpret_cast<uint8_t*>(&top.member)
#define TELLME_ADDRESS_PINS(p, c)                                                                                      \
    {&top.m_axi_##p##_##c##addr, &top.m_axi_##p##_##c##id, &top.m_axi_##p##_##c##len, &top.m_axi_##p##_##c##size,      \
     &top.m_axi_##p##_##c##burst}
#define TELLME_PORT_PINS(p)                                                                                            \
    PortPins{TELLME_ADDRESS_PINS(p, ar), TELLME_ADDRESS_PINS(p, aw),                                                   \
             &top.m_axi_##p##_arvalid, &top.m_axi_##p##_rready, &top.m_axi_##p##_awvalid, &top.m_axi_##p##_wvalid,     \
             &top.m_axi_##p##_wlast, &top.m_axi_##p##_bready,                                                          \
             TELLME_BYTES(m_axi_##p##_wdata), TELLME_BYTES(m_axi_##p##_wstrb),                                         \
             &top.m_axi_##p##_arready, &top.m_axi_##p##_rvalid, &top.m_axi_##p##_rlast, &top.m_axi_##p##_rresp,        \
             TELLME_BYTES(m_axi_##p##_rdata), &top.m_axi_##p##_rid, &top.m_axi_##p##_awready,                          \
             &top.m_axi_##p##_wready, &top.m_axi_##p##_bvalid, &top.m_axi_##p##_bresp, &top.m_axi_##p##_bid},
