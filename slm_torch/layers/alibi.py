"""ALiBi: attention scores with a linear bias by distance."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.positions import alibi_slopes


class ALiBi(nn.Module):
    """Adds a linear bias by distance to the scores (Press et al. 2022, https://arxiv.org/abs/2108.12409).

        score[h, p, c] += -slope[h] (p - c)

    The slopes are in `slm_core.model.positions`. Nothing is learned.

    Args:
      layer: gives the number of heads.
      context: the largest number of positions.
    """

    site = "scores"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()
        table = -np.outer(alibi_slopes(layer.attention.n_heads), np.arange(context))
        self.register_buffer("table", torch.from_numpy(table), persistent=False)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "heads distances"]:
        """Computes the bias of each distance 0, 1, ..., context - 1."""
        return self.table.to(dtype)
