"""Learned positions."""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import embedding
from slm_torch.layers.documents import Documents, at_positions
from slm_torch.params import declare


class LearnedPosition(nn.Module):
    """Adds a learned vector to each position.

    Paper: Radford et al. 2018, Improving language understanding by generative pre-training.

        x'[t] = x[t] + table[t]

    Args:
      layer: gives d_model.
      context: the number of positions in the table.
    """

    site = "embedding"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()
        self.weight = declare((context, layer.d_model), embedding(layer))

    def forward(
        self, x: Float[Tensor, "batch time d_model"], start: int, documents: Documents | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """Adds the vectors of positions start, start + 1, ..., or from 0 on in each document."""
        return x + at_positions(self.weight, start, x.shape[1], documents).to(x.dtype)
