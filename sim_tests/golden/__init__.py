"""Tests of the golden model: what a comparison of RTL with golden can't see."""
