"""Attention over a KV cache of int8 tiles: walker, scores, online softmax, values."""
