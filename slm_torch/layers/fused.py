"""Softmax attention by PyTorch's own kernels (`torch.nn.functional.scaled_dot_product_attention`).

The function is that of `dot_product`. PyTorch picks the kernel: FlashAttention or memory-efficient attention where the
device has them. It has no soft-cap, so a capped layer is computed by `dot_product`, and says so once.
"""

import functools
import logging

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from slm_torch.layers.dot_product import dot_product, visible


def fused(
    q: Float[Tensor, "batch time heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads head_dim"],
    *,
    start: int,
    scale: float,
    window: int,
    softcap: float,
) -> Float[Tensor, "batch time heads head_dim"]:
    if softcap:
        _say_once("model.attention.kernel=fused cannot apply softcap in PyTorch: dot_product computes those layers")
        return dot_product(q, k, v, start=start, scale=scale, window=window, softcap=softcap)
    heads, kv_heads = q.shape[2], k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    causal = start == 0 and q.shape[2] == k.shape[2] and not window
    mask = None if causal else visible(q.shape[2], k.shape[2], start, window, q.device)
    y = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=heads != kv_heads
    )
    return y.transpose(1, 2)


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
