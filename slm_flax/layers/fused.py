"""Softmax attention by JAX's own function (`jax.nn.dot_product_attention`).

The function is that of `dot_product`. JAX picks the implementation: XLA, or cuDNN's FlashAttention where the device has
it. It has no soft-cap, so a capped layer is computed by `dot_product`, and says so once.
"""

import functools
import logging

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dot_product import dot_product, visible


def fused(
    q: Float[Array, "batch time heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    *,
    start: int | Array,
    scale: float,
    window: int,
    softcap: float,
) -> Float[Array, "batch time heads head_dim"]:
    if softcap:
        _say_once("model.attention.kernel=fused cannot apply softcap in JAX: dot_product computes those layers")
        return dot_product(q, k, v, start=start, scale=scale, window=window, softcap=softcap)
    if q.dtype == jnp.float64:
        return dot_product(q, k, v, start=start, scale=scale, window=window, softcap=softcap)
    causal = isinstance(start, int) and start == 0 and q.shape[1] == k.shape[1] and not window
    mask = None if causal else visible(q.shape[1], k.shape[1], start, window)[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, scale=scale)


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
