"""The hardware, in Amaranth: one block a file, the file named for what the block does."""
