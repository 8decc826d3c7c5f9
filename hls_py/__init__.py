"""High-level synthesis: from a ternary language model and a board description to a design."""
