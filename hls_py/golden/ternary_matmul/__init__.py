"""Golden of rtl/ternary_matmul: how codes lie in beats, and the sums that the engine computes from them."""
