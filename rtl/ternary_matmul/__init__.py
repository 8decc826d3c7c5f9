"""Table-lookup ternary matmul: activation buffers, table builders, one lane a row, accumulators, drain ring."""
