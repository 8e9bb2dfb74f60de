"""Normalisation of queries and keys."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_core.config.layers import LayerSpec
from slm_torch.layers.rmsnorm import RMSNorm
from slm_torch.numerics import wide


class L2Norm(nn.Module):
    """Scales each vector to length 1 (Henry et al. 2020, https://arxiv.org/abs/2010.04245).

        y = x / sqrt(sum(x^2) + eps)

    The sum is float32 or wider.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.eps = norm.eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalises `x`, and keeps its dtype."""
        y = x.to(wide(x.dtype))
        return (y * torch.rsqrt(y.square().sum(-1, keepdim=True) + self.eps)).to(x.dtype)


QK_NORM = {"rmsnorm": RMSNorm, "l2": L2Norm}


class QKNorm(nn.Module):
    """Normalises queries or keys by RMSNorm or to length 1.

    RMSNorm follows Dehghani et al. 2023 (https://arxiv.org/abs/2302.05442), who use LayerNorm. attention.qk_norm_over
    picks each "head" alone (Gemma 3, Qwen3) or the "whole" of all heads (OLMo 2).
    """

    def __init__(self, layer: LayerSpec, heads: int, head_dim: int):
        super().__init__()
        self.whole = layer.attention.qk_norm_over == "whole"
        self.norm = QK_NORM[layer.attention.qk_norm](heads * head_dim if self.whole else head_dim, layer.norm)

    def forward(self, x: Float[Tensor, "batch time heads head_dim"]) -> Float[Tensor, "batch time heads head_dim"]:
        """Normalises the heads of queries or keys."""
        return self.norm(x.flatten(-2)).view(x.shape) if self.whole else self.norm(x)


def qk_norm(layer: LayerSpec, heads: int, head_dim: int) -> QKNorm | None:
    """Makes the norm of queries or keys, or None if attention.qk_norm is "none"."""
    return None if layer.attention.qk_norm == "none" else QKNorm(layer, heads, head_dim)
