"""The Flax (NNX) twin: the same files, classes and attributes as slm_torch."""
