"""Sinusoidal positions."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_flax.layers.documents import Documents, at_positions


class SinusoidalPosition(nnx.Module):
    """Adds sines and cosines of the position (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5).

        x'[t, 2i] = x[t, 2i] + sin(t theta^(-2i / d_model))
        x'[t, 2i + 1] = x[t, 2i + 1] + cos(t theta^(-2i / d_model))

    Args:
      layer: gives d_model and theta.
      context: the largest number of positions.
    """

    site = "embedding"

    def __init__(self, layer: LayerSpec, context: int):
        frequency = layer.position.theta ** (-np.arange(0, layer.d_model, 2) / layer.d_model)
        angle = np.outer(np.arange(context), frequency)
        self.table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(context, layer.d_model)

    def __call__(
        self, x: Float[Array, "batch time d_model"], start: int | Array, documents: Documents | None = None
    ) -> Float[Array, "batch time d_model"]:
        """Adds the vectors of positions start, start + 1, ..., or from 0 on in each document."""
        return x + at_positions(jnp.asarray(self.table, x.dtype), start, x.shape[1], documents)
