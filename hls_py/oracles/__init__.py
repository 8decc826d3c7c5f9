"""Models that others wrote, to hold golden against: transformers (the extra ``oracles``) and llama.cpp (``llama``)."""
