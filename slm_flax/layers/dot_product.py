"""Scaled dot-product attention, written out (Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762).

    y = softmax(mask(cap tanh(q k^T scale / cap))) v

Query t stands at position start + t and sees the keys at positions in (start + t - window, start + t]. Each group of
heads / kv_heads query heads shares one key and value head. Scores, mask and softmax are float32 or wider.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from slm_flax.numerics import wide

MASKED = -1e30
"""Score of a masked key: finite, so that a fully masked row never gives NaN; exp of it is 0."""


def dot_product(
    q: Float[Array, "batch time heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    *,
    start: int | Array,
    scale: float,
    window: int,
    softcap: float,
) -> Float[Array, "batch time heads head_dim"]:
    q = rearrange(q, "b t (g r) d -> b g r t d", g=k.shape[2])
    k, v = rearrange(k, "b s g d -> b g 1 s d"), rearrange(v, "b s g d -> b g 1 s d")
    scores = (q @ k.mT).astype(wide(q.dtype)) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    mask = visible(q.shape[-2], k.shape[-2], start, window)
    scores = jnp.where(mask, scores, MASKED)
    weights = jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0)
    return rearrange(weights.astype(v.dtype) @ v, "b g r t d -> b t (g r) d")


def visible(time: int, keys: int, start: int | Array, window: int) -> Bool[Array, "time keys"]:
    """Returns which keys each query sees: itself and those before it, at most `window` of them (0: all)."""
    query = start + jnp.arange(time)[:, None]
    key = jnp.arange(keys)[None, :]
    mask = key <= query
    return mask & (key > query - window) if window else mask
