"""The relative position bias of T5."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import Spec
from slm_core.model.positions import t5_buckets
from slm_torch.params import declare


class T5Bias(nn.Module):
    """Adds a learned score for each head and bucket of distances.

    Paper: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1.

        score[h, p, c] += weight[bucket(p - c), h]

    `slm_core.model.positions` computes the buckets. Each layer has its own table (T5 shares one).

    Args:
      layer: gives the heads, the number of buckets and the largest distance.
      context: the largest number of positions.
    """

    site = "scores"

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__()
        position = layer.position
        self.weight = declare((position.buckets, layer.attention.n_heads), Spec("scalar", std=layer.init_std))
        buckets = t5_buckets(position.buckets, position.max_distance, context)
        self.register_buffer("bucket", torch.from_numpy(buckets), persistent=False)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "heads distances"]:
        """Computes the bias of each distance 0, 1, ..., context - 1."""
        return self.weight[self.bucket].T.to(dtype)
