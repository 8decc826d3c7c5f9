// The C interface of libtellme_sim.so; hls_py/emit/simulator/__init__.py describes it.
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "Vtellme.h"
#include "memory_port.h"
#include "verilated.h"
#include "verilated_sym_props.h"

// Verilator keeps `interrupt` from C++, where some compilers reserve the word.
#define TELLME_INTERRUPT __SYM__interrupt

namespace {

constexpr int kAbi = 2;
constexpr int kResetCycles = 4;
constexpr int kRegisterTimeoutCycles = 10'000;
constexpr uint64_t kUnknown = ~uint64_t(0);

struct Setting {
    const char* name;
    uint64_t PortSettings::*member;
    uint64_t least, most;
};

const Setting kSettings[] = {
    {"rate_beats_per_million_cycles", &PortSettings::rate_beats_per_million_cycles, 0, kMillion},
    {"read_latency_cycles", &PortSettings::read_latency_cycles, 1, kMillion},
    {"write_latency_cycles", &PortSettings::write_latency_cycles, 1, kMillion},
    {"refresh_interval_cycles", &PortSettings::refresh_interval_cycles, 0, UINT64_MAX},
    {"refresh_cycles", &PortSettings::refresh_cycles, 0, kMillion},
    {"turnaround_cycles", &PortSettings::turnaround_cycles, 0, kMillion},
    {"outstanding_reads", &PortSettings::outstanding_reads, 1, kMaxOutstanding},
    {"outstanding_writes", &PortSettings::outstanding_writes, 1, kMaxOutstanding},
    {"stall_ar_per_million", &PortSettings::stall_ar_per_million, 0, kMillion},
    {"stall_r_per_million", &PortSettings::stall_r_per_million, 0, kMillion},
    {"stall_aw_per_million", &PortSettings::stall_aw_per_million, 0, kMillion},
    {"stall_w_per_million", &PortSettings::stall_w_per_million, 0, kMillion},
    {"stall_b_per_million", &PortSettings::stall_b_per_million, 0, kMillion},
    {"fault_read_burst", &PortSettings::fault_read_burst, 0, UINT64_MAX},
    {"fault_write_burst", &PortSettings::fault_write_burst, 0, UINT64_MAX},
    {"fault_response", &PortSettings::fault_response, kSlaveError, kDecodeError},
    {"hang_after_beats", &PortSettings::hang_after_beats, 0, UINT64_MAX},
    {"hang", &PortSettings::hang, 0, 1},
    {"corrupt_address", &PortSettings::corrupt_address, 0, UINT64_MAX},
    {"corrupt_mask", &PortSettings::corrupt_mask, 0, 0xFF},
};

struct CounterName {
    const char* name;
    uint64_t PortCounters::*member;
};

const CounterName kCounters[] = {
    {"read_bursts", &PortCounters::read_bursts},     {"read_beats", &PortCounters::read_beats},
    {"write_bursts", &PortCounters::write_bursts},   {"write_beats", &PortCounters::write_beats},
    {"decode_errors", &PortCounters::decode_errors},
};

const Setting* find_setting(const char* name) {
    for (const Setting& setting : kSettings)
        if (!std::strcmp(setting.name, name)) return &setting;
    return nullptr;
}

std::vector<PortPins> pins_of(Vtellme& top) { return {TELLME_FOR_EACH_PORT(TELLME_PORT_PINS)}; }

class Simulator {
  public:
    explicit Simulator(uint64_t memory_bytes) : memory(memory_bytes) {
        top.clk = top.rst = 0;
        int number = 0;
        for (const PortPins& pins : pins_of(top))
            ports.push_back(std::make_unique<MemoryPort>(number++, pins, memory, violation));
        reset();
        if (const VerilatedScope* scope = context.scopeFind("tellme.tellme"))
            if (const VerilatedVar* found = scope->varFind("activity")) {
                activity = static_cast<const uint64_t*>(found->datap());
            }
    }
    ~Simulator() {
        Verilated::threadContextp(&context);  // Verilator's clean-up uses it, and it may be a simulation's that is gone
        top.final();
    }

    void reset() {
        top.s_axi_control_awvalid = top.s_axi_control_wvalid = top.s_axi_control_arvalid = 0;
        top.s_axi_control_bready = top.s_axi_control_rready = 1;
        top.s_axi_control_wstrb = 15;
        for (auto& port : ports) port->reset();
        top.rst = 1;
        for (int i = 0; i < kResetCycles; ++i) {
            top.clk = 0, top.eval();
            top.clk = 1, top.eval();
            ++cycles;
        }
        top.rst = 0;
    }

    // A cycle: the memory's offers, settle, what was taken, clock edge.
    void settle() {
        for (auto& port : ports) port->drive(cycles);
        top.clk = 0;
        top.eval();
    }
    void edge() {
        for (auto& port : ports) port->observe(cycles);
        if (traced < trace_cycles) trace_cycle();
        top.clk = 1;
        top.eval();
        for (auto& port : ports) port->after_edge();
        ++cycles;
    }

    uint64_t run(uint64_t count, bool until_interrupt) {
        for (uint64_t n = 0; n < count; ++n) {
            if (until_interrupt && top.TELLME_INTERRUPT) return n;
            settle();
            edge();
        }
        return count;
    }

    int write_register(uint32_t address, uint32_t value) {
        top.s_axi_control_awaddr = decltype(top.s_axi_control_awaddr)(address);
        top.s_axi_control_wdata = value;
        top.s_axi_control_awvalid = top.s_axi_control_wvalid = 1;
        int response = -1;
        for (int n = 0; n < kRegisterTimeoutCycles && response < 0; ++n) {
            settle();
            const bool aw = top.s_axi_control_awvalid && top.s_axi_control_awready;
            const bool w = top.s_axi_control_wvalid && top.s_axi_control_wready;
            if (top.s_axi_control_bvalid) response = top.s_axi_control_bresp;
            edge();
            if (aw) top.s_axi_control_awvalid = 0;
            if (w) top.s_axi_control_wvalid = 0;
        }
        top.s_axi_control_awvalid = top.s_axi_control_wvalid = 0;
        return response;
    }

    int read_register(uint32_t address, uint32_t* value) {
        top.s_axi_control_araddr = decltype(top.s_axi_control_araddr)(address);
        top.s_axi_control_arvalid = 1;
        int response = -1;
        for (int n = 0; n < kRegisterTimeoutCycles && response < 0; ++n) {
            settle();
            const bool ar = top.s_axi_control_arvalid && top.s_axi_control_arready;
            if (top.s_axi_control_rvalid) {
                response = top.s_axi_control_rresp;
                *value = top.s_axi_control_rdata;
            }
            edge();
            if (ar) top.s_axi_control_arvalid = 0;
        }
        top.s_axi_control_arvalid = 0;
        return response;
    }

    int set(int number, const char* name, uint64_t value) {
        if (number < -1 || number >= int(ports.size())) return -1;
        const Setting* setting = find_setting(name);
        const bool is_seed = !std::strcmp(name, "stall_seed");
        if (!is_seed && (!setting || value < setting->least || value > setting->most)) return -1;
        for (int p = 0; p < int(ports.size()); ++p) {
            if (number >= 0 && p != number) continue;
            if (is_seed) ports[p]->seed(value * ports.size() + uint64_t(p));
            else ports[p]->settings.*setting->member = value;
        }
        return 0;
    }

    uint64_t get(int number, const char* name) const {
        if (number < -1 || number >= int(ports.size())) return kUnknown;
        if (number >= 0) return of_port(*ports[number], name);
        uint64_t sum = 0;
        for (auto& port : ports) {
            const uint64_t value = of_port(*port, name);
            if (value == kUnknown || find_setting(name)) return kUnknown;
            sum += value;
        }
        return sum;
    }

    void trace(uint64_t* buffer, uint64_t count) { trace_buffer = buffer, trace_cycles = count, traced = 0; }
    void trace_cycle() {
        uint64_t* word = trace_buffer + 2 * traced++;
        word[0] = activity ? *activity : 0;
        word[1] = 0;
        for (size_t p = 0; p < ports.size(); ++p) word[1] |= uint64_t(ports[p]->activity(cycles)) << 8 * p;
    }

    VerilatedContext context;
    Vtellme top{&context, "tellme"};
    Memory memory;
    FirstViolation violation;
    std::vector<std::unique_ptr<MemoryPort>> ports;
    uint64_t cycles = 0;
    const uint64_t* activity = nullptr;  // of the design; it may have none
    uint64_t* trace_buffer = nullptr;
    uint64_t trace_cycles = 0, traced = 0;

  private:
    static uint64_t of_port(const MemoryPort& port, const char* name) {
        if (const Setting* setting = find_setting(name)) return port.settings.*setting->member;
        for (const CounterName& counter : kCounters)
            if (!std::strcmp(counter.name, name)) return port.counters.*counter.member;
        if (!std::strcmp(name, "violations")) return port.rules.violations;
        if (!std::strcmp(name, "reads_open")) return port.reads_open();
        if (!std::strcmp(name, "writes_open")) return port.writes_open();
        return kUnknown;
    }
};

}  // namespace

extern "C" {

int tellme_sim_abi() { return kAbi; }

void* tellme_sim_create(uint64_t memory_bytes) {
    auto made = std::make_unique<Simulator>(memory_bytes);
    return made->memory.data() ? made.release() : nullptr;
}
void tellme_sim_destroy(Simulator* sim) { delete sim; }
uint8_t* tellme_sim_memory(Simulator* sim) { return sim->memory.data(); }
int tellme_sim_set(Simulator* sim, int port, const char* name, uint64_t value) { return sim->set(port, name, value); }
uint64_t tellme_sim_get(const Simulator* sim, int port, const char* name) { return sim->get(port, name); }
void tellme_sim_reset(Simulator* sim) { sim->reset(); }
int tellme_sim_write_register(Simulator* sim, uint32_t address, uint32_t value) {
    return sim->write_register(address, value);
}
int tellme_sim_read_register(Simulator* sim, uint32_t address, uint32_t* value) {
    return sim->read_register(address, value);
}
uint64_t tellme_sim_run(Simulator* sim, uint64_t cycles, int until_interrupt) {
    return sim->run(cycles, until_interrupt != 0);
}
int tellme_sim_interrupt(const Simulator* sim) { return sim->top.TELLME_INTERRUPT; }
uint64_t tellme_sim_cycles(const Simulator* sim) { return sim->cycles; }
void tellme_sim_trace(Simulator* sim, uint64_t* buffer, uint64_t count) { sim->trace(buffer, count); }
uint64_t tellme_sim_traced(const Simulator* sim) { return sim->traced; }
const char* tellme_sim_violation(const Simulator* sim) { return sim->violation.text.c_str(); }
}
