"""AXI4 masters, one a port, and the readers and writers that share them."""
