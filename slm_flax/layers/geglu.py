"""GEGLU: a gated MLP with GELU."""

import jax
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_flax.layers.dense import GatedMLP
from slm_flax.layers.gelu import APPROXIMATE


class GegluMLP(GatedMLP):
    """Gated MLP with GELU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

        y = down(gelu(gate(x)) * up(x))

    `GeluMLP` says what gelu is.
    """

    def __init__(self, layer: LayerSpec):
        super().__init__(layer)
        self.approximate = APPROXIMATE[layer.mlp.gelu]

    def activation(
        self, gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch hidden"]:
        """See `geglu`."""
        return geglu(gate, up, self.approximate)


def geglu(
    gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"], approximate: bool = APPROXIMATE["erf"]
) -> Float[Array, "*batch hidden"]:
    """Computes gelu(gate) * up."""
    return jax.nn.gelu(gate, approximate=approximate) * up
