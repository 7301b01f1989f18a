"""Recommends a quantization, a context and a cache type of a model for a machine, before the model is fetched."""
