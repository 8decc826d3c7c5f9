// Drives one Verilated design for sim_tests/harness/fast.py. ports.h is generated beside the design; it declares
// Vtop's ports in the order that Python numbers them:  static std::vector<Port> list_ports(Vtop& top)
// and HAS_CLOCK. Ports are bytes, little-endian; unused bits of the last byte must be zero.
#include <cstdint>
#include <cstring>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

struct Port {
    uint8_t* bits;
    size_t bytes;  // of the C++ variable, which is at least the port's width
};

#include "ports.h"

struct StreamJob {  // mirrored in fast.py
    uint32_t valid, ready, payload;  // port numbers
    uint32_t is_input;               // 1: the design receives it
    uint32_t payload_bytes;
    uint32_t stall;                  // probability of stalling in a cycle, in 2^-32
    uint64_t random;                 // state of this stream's generator, never 0
    uint8_t* data;                   // count payloads, to send or received
    uint64_t* cycles;                // for each payload the cycle of its transfer, from 0
    uint64_t count, done;
    uint32_t offered;                // valid without ready in the last cycle
    uint32_t error;                  // 1: valid fell, 2: payload changed, 3: valid depends on ready, 4: surplus payload
};

struct Simulation {
    VerilatedContext context;
    Vtop top{&context, "top"};
    std::vector<Port> ports{list_ports(top)};
    uint64_t cycles = 0;

    void settle() {
#if HAS_CLOCK
        top.clk = 0;
#endif
        top.eval();
    }
    void edge() {
#if HAS_CLOCK
        top.clk = 1;
        top.eval();
#endif
        ++cycles;
    }
};

static uint32_t draw(uint64_t& state) {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return uint32_t(state * 0x2545F4914F6CDD1DULL >> 32);
}

extern "C" {

Simulation* simulation_new() { return new Simulation; }
void simulation_free(Simulation* s) {
    Verilated::threadContextp(&s->context);  // Verilator's clean-up uses it, and it may be a simulation's that is gone
    s->top.final();
    delete s;
}
uint8_t* simulation_port(Simulation* s, uint32_t port) { return s->ports[port].bits; }
uint64_t simulation_port_bytes(Simulation* s, uint32_t port) { return s->ports[port].bytes; }
uint64_t simulation_cycles(Simulation* s) { return s->cycles; }
void simulation_settle(Simulation* s) { s->settle(); }
void simulation_step(Simulation* s, uint64_t count) {
    while (count--) { s->settle(); s->edge(); }
    s->settle();
}
void simulation_reset(Simulation* s) {
#if HAS_CLOCK
    s->top.rst = 1;
    for (int i = 0; i < 2; ++i) { s->settle(); s->edge(); }
    s->top.rst = 0;
#endif
    s->settle();
    s->cycles = 0;
}

// One vector a cycle: inputs are set, outputs are read after settling and before the clock edge.
void simulation_run_vectors(Simulation* s, uint64_t cycles, uint32_t inputs, const uint32_t* input_ports,
                            const uint8_t* const* input_data, const uint32_t* input_bytes, uint32_t outputs,
                            const uint32_t* output_ports, uint8_t* const* output_data, const uint32_t* output_bytes) {
    for (uint64_t c = 0; c < cycles; ++c) {
        for (uint32_t i = 0; i < inputs; ++i)
            std::memcpy(s->ports[input_ports[i]].bits, input_data[i] + c * input_bytes[i], input_bytes[i]);
        s->settle();
        for (uint32_t i = 0; i < outputs; ++i)
            std::memcpy(output_data[i] + c * output_bytes[i], s->ports[output_ports[i]].bits, output_bytes[i]);
        s->edge();
    }
    s->settle();
}

// Serve all streams until each has moved its count, then idle_cycles more in which no output may be valid.
// Returns the cycles until the last transfer, or ~0 when max_cycles passed or a stream broke its contract.
uint64_t simulation_run_streams(Simulation* s, uint32_t jobs, StreamJob* job, uint64_t max_cycles,
                                uint64_t idle_cycles) {
    bool stalling = false;
    for (uint32_t i = 0; i < jobs; ++i) stalling |= job[i].stall != 0;
    std::vector<std::vector<uint8_t>> held(jobs);
    uint64_t cycle = 0;
    for (;; ++cycle) {
        bool all_done = true;
        for (uint32_t i = 0; i < jobs; ++i) all_done &= job[i].done == job[i].count;
        if (all_done) break;
        if (cycle == max_cycles) return ~0ULL;

        for (uint32_t i = 0; i < jobs; ++i) {
            StreamJob& j = job[i];
            bool active = j.done < j.count && !(j.stall && draw(j.random) < j.stall);
            uint8_t* valid = s->ports[j.valid].bits;
            uint8_t* ready = s->ports[j.ready].bits;
            if (j.is_input) {
                if (!*valid && active) {
                    *valid = 1;
                    std::memcpy(s->ports[j.payload].bits, j.data + j.done * j.payload_bytes, j.payload_bytes);
                }
            } else {
                *ready = active;
            }
        }
        if (stalling) {  // an output's valid may not depend on any output's ready
            std::vector<uint8_t> wanted(jobs), seen(jobs);
            for (uint32_t i = 0; i < jobs; ++i)
                if (!job[i].is_input) {
                    wanted[i] = *s->ports[job[i].ready].bits;
                    *s->ports[job[i].ready].bits = 0;
                }
            s->settle();
            for (uint32_t i = 0; i < jobs; ++i)
                if (!job[i].is_input) {
                    seen[i] = *s->ports[job[i].valid].bits;
                    *s->ports[job[i].ready].bits = wanted[i];
                }
            s->settle();
            for (uint32_t i = 0; i < jobs; ++i)
                if (!job[i].is_input && seen[i] != *s->ports[job[i].valid].bits) {
                    job[i].error = 3;
                    return ~0ULL;
                }
        } else {
            s->settle();
        }

        std::vector<uint32_t> sent;
        for (uint32_t i = 0; i < jobs; ++i) {
            StreamJob& j = job[i];
            bool valid = *s->ports[j.valid].bits, ready = *s->ports[j.ready].bits;
            const uint8_t* payload = s->ports[j.payload].bits;
            if (!j.is_input) {
                if (j.offered && !valid) { j.error = 1; return ~0ULL; }
                if (j.offered && std::memcmp(payload, held[i].data(), j.payload_bytes)) { j.error = 2; return ~0ULL; }
                j.offered = valid && !ready;
                if (j.offered) held[i].assign(payload, payload + j.payload_bytes);
            }
            if (valid && ready && j.done < j.count) {
                if (j.is_input) sent.push_back(i);
                else std::memcpy(j.data + j.done * j.payload_bytes, payload, j.payload_bytes);
                j.cycles[j.done++] = cycle;
            }
        }
        s->edge();
        for (uint32_t i : sent) *s->ports[job[i].valid].bits = 0;
    }
    for (uint32_t i = 0; i < jobs; ++i)
        *s->ports[job[i].is_input ? job[i].valid : job[i].ready].bits = 0;
    for (uint64_t c = 0; c <= idle_cycles; ++c) {
        s->settle();
        for (uint32_t i = 0; i < jobs; ++i)
            if (idle_cycles && !job[i].is_input && *s->ports[job[i].valid].bits) { job[i].error = 4; return ~0ULL; }
        if (c < idle_cycles) s->edge();
    }
    return cycle;
}
}
