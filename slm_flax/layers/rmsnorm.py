"""Root mean square normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Norm
from slm_flax.layers.norm_weight import norm_scale, norm_weight
from slm_flax.numerics import wide


class RMSNorm(nnx.Module):
    """Divides each vector by its root mean square (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

        y = x / sqrt(mean(x^2) + eps) * weight

    Statistics are float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives eps and the form of the weight.
    """

    def __init__(self, width: int, norm: Norm):
        self.weight = norm_weight(width, norm)
        self.form, self.eps = norm.weight, norm.eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Returns the normalised `x`, in its own dtype."""
        y = x.astype(wide(x.dtype))
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).astype(x.dtype)
