"""Golden of rtl/head."""
