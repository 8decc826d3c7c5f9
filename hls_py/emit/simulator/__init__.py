"""The simulator: a design compiled by Verilator with a C++ model of the board's memory, as one shared library.

``libtellme_sim.so`` is driven through ctypes or from C. Calls of one simulation must not overlap; any number of
simulations may live side by side. One byte-addressed memory (addresses 0 … memory_bytes−1) lies behind all ports. Time
passes only in the calls marked (t). A cycle is one rising edge of ``clk``.

C interface (``sim`` is what ``create`` returned)::

    int         tellme_sim_abi(void)
    void*       tellme_sim_create(uint64_t memory_bytes)
    void        tellme_sim_destroy(sim)
    uint8_t*    tellme_sim_memory(sim)
    int         tellme_sim_set(sim, int port, const char* name, uint64_t value)
    uint64_t    tellme_sim_get(sim, int port, const char* name)
    void        tellme_sim_reset(sim)                                             (t)
    int         tellme_sim_write_register(sim, uint32_t address, uint32_t value)  (t)
    int         tellme_sim_read_register(sim, uint32_t address, uint32_t* value)  (t)
    uint64_t    tellme_sim_run(sim, uint64_t cycles, int until_interrupt)         (t)
    int         tellme_sim_interrupt(sim)
    uint64_t    tellme_sim_cycles(sim)
    const char* tellme_sim_violation(sim)
    void        tellme_sim_trace(sim, uint64_t* buffer, uint64_t count)
    uint64_t    tellme_sim_traced(sim)

abi            : number of this interface, 2.
create         : NULL where the system has no such memory. Memory is zero and costs nothing until touched; the design is
                 out of reset; every port is ideal.
memory         : memory_bytes bytes, to be read and written between calls.
set            : 0, or −1: no such port or name, or a bad value. Port −1 means every port.
get            : a setting or a counter; UINT64_MAX: no such thing. Port −1: a counter's sum over the ports.
reset          : resets the design and forgets what the ports owe; memory, settings, counters and cycles stay.
write_register, read_register : AXI4-Lite; response 0 OKAY, 2 SLVERR, 3 DECERR, or −1: no answer in 10,000 cycles.
run            : at most ``cycles``; with until_interrupt ≠ 0 it returns as soon as ``interrupt`` is high (at once if it
                 is). Returns the cycles that passed.
interrupt      : level of ``interrupt``.
cycles         : cycles since create.
violation      : the first break of an AXI rule by the design, in words; "" if none.
trace          : write two words a cycle to ``buffer`` for the next ``count`` cycles; 0 ends it. First what the design's
                 units do (rtl.contract.activity; 0 if it has no such signal), then a byte a port, port 0 lowest.
traced         : cycles written since ``trace``.

To wait for a pass: INTERRUPT_ENABLE = 3 once; ``run(sim, 100_000, 1)`` in a loop (for progress and Ctrl-C) until it
returns early; then read STATUS and clear INTERRUPT_STATUS by writing what it holds.

Settings of a port (``set``); the first eight are the keys of a port in board.json::

    rate_beats_per_million_cycles   0 … 1_000_000, reads and writes together; 1_000_000: neither ever waits
    read_latency_cycles             ≥ 1, from an accepted AR to its first R beat
    write_latency_cycles            ≥ 1, from the last W beat to its B
    refresh_interval_cycles         0: never refreshes
    refresh_cycles                  no beat begins in the last ones of every interval; the rate holds between them
    turnaround_cycles               pause between the last beat of one direction and the first of the other
    outstanding_reads               1 … 64, bursts accepted and not finished; AR is held off beyond
    outstanding_writes              1 … 64, the same of AW

    stall_ar_per_million            random pauses: chance in a million, each cycle, that the memory's side holds back
    stall_r_per_million, stall_aw_per_million, stall_w_per_million, stall_b_per_million
    stall_seed                      restarts the port's random numbers (write only)

    fault_read_burst = n            the n-th read burst accepted from now (1: the next) answers fault_response; 0: off
    fault_write_burst = n           the n-th write burst accepted from now answers it and isn't written; 0: off
    fault_response                  2 SLVERR (default) or 3 DECERR
    hang = 1                        the port answers nothing any more; 0 lets it go on
    hang_after_beats = n            hangs by itself after n more beats of both directions; 0: off
    corrupt_address, corrupt_mask   through this port, the byte at the address reads as byte XOR mask; mask 0: off

Counters (``get``)::

    read_bursts, read_beats, write_bursts, write_beats
    decode_errors                   bursts that left the memory: DECERR, zeros, nothing written
    violations                      rules broken
    reads_open, writes_open         bursts accepted and not finished

Bits of a port's byte in a trace (the first four exclude each other; none of them: nothing was asked for)::

    0 a read beat moved             1 the design doesn't take an offered beat
    2 the memory holds the next beat back: rate, refresh, or the other direction
    3 asked for, latency not over   4 a write beat moved             5 the memory holds a write beat back
    6 AR held off: as many bursts are open as the memory accepts     7 refresh

Rules watched on every port: a burst is INCR of the full width with ID 0, starts at a multiple of the width, has at most
the design's ``burst_beats`` beats and doesn't cross 4096 bytes; valid and payload stay until ready; WLAST is on the
last beat and only there. A W beat is taken only after its AW.
"""
