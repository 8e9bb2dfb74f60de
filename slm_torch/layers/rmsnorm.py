"""Root mean square normalisation (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    y = x / sqrt(mean(x^2) + eps) * weight

Statistics are float32 or wider.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_torch.layers.norm_weight import norm_scale, norm_weight
from slm_torch.numerics import wide


class RMSNorm(nn.Module):
    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.weight = norm_weight(width, norm)
        self.form, self.eps = norm.weight, norm.eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        y = x.to(wide(x.dtype))
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).to(x.dtype)
