"""Golden of rtl/int8_dot."""
