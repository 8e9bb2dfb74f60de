"""Root mean square normalisation (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    y = x / sqrt(mean(x^2) + eps) * weight

Statistics are float32 or wider.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Norm
from slm_core.params import NORM_WEIGHT
from slm_flax.numerics import wide
from slm_flax.params import declare


class RMSNorm(nnx.Module):
    def __init__(self, width: int, norm: Norm):
        self.weight = declare((width,), NORM_WEIGHT)
        self.eps = norm.eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(wide(x.dtype))
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps) * self.weight
        return y.astype(x.dtype)
