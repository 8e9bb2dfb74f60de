"""No position (Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466): the causal mask alone tells tokens apart.

q' = q,  k' = k
"""

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec


class NoPosition(nnx.Module):
    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        pass

    def __call__(
        self, x: Float[Array, "batch time heads head_dim"], start: int | Array
    ) -> Float[Array, "batch time heads head_dim"]:
        return x
