"""Dtypes by name, the wide dtype of each, and products that are wide."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def wide(dtype: torch.dtype) -> torch.dtype:
    """Picks the dtype of softmax, norm statistics and the loss: float32, or float64 if that is the compute dtype."""
    return torch.promote_types(dtype, torch.float32)


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiplies matrices that may be in 16 bits, [..., rows, n] and [..., n, columns]. The product is wide.

    A product that PyTorch returns in 16 bits is rounded to them, although it is summed in 32.
    """
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return a @ b if a.dtype == wide(a.dtype) else _WideProduct.apply(a, b)


class _WideProduct(torch.autograd.Function):
    """Keeps its factors in 16 bits for the backward pass, whose products are in 16 bits as everywhere."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a.to(wide(a.dtype)) @ b.to(wide(b.dtype))

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, dy):
        a, b = ctx.saved_tensors
        dy = dy.to(a.dtype)
        return (dy @ b.mT).sum_to_size(a.shape), (a.mT @ dy).sum_to_size(b.shape)
