// The memory's side of one AXI4 port: bursts answered in order, at a latency and a rate, with pauses and faults on demand.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>

#include "axi_rules.h"
#include "memory.h"
#include "port_pins.h"

constexpr uint64_t kMillion = 1'000'000;
constexpr unsigned kMaxOutstanding = 64;
constexpr uint8_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;

// First in, first out, of at most kMaxOutstanding entries; the owner never pushes beyond.
template <typename T>
class BurstQueue {
  public:
    bool empty() const { return count_ == 0; }
    unsigned size() const { return count_; }
    T& front() { return items_[first_]; }
    const T& front() const { return items_[first_]; }
    void push(const T& item) { items_[(first_ + count_++) % kMaxOutstanding] = item; }
    void pop() { first_ = (first_ + 1) % kMaxOutstanding, --count_; }
    void clear() { first_ = count_ = 0; }

  private:
    std::array<T, kMaxOutstanding> items_{};
    unsigned first_ = 0, count_ = 0;
};

struct PortSettings {
    uint64_t rate_beats_per_million_cycles = kMillion;
    uint64_t read_latency_cycles = 1, write_latency_cycles = 1;
    uint64_t refresh_interval_cycles = 0, refresh_cycles = 0;
    uint64_t turnaround_cycles = 0;
    uint64_t outstanding_reads = kMaxOutstanding, outstanding_writes = kMaxOutstanding;
    uint64_t stall_ar_per_million = 0, stall_r_per_million = 0, stall_aw_per_million = 0, stall_w_per_million = 0,
             stall_b_per_million = 0;
    uint64_t fault_read_burst = 0, fault_write_burst = 0, fault_response = kSlaveError;
    uint64_t hang_after_beats = 0, hang = 0;
    uint64_t corrupt_address = 0, corrupt_mask = 0;
};

struct PortCounters {
    uint64_t read_bursts = 0, read_beats = 0, write_bursts = 0, write_beats = 0, decode_errors = 0;
};

// What a port did in a cycle. At most one of the four read bits is set; none: nothing was asked for.
enum PortActivity : uint8_t {
    kReadBeat = 1,
    kReadHeld = 2,     // the design doesn't take the beat that is offered
    kReadPaced = 4,    // the memory's rate, a refresh or the other direction holds the next beat back
    kReadLatency = 8,  // asked for, and the latency isn't over
    kWriteBeat = 16,
    kWritePaced = 32,
    kAddressHeld = 64,  // as many bursts are open as the memory accepts
    kRefresh = 128,
};

class MemoryPort {
  public:
    MemoryPort(int number, const PortPins& pins, Memory& memory, FirstViolation& first)
        : rules(number, pins_, first), pins_(pins), memory_(memory) {
        seed(uint64_t(number));
        reset();
    }
    MemoryPort(const MemoryPort&) = delete;

    PortSettings settings;
    PortCounters counters;
    AxiRules rules;

    void seed(uint64_t value) { random_ = (value + 1) * 0x9E3779B97F4A7C15ULL | 1; }
    unsigned reads_open() const { return reads_.size(); }
    unsigned writes_open() const { return write_addresses_.size() + responses_.size(); }

    void reset() {
        reads_.clear(), write_addresses_.clear(), responses_.clear();
        rules.reset();
        credit_ = kMillion, turn_over_ = 0, reading_ = true, keeps_ = false;
        *pins_.arready = *pins_.rvalid = *pins_.rlast = *pins_.rresp = *pins_.rid = 0;
        *pins_.awready = *pins_.wready = *pins_.bvalid = *pins_.bresp = *pins_.bid = 0;
    }

    // Before the design settles: what the memory offers in this cycle.
    void drive(uint64_t cycle) {
        const PortSettings& s = settings;
        if (s.hang) {  // an offer stands, nothing new comes
            *pins_.arready = *pins_.awready = *pins_.wready = 0;
            return;
        }
        *pins_.arready = reads_.size() < s.outstanding_reads && !paused(s.stall_ar_per_million);
        *pins_.awready = writes_open() < s.outstanding_writes && !paused(s.stall_aw_per_million);

        const bool moving = !refreshing(cycle);
        if (moving && s.rate_beats_per_million_cycles < kMillion) {
            credit_ += s.rate_beats_per_million_cycles;
            if (credit_ > 2 * kMillion) credit_ = 2 * kMillion;
        }
        bool read = moving && !*pins_.rvalid && !reads_.empty() && cycle >= reads_.front().due &&
                    !paused(s.stall_r_per_million);
        bool write = moving && !write_addresses_.empty() && !paused(s.stall_w_per_million);
        if (s.rate_beats_per_million_cycles < kMillion || s.turnaround_cycles) share(cycle, read, write);
        if (read) offer_read();
        *pins_.wready = write;

        if (!*pins_.bvalid && !responses_.empty() && cycle >= responses_.front().due &&
            !paused(s.stall_b_per_million)) {
            *pins_.bvalid = 1;
            *pins_.bresp = responses_.front().response;
        }
    }

    // Settled, before the clock edge: what was taken.
    void observe(uint64_t cycle) {
        rules.watch(cycle);
        r_taken_ = *pins_.rvalid && *pins_.rready;
        b_taken_ = *pins_.bvalid && *pins_.bready;
        if (r_taken_) finish_read_beat();
        if (b_taken_) responses_.pop();
        w_taken_ = *pins_.wvalid && *pins_.wready;
        if (w_taken_) take_write_beat(cycle);
        if (*pins_.arvalid && *pins_.arready) take_read_burst(cycle);
        if (*pins_.awvalid && *pins_.awready) take_write_burst();
    }

    // Between ``observe`` and ``after_edge``: what the port did in this cycle, as bits PortActivity.
    uint8_t activity(uint64_t cycle) const {
        const bool reads_due = !reads_.empty() && cycle >= reads_.front().due;
        return uint8_t((r_taken_ ? kReadBeat : 0) | (w_taken_ ? kWriteBeat : 0) |
                       (*pins_.rvalid && !r_taken_ ? kReadHeld : 0) |
                       (!*pins_.rvalid && reads_due ? kReadPaced : 0) |
                       (!*pins_.rvalid && !reads_.empty() && !reads_due ? kReadLatency : 0) |
                       (*pins_.wvalid && !*pins_.wready ? kWritePaced : 0) |
                       (*pins_.arvalid && !*pins_.arready ? kAddressHeld : 0) | (refreshing(cycle) ? kRefresh : 0));
    }

    // After the clock edge: offers that were taken leave the bus.
    void after_edge() {
        if (r_taken_) *pins_.rvalid = 0;
        if (b_taken_) *pins_.bvalid = 0;
    }

  private:
    struct Read {
        uint64_t address, due;
        unsigned beats;
        uint8_t response;
    };
    struct Write {
        uint64_t address;
        unsigned beats;
        uint8_t response;
    };
    struct Response {
        uint64_t due;
        uint8_t response;
    };

    bool paused(uint64_t per_million) {
        if (!per_million) return false;
        random_ ^= random_ >> 12, random_ ^= random_ << 25, random_ ^= random_ >> 27;  // xorshift64*
        return (random_ * 0x2545F4914F6CDD1DULL >> 32) * kMillion >> 32 < per_million;
    }

    bool refreshing(uint64_t cycle) const {
        const uint64_t interval = settings.refresh_interval_cycles;
        return interval && cycle % interval >= interval - settings.refresh_cycles;
    }

    // One data path for both directions: whichever has it keeps it until it has nothing to move or a burst has ended.
    void share(uint64_t cycle, bool& read, bool& write) {
        const bool write_waits = write && *pins_.wvalid;
        const bool other_waits = reading_ ? write_waits : read;
        const bool here_waits = reading_ ? read : write_waits;
        if (other_waits && !(here_waits && keeps_) && cycle >= turn_over_) {
            reading_ = !reading_, keeps_ = true;
            turn_over_ = cycle + settings.turnaround_cycles;
        }
        (reading_ ? write : read) = false;
        const bool paid = settings.rate_beats_per_million_cycles >= kMillion || credit_ >= kMillion;
        if (cycle < turn_over_ || !paid) read = write = false;
    }

    void moved_beat(bool is_last, bool is_read) {
        if (settings.rate_beats_per_million_cycles < kMillion) credit_ -= kMillion;
        if (is_read == reading_) keeps_ = !is_last;
        if (settings.hang_after_beats && --settings.hang_after_beats == 0) settings.hang = 1;
    }

    void offer_read() {
        Read& burst = reads_.front();
        if (burst.response == kOkay && memory_.holds(burst.address, kPortBytes)) {
            std::memcpy(pins_.rdata, memory_.data() + burst.address, kPortBytes);
            const uint64_t offset = settings.corrupt_address - burst.address;
            if (settings.corrupt_mask && offset < kPortBytes) pins_.rdata[offset] ^= uint8_t(settings.corrupt_mask);
        } else {
            std::memset(pins_.rdata, 0, kPortBytes);
        }
        *pins_.rresp = burst.response;
        *pins_.rlast = burst.beats == 1;
        *pins_.rvalid = 1;
        moved_beat(burst.beats == 1, true);
    }

    void finish_read_beat() {
        Read& burst = reads_.front();
        burst.address += kPortBytes;
        ++counters.read_beats;
        if (--burst.beats == 0) reads_.pop();
    }

    void take_write_beat(uint64_t cycle) {
        Write& burst = write_addresses_.front();
        rules.write_beat(burst.beats == 1);
        if (burst.response == kOkay) memory_.write<kPortBytes>(burst.address, pins_.wdata, pins_.wstrb);
        burst.address += kPortBytes;
        ++counters.write_beats;
        moved_beat(burst.beats == 1, false);
        if (--burst.beats == 0) {
            responses_.push({cycle + settings.write_latency_cycles, burst.response});
            write_addresses_.pop();
        }
    }

    uint8_t response_for(uint64_t address, unsigned beats, uint64_t& fault) {
        const bool faulty = fault && --fault == 0;
        if (!memory_.holds(address, uint64_t(beats) * kPortBytes)) {
            ++counters.decode_errors;
            return kDecodeError;
        }
        return faulty ? uint8_t(settings.fault_response) : kOkay;
    }

    void take_read_burst(uint64_t cycle) {
        const uint64_t address = *pins_.ar.address & ~uint64_t(kPortBytes - 1);
        const unsigned beats = *pins_.ar.length + 1u;
        ++counters.read_bursts;
        reads_.push({address, cycle + settings.read_latency_cycles, beats,
                     response_for(address, beats, settings.fault_read_burst)});
    }

    void take_write_burst() {
        const uint64_t address = *pins_.aw.address & ~uint64_t(kPortBytes - 1);
        const unsigned beats = *pins_.aw.length + 1u;
        ++counters.write_bursts;
        write_addresses_.push({address, beats, response_for(address, beats, settings.fault_write_burst)});
    }

    const PortPins pins_;
    Memory& memory_;
    BurstQueue<Read> reads_;
    BurstQueue<Write> write_addresses_;
    BurstQueue<Response> responses_;
    uint64_t random_ = 1, credit_ = 0, turn_over_ = 0;
    bool reading_ = true, keeps_ = false, r_taken_ = false, w_taken_ = false, b_taken_ = false;
};
