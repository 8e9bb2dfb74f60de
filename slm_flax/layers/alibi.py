"""ALiBi: attention scores with a linear bias by distance."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.positions import alibi_slopes


class ALiBi(nnx.Module):
    """Adds a linear bias by distance to the scores (Press et al. 2022, https://arxiv.org/abs/2108.12409).

        score[h, p, c] += -slope[h] (p - c)

    The slopes are in `slm_core.model.positions`. Nothing is learned.

    Args:
      layer: gives the number of heads.
      context: the largest number of positions.
    """

    site = "scores"

    def __init__(self, layer: LayerSpec, context: int):
        self.table = -np.outer(alibi_slopes(layer.attention.n_heads), np.arange(context))

    def __call__(self, dtype: np.dtype) -> Float[Array, "heads distances"]:
        """Computes the bias of each distance 0, 1, ..., context - 1."""
        return jnp.asarray(self.table, dtype)
