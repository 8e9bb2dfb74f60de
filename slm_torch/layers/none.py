"""No position (Kazemnejad et al. 2023, https://arxiv.org/abs/2305.19466): the causal mask alone tells tokens apart.

q' = q,  k' = k
"""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec


class NoPosition(nn.Module):
    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch time heads head_dim"], start: int
    ) -> Float[Tensor, "batch time heads head_dim"]:
        return x
