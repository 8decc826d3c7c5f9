"""Golden against models that nobody here wrote; needs the extra ``oracles`` (make test-oracles)."""
