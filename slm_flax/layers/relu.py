"""An MLP with ReLU."""

import jax
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dense import DenseMLP


class ReluMLP(DenseMLP):
    """MLP with ReLU (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.3).

    y = down(relu(up(x))),  relu(x) = max(x, 0), whose slope at 0 is 0
    """

    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        """Computes relu(x)."""
        return jax.nn.relu(x)
