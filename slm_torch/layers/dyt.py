"""Dynamic Tanh: a norm without statistics."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_core.model.initialization import BIAS, NORM_WEIGHT, Spec
from slm_torch.numerics import wide
from slm_torch.params import declare


class DynamicTanh(nn.Module):
    """Squashes each element by a scaled tanh (Zhu et al. 2025, https://arxiv.org/abs/2503.10622).

        y = tanh(alpha x) * weight + bias

    alpha is one learned number, which starts at norm.alpha. The tanh is float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives alpha's start, and whether there is a bias.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.alpha = declare((1,), Spec("scalar", constant=norm.alpha))
        self.weight = declare((width,), NORM_WEIGHT["scale"])
        self.bias = declare((width,), BIAS) if norm.bias else None

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Squashes `x`, and keeps its dtype."""
        y = torch.tanh(self.alpha * x.to(wide(x.dtype))) * self.weight
        return (y if self.bias is None else y + self.bias).to(x.dtype)
