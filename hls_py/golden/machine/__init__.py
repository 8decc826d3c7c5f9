"""The whole accelerator in NumPy: executes the packed program and image bytes, bit for bit as the hardware does."""
