"""Linear map and embedding table."""

import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from slm_core.model.initialization import BIAS, Spec
from slm_flax.params import declare


class Linear(nnx.Module):
    """Maps vectors linearly: y = x W + b, with W stored as [in, out].

    Parameters keep their dtype (float32, or float64 for proofs). They are cast to the dtype of the input.
    """

    def __init__(self, d_in: int, d_out: int, spec: Spec, bias: bool):
        self.shape = (d_in, d_out)
        self.weight = declare(self.shape, spec)
        self.bias = declare((d_out,), BIAS) if bias else None

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Computes x W + b."""
        # As rows: XLA's CPU backend computes the weight's gradient half as fast if the product has more axes.
        y = self.product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.astype(x.dtype)

    def product(self, x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
        """Computes x W."""
        return x @ self.weight.astype(x.dtype)


class Embedding(nnx.Module):
    """Looks up rows of a table [vocab, width] by index, and casts them to the compute dtype."""

    def __init__(self, vocab: int, width: int, spec: Spec, dtype: np.dtype):
        self.weight = declare((vocab, width), spec)
        self.dtype = dtype

    def __call__(self, index: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Looks up the row of each index."""
        return self.weight[index].astype(self.dtype)
