"""Tests of the runtime on the golden device: sampling, text, sequences, errors, and the ``tellme`` command line."""
