"""Quantisation in the formats that `slm_core.quantization` specifies."""
