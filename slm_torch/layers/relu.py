"""An MLP with ReLU."""

import torch
from jaxtyping import Float
from torch import Tensor

from slm_torch.layers.dense import DenseMLP


class ReluMLP(DenseMLP):
    """MLP with ReLU (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.3).

    y = down(relu(up(x))),  relu(x) = max(x, 0), whose slope at 0 is 0
    """

    def activation(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Computes relu(x)."""
        return torch.relu(x)
