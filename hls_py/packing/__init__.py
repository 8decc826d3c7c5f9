"""Turns a model's tensors into the bytes that lie in the accelerator's memory."""
