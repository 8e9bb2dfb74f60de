"""Rotary position embedding."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated
from slm_core.model.positions import rotation
from slm_torch.layers.documents import Documents, at_positions
from slm_torch.numerics import wide


class RoPE(nn.Module):
    """Rotates pairs of features by an angle that grows with the position.

    Paper: Su et al. 2021, https://arxiv.org/abs/2104.09864.

        angle[t, i] = t frequency[i],  frequency[i] = theta^(-2i / rotary) unless scaled,  i < rotary / 2
        (x[i], x[i + rotary/2])' = (x[i] cos - x[i + rotary/2] sin, x[i + rotary/2] cos + x[i] sin)

    Pairs are in the half-split layout. The first rotary = round(fraction * width) features of a head turn, and the rest
    stay (GPT-NeoX, https://arxiv.org/abs/2204.06745). `slm_core.model.positions` computes the angles and their scaling
    (linear, NTK-aware, YaRN, Llama 3), in float64 on the host.

    Args:
      layer: gives the width of a head, theta, the fraction and the scaling.
      context: the largest number of positions.
    """

    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()
        self.rotary = rotated(layer)
        cos, sin = rotation(layer, context)
        self.register_buffer("cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("sin", torch.from_numpy(sin), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch time heads head_dim"], start: int, documents: Documents | None = None
    ) -> Float[Tensor, "batch time heads head_dim"]:
        """Rotates the heads at positions start, start + 1, ..., or from 0 on in each document."""
        dtype = wide(x.dtype)
        cos, sin = (at_positions(t, start, x.shape[1], documents)[..., None, :].to(dtype) for t in (self.cos, self.sin))
        return torch.cat([*turned(x[..., : self.rotary], cos, sin), x[..., self.rotary :]], dim=-1)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turns the pairs of `x` by angles. Returns the first and the second features of all pairs, in the dtype of `x`."""
    a, b = x.to(cos.dtype).chunk(2, dim=-1)
    return (a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype)
