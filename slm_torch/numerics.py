"""Dtypes by name, and the wide dtype of each."""

import torch

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def wide(dtype: torch.dtype) -> torch.dtype:
    """Picks the dtype of softmax, norm statistics and the loss: float32, or float64 if that is the compute dtype."""
    return torch.promote_types(dtype, torch.float32)
