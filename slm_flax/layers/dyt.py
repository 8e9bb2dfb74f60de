"""Dynamic Tanh: a norm without statistics."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Norm
from slm_core.model.initialization import BIAS, NORM_WEIGHT, Spec
from slm_flax.numerics import wide
from slm_flax.params import declare


class DynamicTanh(nnx.Module):
    """Squashes each element by a scaled tanh (Zhu et al. 2025, https://arxiv.org/abs/2503.10622).

        y = tanh(alpha x) * weight + bias

    alpha is one learned number, which starts at norm.alpha. The tanh is float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives alpha's start, and whether there is a bias.
    """

    def __init__(self, width: int, norm: Norm):
        self.alpha = declare((1,), Spec("scalar", constant=norm.alpha))
        self.weight = declare((width,), NORM_WEIGHT["scale"])
        self.bias = declare((width,), BIAS) if norm.bias else None

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Squashes `x`, and keeps its dtype."""
        y = jnp.tanh(self.alpha[...] * x.astype(wide(x.dtype))) * self.weight[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)
