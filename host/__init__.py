"""Runtime: devices, tokenizer, sampler, sessions, and the ``tellme`` command."""
