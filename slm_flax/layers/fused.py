"""Softmax attention by the framework's kernels."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from slm_core.logging import say_once
from slm_flax.layers.dot_product import distances, dot_product, same_document, visible
from slm_flax.layers.flash import flash

BLOCKS, SMALLEST_BLOCK = 4, 64
"""Four blocks compute 5/8 of the scores; more would compute a little less, in products too small to be fast."""


def fused(
    q: Float[Array, "batch time heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads v_dim"],
    *,
    start: int | Array,
    keys_start: int | Array = 0,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: Float[Array, "heads distances"] | None = None,
    sinks: Float[Array, "heads"] | None = None,
    documents: Int[Array, "batch keys"] | None = None,
) -> Float[Array, "batch time heads v_dim"]:
    """Computes softmax attention by `jax.nn.dot_product_attention`.

    The function and its arguments are those of `dot_product`. If JAX's function lacks an option, `flash` computes the
    layer, and one message says so. On a GPU JAX 0.10's function keeps every score in memory, so that `flash` computes
    every layer there. On a CPU it would compute hidden scores, too. So a sequence is split there into blocks of
    queries, each with only the keys that it can see.
    """
    # JAX's function needs values as wide as keys.
    lacking = "softcap" if softcap else "sinks" if sinks is not None else ""
    lacking = lacking or ("values of another width than keys" if q.shape[-1] != v.shape[-1] else "")
    if lacking:
        say_once(f"model.attention.kernel=fused cannot apply {lacking} in JAX: flash computes those layers")
    if lacking or jax.default_backend() != "cpu":
        options = dict(scale=scale, window=window, softcap=softcap, bias=bias, sinks=sinks, documents=documents)
        return flash(q, k, v, start=start, keys_start=keys_start, **options)
    if _whole(q, k, start, keys_start):
        return _in_blocks(q, k, v, scale=scale, window=window, bias=bias, documents=documents)
    options = dict(scale=scale, window=window, bias=bias, documents=documents)
    return _attend(q, k, v, start=start, keys_start=keys_start, **options)


def _whole(q: Array, k: Array, start: int | Array, keys_start: int | Array) -> bool:
    known = isinstance(start, int) and isinstance(keys_start, int)
    return known and start == keys_start == 0 and q.shape[1] == k.shape[1]


def _in_blocks(
    q: Array, k: Array, v: Array, *, scale: float, window: int, bias: Array | None, documents: Array | None
) -> Array:
    time = q.shape[1]
    size = max(-(-time // BLOCKS), SMALLEST_BLOCK)
    blocks = []
    for begin in range(0, time, size):
        oldest = max(begin - window + 1, 0) if window else 0
        keys = slice(oldest, min(begin + size, time))
        numbers = None if documents is None else documents[:, keys]
        options = dict(start=begin, keys_start=oldest, scale=scale, window=window, bias=bias, documents=numbers)
        blocks.append(_attend(q[:, begin : begin + size], k[:, keys], v[:, keys], **options))
    return jnp.concatenate(blocks, axis=1)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    *,
    start: int | Array,
    keys_start: int | Array,
    scale: float,
    window: int,
    bias: Array | None,
    documents: Array | None,
) -> Array:
    # JAX's function computes its softmax in float32, and lacks float16 on a CPU.
    if q.dtype in (jnp.float64, jnp.float16):
        options = dict(scale=scale, window=window, bias=bias, documents=documents)
        return dot_product(q, k, v, start=start, keys_start=keys_start, **options)
    causal = _whole(q, k, start, keys_start) and not window and bias is None and documents is None
    if causal:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, scale=scale)
    distance = distances(q.shape[1], k.shape[1], start - keys_start)
    mask = visible(distance, start, window)[None, None]
    if documents is not None:
        mask = mask & same_document(documents, q.shape[1], start - keys_start)[:, None]
    added = None if bias is None else bias[:, jnp.clip(distance, 0, bias.shape[1] - 1)][None].astype(q.dtype)
    return jax.nn.dot_product_attention(q, k, v, bias=added, mask=mask, scale=scale)
