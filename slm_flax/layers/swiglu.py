"""SwiGLU: a gated MLP with SiLU."""

import jax
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dense import GatedMLP


class SwigluMLP(GatedMLP):
    """Gated MLP with SiLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    y = down(silu(gate(x)) * up(x)),  silu(x) = x sigmoid(x)
    """

    def activation(
        self, gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch hidden"]:
        """See `swiglu`."""
        return swiglu(gate, up)


def swiglu(gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
    """Computes silu(gate) * up."""
    return jax.nn.silu(gate) * up
