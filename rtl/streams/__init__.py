"""Plumbing between blocks: streams, and how repeated blocks become one Verilog module."""
