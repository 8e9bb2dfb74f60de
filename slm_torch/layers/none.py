"""No position, and no MLP."""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_torch.layers.documents import Documents


class NoPosition(nn.Module):
    """Leaves queries and keys as they are (Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466).

        q' = q,  k' = k

    Only the causal mask tells tokens apart by position.
    """

    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch time heads head_dim"], start: int, documents: Documents | None = None
    ) -> Float[Tensor, "batch time heads head_dim"]:
        """Returns `x` unchanged."""
        return x


def no_mlp(layer: LayerSpec) -> None:
    """Makes no MLP: a block is its mixer alone (Mamba; Gu and Dao 2023, https://arxiv.org/abs/2312.00752).

    x' = x + mixer(norm(x))
    """
