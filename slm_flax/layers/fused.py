"""Softmax attention by JAX's own function (`jax.nn.dot_product_attention`).

The function is that of `dot_product`. JAX picks the implementation: XLA, or cuDNN's FlashAttention where the device has
it. It has no soft-cap, so a capped layer is computed by `dot_product`, and says so once. On a CPU it would compute what
the mask hides as well: there a sequence goes through in blocks of queries, each with only the keys that it can see.
"""

import functools
import logging

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_flax.layers.dot_product import dot_product, visible

BLOCKS, SMALLEST_BLOCK = 4, 64
"""Four blocks compute 5/8 of the scores; more would compute a little less, in products too small to be fast."""


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
    if _whole(q, k, start) and jax.default_backend() == "cpu":
        return _in_blocks(q, k, v, scale=scale, window=window)
    return _attend(q, k, v, start=start, scale=scale, window=window)


def _whole(q: Array, k: Array, start: int | Array) -> bool:
    return isinstance(start, int) and start == 0 and q.shape[1] == k.shape[1]


def _in_blocks(q: Array, k: Array, v: Array, *, scale: float, window: int) -> Array:
    time = q.shape[1]
    size = max(-(-time // BLOCKS), SMALLEST_BLOCK)
    blocks = []
    for begin in range(0, time, size):
        oldest = max(begin - window + 1, 0) if window else 0
        keys = slice(oldest, min(begin + size, time))
        block = q[:, begin : begin + size]
        blocks.append(_attend(block, k[:, keys], v[:, keys], start=begin - oldest, scale=scale, window=window))
    return jnp.concatenate(blocks, axis=1)


def _attend(q: Array, k: Array, v: Array, *, start: int | Array, scale: float, window: int) -> Array:
    # JAX's function takes its softmax in float32, and has no float16 on a CPU.
    if q.dtype == jnp.float64 or (q.dtype == jnp.float16 and jax.default_backend() == "cpu"):
        return dot_product(q, k, v, start=start, scale=scale, window=window, softcap=0.0)
    causal = _whole(q, k, start) and not window
    mask = None if causal else visible(q.shape[1], k.shape[1], start, window)[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, scale=scale)


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
