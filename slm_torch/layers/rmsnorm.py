"""Root mean square normalisation, and the learned scale that it shares with LayerNorm."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_core.model.initialization import NORM_WEIGHT
from slm_torch.numerics import wide
from slm_torch.params import declare


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
        """Normalises `x`, and keeps its dtype."""
        y = self.normalised(x.to(wide(x.dtype)))
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).to(x.dtype)

    def normalised(self, y: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Divides by the root mean square."""
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)


class GroupedRMSNorm(RMSNorm):
    """RMSNorm of each of `groups` equal parts of a vector by itself (Dao and Gu 2024, section 8.2)."""

    def __init__(self, width: int, norm: Norm, groups: int):
        super().__init__(width, norm)
        self.groups = groups

    def normalised(self, y: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Divides each part by its root mean square."""
        return super().normalised(y.unflatten(-1, (self.groups, -1))).flatten(-2)


def norm_weight(width: int, norm: Norm) -> nn.Parameter | None:
    """Declares the weight of a norm, or None if norm.weight is "none" (OLMo, https://arxiv.org/abs/2402.00838)."""
    return None if norm.weight == "none" else declare((width,), NORM_WEIGHT[norm.weight])


def norm_scale(weight: Tensor | None, form: str) -> Tensor | None:
    """Computes the factor of the normalised vector.

    Args:
      weight: w, or None.
      form: norm.weight: w itself, 1 + w ("one_plus"; Gemma, https://arxiv.org/abs/2403.08295), or none.
    """
    return 1 + weight if weight is not None and form == "one_plus" else weight
