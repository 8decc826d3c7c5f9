"""What runs a design: the golden model, the RTL under Verilator, or a board; one interface."""
