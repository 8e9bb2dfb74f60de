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
from slm_flax.layers.norm_weight import norm_scale, norm_weight
from slm_flax.numerics import wide


class RMSNorm(nnx.Module):
    def __init__(self, width: int, norm: Norm):
        self.weight = norm_weight(width, norm)
        self.form, self.eps = norm.weight, norm.eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(wide(x.dtype))
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).astype(x.dtype)
