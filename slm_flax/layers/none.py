"""No position, and no MLP."""

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_flax.layers.documents import Documents


class NoPosition(nnx.Module):
    """Leaves queries and keys as they are (Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466).

        q' = q,  k' = k

    Only the causal mask tells tokens apart by position.
    """

    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        pass

    def __call__(
        self, x: Float[Array, "batch time heads head_dim"], start: int | Array, documents: Documents | None = None
    ) -> Float[Array, "batch time heads head_dim"]:
        """Returns `x` unchanged."""
        return x


def no_mlp(layer: LayerSpec) -> None:
    """Makes no MLP: a block is its mixer alone (Mamba; Gu and Dao 2023, https://arxiv.org/abs/2312.00752).

    x' = x + mixer(norm(x))
    """
