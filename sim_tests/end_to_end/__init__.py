"""The whole accelerator's RTL, under Verilator with the memory model, against golden."""
