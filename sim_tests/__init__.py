"""Tests: cocotb benches, comparisons with the golden, end-to-end runs, and the harness they share."""
