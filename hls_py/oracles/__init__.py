"""Models that others wrote, to hold golden against. Each needs the optional dependencies of the extra ``oracles``."""
