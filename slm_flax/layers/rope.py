"""Rotary position embedding."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated
from slm_core.model.positions import rotation
from slm_flax.layers.documents import Documents, at_positions
from slm_flax.numerics import wide


class RoPE(nnx.Module):
    """Rotates pairs of features by an angle that grows with the position.

    Paper: Su et al. 2021, https://arxiv.org/abs/2104.09864.

        angle[t, i] = t frequency[i],  frequency[i] = theta^(-2i / rotary) unless scaled,  i < rotary / 2
        (x[i], x[i + rotary/2])' = (x[i] cos - x[i + rotary/2] sin, x[i + rotary/2] cos + x[i] sin)

    Pairs are in the half-split layout. The first rotary = round(fraction * width) features of a head turn, and the rest
    stay (GPT-NeoX, https://arxiv.org/abs/2204.06745). `slm_core.model.positions` computes the angles and their scaling
    (linear, NTK-aware, YaRN, Llama 3), in float64 on the host.

    Args:
      layer: gives the width of a head, theta, the fraction and the scaling.
      context: the largest number of positions.
    """

    site = "heads"

    def __init__(self, layer: LayerSpec, context: int):
        self.rotary = rotated(layer)
        self.cos, self.sin = rotation(layer, context)

    def __call__(
        self, x: Float[Array, "batch time heads head_dim"], start: int | Array, documents: Documents | None = None
    ) -> Float[Array, "batch time heads head_dim"]:
        """Rotates the heads at positions start, start + 1, ..., or from 0 on in each document."""
        dtype = wide(x.dtype)
        tables = (jnp.asarray(t, dtype) for t in (self.cos, self.sin))
        cos, sin = (at_positions(t, start, x.shape[1], documents)[..., None, :] for t in tables)
        return jnp.concatenate([*turned(x[..., : self.rotary], cos, sin), x[..., self.rotary :]], axis=-1)


def turned(x: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """Turns the pairs of `x` by angles. Returns the first and the second features of all pairs, in the dtype of `x`."""
    a, b = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    return (a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype)
