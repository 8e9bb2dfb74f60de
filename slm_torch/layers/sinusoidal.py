"""Sinusoidal positions."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_torch.layers.documents import Documents, at_positions


class SinusoidalPosition(nn.Module):
    """Adds sines and cosines of the position (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5).

        x'[t, 2i] = x[t, 2i] + sin(t theta^(-2i / d_model))
        x'[t, 2i + 1] = x[t, 2i + 1] + cos(t theta^(-2i / d_model))

    Args:
      layer: gives d_model and theta.
      context: the largest number of positions.
    """

    site = "embedding"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()
        frequency = layer.position.theta ** (-np.arange(0, layer.d_model, 2) / layer.d_model)
        angle = np.outer(np.arange(context), frequency)
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(context, layer.d_model)
        self.register_buffer("table", torch.from_numpy(table), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch time d_model"], start: int, documents: Documents | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """Adds the vectors of positions start, start + 1, ..., or from 0 on in each document."""
        return x + at_positions(self.table, start, x.shape[1], documents).to(x.dtype)
