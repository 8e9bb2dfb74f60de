"""Linear map and embedding table."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slm_core.model.initialization import BIAS, Spec
from slm_torch.params import declare


class Linear(nn.Module):
    """Maps vectors linearly: y = x W + b, with W stored as [in, out].

    Parameters keep their dtype (float32, or float64 for proofs). They are cast to the dtype of the input.
    """

    def __init__(self, d_in: int, d_out: int, spec: Spec, bias: bool):
        super().__init__()
        self.shape = (d_in, d_out)
        self.weight = declare(self.shape, spec)
        self.bias = declare((d_out,), BIAS) if bias else None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Computes x W + b."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Computes x W."""
        return x @ self.weight.to(x.dtype)


class Embedding(nn.Module):
    """Looks up rows of a table [vocab, width] by index, and casts them to the compute dtype."""

    def __init__(self, vocab: int, width: int, spec: Spec, dtype: torch.dtype):
        super().__init__()
        self.weight = declare((vocab, width), spec)
        self.dtype = dtype

    def forward(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Looks up the row of each index."""
        return nn.functional.embedding(index, self.weight).to(self.dtype)
