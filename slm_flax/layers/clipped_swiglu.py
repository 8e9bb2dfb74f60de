"""Clipped SwiGLU, the MLP of gpt-oss."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dense import GatedMLP

STEEPNESS = 1.702  # of the sigmoid
LIMIT = 7.0  # bound of the inputs


class ClippedSwigluMLP(GatedMLP):
    """Gated MLP with clipped inputs (gpt-oss; OpenAI 2025, https://arxiv.org/abs/2508.10925).

        y = down(g sigmoid(1.702 g) (1 + u)),  g = min(gate(x), 7),  u = clip(up(x), -7, 7)

    x sigmoid(1.702 x) is the approximation of GELU by Hendrycks and Gimpel 2016 (https://arxiv.org/abs/1606.08415). The
    gradient of a value that is exactly at a bound passes.
    """

    def activation(
        self, gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch hidden"]:
        """See `clipped_swiglu`."""
        return clipped_swiglu(gate, up)


def clipped_swiglu(
    gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
) -> Float[Array, "*batch hidden"]:
    """Computes g sigmoid(1.702 g) (1 + u), with g and u the clipped `gate` and `up`."""
    # jnp.clip halves the gradient of a value that is exactly LIMIT, as half precisions round some to be.
    gate = jnp.where(gate > LIMIT, LIMIT, gate)
    up = jnp.where(jnp.abs(up) > LIMIT, jnp.sign(up) * LIMIT, up)
    return gate * jax.nn.sigmoid(STEEPNESS * gate) * (1 + up)
