"""Golden of rtl/attention."""
