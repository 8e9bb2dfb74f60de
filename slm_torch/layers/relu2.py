"""An MLP with squared ReLU."""

import torch
from jaxtyping import Float
from torch import Tensor

from slm_torch.layers.dense import DenseMLP


class Relu2MLP(DenseMLP):
    """MLP with squared ReLU (So et al. 2021, https://arxiv.org/abs/2109.08668).

    y = down(relu(up(x))^2)
    """

    def activation(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """See `relu2`."""
        return relu2(x)


def relu2(x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
    """Computes relu(x)^2."""
    return torch.relu(x).square()
