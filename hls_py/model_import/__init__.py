"""Reads a model folder in Hugging Face form; what a model needs is read from config and tensors, never from a name."""
