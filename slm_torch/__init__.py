"""The PyTorch twin: the same files, classes and attributes as slm_flax."""
