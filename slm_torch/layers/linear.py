"""Linear map and embedding table, the two layers that hold matrices.

Parameters keep their own dtype (float32, or float64 for proofs) and are cast where they are used: the linear map
follows its input, the embedding starts the compute dtype.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slm_core.model.initialization import BIAS, Spec
from slm_torch.params import declare


class Linear(nn.Module):
    """y = x W + b, with W stored as [in, out]."""

    def __init__(self, d_in: int, d_out: int, spec: Spec, bias: bool):
        super().__init__()
        self.shape = (d_in, d_out)
        self.weight = declare(self.shape, spec)
        self.bias = declare((d_out,), BIAS) if bias else None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Returns x W."""
        return x @ self.weight.to(x.dtype)


class Embedding(nn.Module):
    """Rows of a table [vocab, width] by index, in the compute dtype."""

    def __init__(self, vocab: int, width: int, spec: Spec, dtype: torch.dtype):
        super().__init__()
        self.weight = declare((vocab, width), spec)
        self.dtype = dtype

    def forward(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        return nn.functional.embedding(index, self.weight).to(self.dtype)
