"""Layer normalisation."""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Norm
from slm_core.model.initialization import BIAS
from slm_torch.layers.rmsnorm import norm_scale, norm_weight
from slm_torch.numerics import wide
from slm_torch.params import declare


class LayerNorm(nn.Module):
    """Centres and scales each vector (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

        y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias

    The variance is taken of the centred values, in a second pass. Statistics are float32 or wider.
    `torch.nn.functional.layer_norm` is this formula in one kernel; written out it takes six times as long on a CPU.

    Args:
      width: size of the last axis.
      norm: gives eps, the form of the weight, and whether there is a bias.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.weight = norm_weight(width, norm)
        self.bias = declare((width,), BIAS) if norm.bias else None
        self.form, self.eps = norm.weight, norm.eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalises `x`, and keeps its dtype."""
        dtype = wide(x.dtype)
        scale = norm_scale(self.weight, self.form)
        y = nn.functional.layer_norm(x.to(dtype), x.shape[-1:], _cast(scale, dtype), _cast(self.bias, dtype), self.eps)
        return y.to(x.dtype)


def _cast(value: Tensor | None, dtype) -> Tensor | None:
    return None if value is None else value.to(dtype)
