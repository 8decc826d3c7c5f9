"""Pipelined IEEE-754 float32 operators, and the integer ones that kernels need beside them.

Number format of every file here: round to nearest even; a subnormal input counts as zero of its sign; a result whose
exact value is below 2⁻¹²⁶ in magnitude is zero of its sign; every NaN result is 0x7FC00000, whatever NaN came in.

A pipelined operator is a component with inputs, one output ``o`` and an ``enable``: in each cycle in which ``enable``
is high it takes operands and moves what is under way; the result stands in ``o`` after ``latency_cycles`` such cycles.
Pipelines that handshake are made of these by ``hls_py.dataflow``; a block that keeps its own books uses them directly.
"""
