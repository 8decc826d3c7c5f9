"""What every bench shares: emit, build once, drive streams, compare."""
