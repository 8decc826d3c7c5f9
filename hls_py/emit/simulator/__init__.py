"""The simulator: a design compiled by Verilator together with a C++ model of the board's memory, one shared library.

``libtellme_sim.so`` is driven through ctypes (or C). Calls of one simulation must not overlap; any number of simulations may live
side by side. One byte-addressed memory (addresses 0 … memory_bytes−1) lies behind all ports. Time passes only in the calls
marked (t). A clock cycle is one rising edge of ``clk``.

C interface (``sim`` is the handle of ``create``)::

    int         tellme_sim_abi(void)                                   ABI number of this header: 1
    void*       tellme_sim_create(uint64_t memory_bytes)               NULL: no such memory. Zeroed, taken from the system as it is
                                                                       touched; reset done; every port ideal
    void        tellme_sim_destroy(sim)
    uint8_t*    tellme_sim_memory(sim)                                 memory_bytes bytes; read and write them between calls
    int         tellme_sim_set(sim, int port, const char* name, uint64_t value)   0; −1: no such port or name, or bad value.
                                                                       port −1: every port
    uint64_t    tellme_sim_get(sim, int port, const char* name)        a setting or a counter; UINT64_MAX: no such thing.
                                                                       port −1: the counter's sum over ports
    void        tellme_sim_reset(sim)                              (t) reset of the design and of the ports' queues; memory, settings,
                                                                       counters and the cycle count stay
    int         tellme_sim_write_register(sim, uint32_t address, uint32_t value)  (t) AXI4-Lite write; response 0 OKAY, 2 SLVERR,
                                                                       3 DECERR, or −1: no answer within 10,000 cycles
    int         tellme_sim_read_register(sim, uint32_t address, uint32_t* value)  (t) the same for a read
    uint64_t    tellme_sim_run(sim, uint64_t cycles, int until_interrupt)         (t) at most ``cycles``; with until_interrupt ≠ 0 it
                                                                       returns as soon as ``interrupt`` is high (at once if it is).
                                                                       Returns the cycles that passed
    int         tellme_sim_interrupt(sim)                              level of ``interrupt``
    uint64_t    tellme_sim_cycles(sim)                                 cycles since create
    const char* tellme_sim_violation(sim)                              first break of an AXI rule by the design, "" if none

To wait for a pass: set INTERRUPT_ENABLE to 3 once; ``run(sim, 100_000, 1)`` in a loop (progress, Ctrl-C); then read STATUS and clear
INTERRUPT_STATUS by writing what it holds.

Settings of a port (``set``; the names under "ports" of board.json are these):

    rate_beats_per_million_cycles   0 … 1_000_000, reads and writes together, while no refresh runs (1_000_000: never waits)
    read_latency_cycles             from an accepted AR to its first R beat, ≥ 1
    write_latency_cycles            from the last W beat to its B, ≥ 1
    refresh_interval_cycles, refresh_cycles     in every interval the port moves no data for so many cycles; interval 0: never
    turnaround_cycles               pause between the last beat of one direction and the first of the other
    outstanding_reads, outstanding_writes       bursts accepted and not finished, 1 … 64; AR/AW are held off beyond

Random pauses (per cycle, chance in a million that the memory's side holds the channel back; for checks):

    stall_ar_per_million, stall_r_per_million, stall_aw_per_million, stall_w_per_million, stall_b_per_million
    stall_seed                      restarts the port's random numbers

Faults (for checks; 0 turns each off; numbers count from the call, the first is 1):

    fault_read_burst = n            every beat of the n-th read burst accepted from now answers ``fault_response``
    fault_write_burst = n           the n-th write burst accepted from now is not written and answers it
    fault_response                  2 SLVERR (default) or 3 DECERR
    hang_after_beats = n            after n more beats (both directions) the port answers nothing any more; ``hang`` = 1: at once;
                                    ``hang`` = 0 lets it go on
    corrupt_address, corrupt_mask   the byte at this address is read as byte XOR mask through this port (memory stays); mask 0: off

Counters (``get``): read_bursts, read_beats, write_bursts, write_beats, decode_errors (bursts that left the memory: DECERR, reads
give zeros), violations (rules broken), reads_open, writes_open (bursts accepted and not finished).

Rules watched on every port: a burst is INCR of the full width, doesn't cross 4096 bytes, has at most ``burst_beats`` beats
(a parameter of the design), starts at a multiple of the width; valid stays and its payload doesn't change until ready; WLAST on the last beat
and only there; no W beat without a burst; a port's IDs are zero.
"""
