"""Computes products with int8 and nf4 matrices; `slm_core.quantization.formats` specifies the formats, in NumPy."""

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn.functional import pad

from slm_core.quantization.formats import BLOCK, DYNAMIC, GROUP, NF4_PAIRS


def product(x: Float[Tensor, "*batch in"], stored_as: str, parts: list[Tensor]) -> Float[Tensor, "*batch out"]:
    """Computes x W. The backward pass dequantises W again: in between only its parts are kept.

    Args:
      x: rows.
      stored_as: the format of W, a key of MATRIX.
      parts: of W, then its TABLES, in the order of the function's arguments.
    """
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return _Product.apply(x, stored_as, tuple(parts))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, stored_as: str, parts: tuple[Tensor, ...]) -> Tensor:
        ctx.stored_as = stored_as
        ctx.save_for_backward(*parts)
        return x @ MATRIX[stored_as](*parts).to(x.dtype)

    @staticmethod
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts = ctx.saved_tensors  # read once: recomputation allows a single access
        return gradient @ MATRIX[ctx.stored_as](*parts).to(gradient.dtype).T, None, None


def int8_matrix(codes: Int8[Tensor, "in out"], scale: Float[Tensor, "out"]) -> Float[Tensor, "in out"]:
    """Dequantises an int8 matrix, in the dtype of the scale."""
    return codes.to(scale.dtype) * scale


def nf4_matrix(
    codes: UInt8[Tensor, "in pairs"],
    scale_codes: UInt8[Tensor, "blocks"],
    scale_offset: Float[Tensor, "groups"],
    scale_step: Float[Tensor, "groups"],
    dynamic: Float[Tensor, "256"],
    pairs: Float[Tensor, "256 2"],
) -> Float[Tensor, "in out"]:
    """Dequantises an nf4 matrix, in the dtype of the steps."""
    dtype, count = scale_step.dtype, len(scale_codes)
    offset, step = (part.repeat_interleave(GROUP)[:count] for part in (scale_offset, scale_step))
    scale = (dynamic.to(dtype).index_select(0, scale_codes.int()) + offset) * step
    flat = pad(codes.flatten(), (0, -codes.numel() % (BLOCK // 2)))
    levels = pairs.to(dtype).index_select(0, flat.int()).view(-1, BLOCK)
    return (levels * scale[:, None]).flatten()[: 2 * codes.numel()].view(len(codes), -1)


MATRIX = {"int8": int8_matrix, "nf4": nf4_matrix}
"""{finetune.frozen: function that dequantises}: of the parts, in the order of their declaration, then of TABLES."""
TABLES = {"int8": {}, "nf4": {"dynamic": DYNAMIC, "pairs": NF4_PAIRS}}
"""{finetune.frozen: {name: constant}}. Layers keep them on their device: copying them from the host in each product
would stall a GPU."""
