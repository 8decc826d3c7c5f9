"""Reads a model folder in Hugging Face form into what packing needs; what a model needs is read from config and tensors."""
