"""The bit-exact NumPy model of the accelerator, one file per rtl block it mirrors."""
