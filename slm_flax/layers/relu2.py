"""MLP with squared ReLU (So et al. 2021, https://arxiv.org/abs/2109.08668).

y = down(relu(up(x))^2)
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dense import DenseMLP


class Relu2MLP(DenseMLP):
    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        return relu2(x)


def relu2(x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
    """Returns what the down projection reads."""
    return jnp.square(jax.nn.relu(x))
