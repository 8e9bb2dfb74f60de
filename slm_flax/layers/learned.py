"""Learned positions."""

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import embedding
from slm_flax.layers.documents import Documents, at_positions
from slm_flax.params import declare


class LearnedPosition(nnx.Module):
    """Adds a learned vector to each position.

    Paper: Radford et al. 2018, Improving language understanding by generative pre-training.

        x'[t] = x[t] + table[t]

    Args:
      layer: gives d_model.
      context: the number of positions in the table.
    """

    site = "embedding"

    def __init__(self, layer: LayerSpec, context: int):
        self.weight = declare((context, layer.d_model), embedding(layer))

    def __call__(
        self, x: Float[Array, "batch time d_model"], start: int | Array, documents: Documents | None = None
    ) -> Float[Array, "batch time d_model"]:
        """Adds the vectors of positions start, start + 1, ..., or from 0 on in each document."""
        return x + at_positions(self.weight[...], start, x.shape[1], documents).astype(x.dtype)
