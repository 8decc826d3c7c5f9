"""The single source that hardware, golden model, C header and host read. Standard library only."""
