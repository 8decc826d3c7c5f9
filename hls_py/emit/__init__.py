"""What a design is written out as: Verilog, C header, project scripts, simulators."""
