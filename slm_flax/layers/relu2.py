"""An MLP with squared ReLU."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dense import DenseMLP


class Relu2MLP(DenseMLP):
    """MLP with squared ReLU (So et al. 2021, https://arxiv.org/abs/2109.08668).

    y = down(relu(up(x))^2)
    """

    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        """See `relu2`."""
        return relu2(x)


def relu2(x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
    """Computes relu(x)^2."""
    return jnp.square(jax.nn.relu(x))
