"""Golden of rtl/vector_unit."""
