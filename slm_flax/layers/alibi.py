"""Attention with linear biases (Press et al. 2022, https://arxiv.org/abs/2108.12409).

    score[h, p, c] += -slope[h] (p - c)

The slopes are in `slm_core.model.positions`; nothing is learned.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.positions import alibi_slopes


class ALiBi(nnx.Module):
    site = "scores"

    def __init__(self, layer: LayerSpec, context: int):
        self.table = -np.outer(alibi_slopes(layer.attention.n_heads), np.arange(context))

    def __call__(self, dtype: np.dtype) -> Float[Array, "heads distances"]:
        return jnp.asarray(self.table, dtype)
