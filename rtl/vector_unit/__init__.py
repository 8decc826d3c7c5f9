"""Everything element-wise: drains of the ternary engine, norm statistics, quantisation, gathers."""
