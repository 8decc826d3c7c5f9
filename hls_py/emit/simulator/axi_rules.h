// AXI rules that a master on one port must keep (IHI 0022, sections A3 and A5) and that it never asks
// for words that it has no room for; counts breaks and keeps the first in words.
#pragma once
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "port_pins.h"

// The first break of a rule on any port.
struct FirstViolation {
    std::string text;
};

class AxiRules {
  public:
    AxiRules(int port, const PortPins& pins, FirstViolation& first) : port_(port), pins_(pins), first_(first) {}

    uint64_t violations = 0;

    void reset() { ar_.held = aw_.held = w_.held = false; }

    // Once a cycle, settled, before the clock edge.
    void watch(uint64_t cycle) {
        cycle_ = cycle;
        hold(ar_, "AR", *pins_.arvalid, *pins_.arready, [&] { return address_of(pins_.ar); });
        hold(aw_, "AW", *pins_.awvalid, *pins_.awready, [&] { return address_of(pins_.aw); });
        if (*pins_.arvalid && *pins_.arready) burst("read", pins_.ar);
        if (*pins_.rvalid && !*pins_.rready) report("a word was asked for without room: RREADY is low");
        if (*pins_.awvalid && *pins_.awready) burst("write", pins_.aw);
        watch_write_data();
    }

    // A W beat was taken: is its WLAST right?
    void write_beat(bool is_last_of_burst) {
        if (bool(*pins_.wlast) != is_last_of_burst)
            report(is_last_of_burst ? "the last beat of a write burst has no WLAST" : "WLAST before the last beat");
    }

    void report(const char* what) {
        if (++violations == 1 && first_.text.empty())
            first_.text = "port " + std::to_string(port_) + ", cycle " + std::to_string(cycle_) + ": " + what;
    }

  private:
    struct AddressPayload {
        uint64_t address;
        uint8_t id, length, size, burst;
        bool operator==(const AddressPayload& o) const {
            return address == o.address && id == o.id && length == o.length && size == o.size && burst == o.burst;
        }
    };
    struct HeldAddress {
        bool held = false;
        AddressPayload payload{};
    };
    struct HeldWord {
        bool held = false;
        uint8_t last = 0, data[kPortBytes] = {}, strobe[kStrobeBytes] = {};
    };

    static AddressPayload address_of(const AddressPins& pins) {
        return {*pins.address, *pins.id, *pins.length, *pins.size, *pins.burst};
    }

    template <typename Payload>
    void hold(HeldAddress& channel, const char* name, bool valid, bool ready, Payload payload) {
        if (channel.held) {
            if (!valid) report((std::string(name) + "VALID fell before it was taken").c_str());
            else if (!(payload() == channel.payload)) report((std::string(name) + " changed before it was taken").c_str());
        }
        channel.held = valid && !ready;
        if (channel.held) channel.payload = payload();
    }

    void watch_write_data() {
        const bool valid = *pins_.wvalid;
        if (w_.held) {
            if (!valid) report("WVALID fell before it was taken");
            else if (w_.last != *pins_.wlast || std::memcmp(w_.data, pins_.wdata, kPortBytes) ||
                     std::memcmp(w_.strobe, pins_.wstrb, kStrobeBytes))
                report("W changed before it was taken");
        }
        w_.held = valid && !*pins_.wready;
        if (w_.held) {
            w_.last = *pins_.wlast;
            std::memcpy(w_.data, pins_.wdata, kPortBytes);
            std::memcpy(w_.strobe, pins_.wstrb, kStrobeBytes);
        }
    }

    void burst(const char* kind, const AddressPins& pins) {
        const uint64_t address = *pins.address, beats = *pins.length + 1u;
        const char* wrong = nullptr;
        if (*pins.burst != 1) wrong = "is not INCR";
        else if (*pins.id) wrong = "has an ID";
        else if (1u << *pins.size != kPortBytes) wrong = "is not of the port's full width";
        else if (address % kPortBytes) wrong = "doesn't start at a multiple of the port's width";
        else if (beats > kBurstBeats) wrong = "is longer than the design's burst_beats";
        else if (address / 4096 != (address + beats * kPortBytes - 1) / 4096) wrong = "crosses a 4096-byte boundary";
        if (!wrong) return;
        char text[160];
        std::snprintf(text, sizeof text, "the %s burst of %u beats at 0x%" PRIx64 " %s", kind, unsigned(beats), address, wrong);
        report(text);
    }

    int port_;
    const PortPins& pins_;
    FirstViolation& first_;
    uint64_t cycle_ = 0;
    HeldAddress ar_, aw_;
    HeldWord w_;
};
