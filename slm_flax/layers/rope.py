"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864), half-split layout.

    angle[t, i] = t / scaling_factor * theta^(-2i / rotary),  i < rotary / 2
    (x[i], x[i + rotary/2])' = (x[i] cos - x[i + rotary/2] sin, x[i + rotary/2] cos + x[i] sin)

The first rotary = round(fraction * head_dim) features of a head turn, the rest pass (GPT-NeoX,
https://arxiv.org/abs/2204.06745). Linear scaling divides positions (Chen et al. 2023,
https://arxiv.org/abs/2306.15595). Angles are float64 on the host, so that both twins turn by the same amounts and late
positions lose nothing.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Float

from slm_core.config import Model
from slm_flax.numerics import wide


class RoPE(nnx.Module):
    site = "attention"

    def __init__(self, model: Model, context: int):
        position = model.position
        self.rotary = round(position.fraction * model.attention.head_dim)
        frequency = position.theta ** (-np.arange(0, self.rotary, 2) / self.rotary)
        angle = np.outer(np.arange(context) / position.scaling_factor, frequency)
        self.cos = np.cos(angle)
        self.sin = np.sin(angle)

    def __call__(
        self, x: Float[Array, "batch time heads head_dim"], start: int | Array
    ) -> Float[Array, "batch time heads head_dim"]:
        dtype = wide(x.dtype)
        cos, sin = (
            dynamic_slice_in_dim(jnp.asarray(t, dtype), start, x.shape[1])[:, None] for t in (self.cos, self.sin)
        )
        turned, rest = x[..., : self.rotary].astype(dtype), x[..., self.rotary :]
        a, b = jnp.split(turned, 2, axis=-1)
        return jnp.concatenate(
            [(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype), rest], axis=-1
        )
