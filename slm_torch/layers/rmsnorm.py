"""Root mean square normalisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_torch.layers.norm_weight import norm_scale, norm_weight
from slm_torch.numerics import wide


class RMSNorm(nn.Module):
    """Divides each vector by its root mean square (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

        y = x / sqrt(mean(x^2) + eps) * weight

    Statistics are float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives eps and the form of the weight.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.weight = norm_weight(width, norm)
        self.form, self.eps = norm.weight, norm.eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Returns the normalised `x`, in its own dtype."""
        y = x.to(wide(x.dtype))
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).to(x.dtype)
