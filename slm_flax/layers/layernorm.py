"""Layer normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Norm
from slm_core.model.initialization import BIAS
from slm_flax.layers.rmsnorm import norm_scale, norm_weight
from slm_flax.numerics import wide
from slm_flax.params import declare


class LayerNorm(nnx.Module):
    """Centres and scales each vector (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

        y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias

    The variance is taken of the centred values, in a second pass. Statistics are float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives eps, the form of the weight, and whether there is a bias.
    """

    def __init__(self, width: int, norm: Norm):
        self.weight = norm_weight(width, norm)
        self.bias = declare((width,), BIAS) if norm.bias else None
        self.form, self.eps = norm.weight, norm.eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalises `x`, and keeps its dtype."""
        centred = x.astype(wide(x.dtype))
        centred = centred - centred.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        scale = norm_scale(self.weight, self.form)
        y = y if scale is None else y * scale
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)
