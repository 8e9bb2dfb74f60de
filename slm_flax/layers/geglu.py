"""Gated MLP with GELU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

y = down(gelu(gate(x)) * up(x)),  gelu as in `gelu`
"""

import jax
from jax import Array
from jaxtyping import Float

from slm_core.config import Model
from slm_flax.layers.dense import GatedMLP
from slm_flax.layers.gelu import APPROXIMATE


class GegluMLP(GatedMLP):
    def __init__(self, model: Model):
        super().__init__(model)
        self.approximate = APPROXIMATE[model.mlp.gelu]

    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        return jax.nn.gelu(x, approximate=self.approximate)
