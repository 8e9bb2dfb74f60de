"""MLP with squared ReLU (So et al. 2021, https://arxiv.org/abs/2109.08668).

y = down(relu(up(x))^2)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from slm_torch.layers.dense import DenseMLP


class Relu2MLP(DenseMLP):
    def activation(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        return relu2(x)


def relu2(x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
    """Returns what the down projection reads."""
    return torch.relu(x).square()
