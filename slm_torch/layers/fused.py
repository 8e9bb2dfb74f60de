"""Softmax attention by the framework's kernels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from slm_core.logging import say_once
from slm_torch.layers.dot_product import MASKED, distances, same_document, visible
from slm_torch.layers.flash import flash

FLASH_CAPABILITY = (8, 0)
"""The lowest compute capability for which PyTorch has FlashAttention."""


def fused(
    q: Float[Tensor, "batch time heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads v_dim"],
    *,
    start: int,
    keys_start: int = 0,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: Float[Tensor, "heads distances"] | None = None,
    sinks: Float[Tensor, "heads"] | None = None,
    documents: Int[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch time heads v_dim"]:
    """Computes softmax attention by `torch.nn.functional.scaled_dot_product_attention`.

    The function and its arguments are those of `dot_product`. PyTorch picks the kernel: FlashAttention or
    memory-efficient attention, if the device has them. If PyTorch's function lacks an option, `flash` computes the
    layer, and one message says so.
    """
    lacking = "softcap" if softcap else "sinks" if sinks is not None else ""
    if lacking:
        say_once(f"model.attention.kernel=fused cannot apply {lacking} in PyTorch: flash computes those layers")
        options = dict(scale=scale, window=window, softcap=softcap, bias=bias, sinks=sinks, documents=documents)
        return flash(q, k, v, start=start, keys_start=keys_start, **options)
    time, heads, keys, kv_heads = *q.shape[1:3], *k.shape[1:3]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    causal = start == keys_start == 0 and time == keys and not window and bias is None and documents is None
    mask = None if causal else _mask(time, keys, start, keys_start, window, bias, documents, q)
    shared = heads != kv_heads and _shares_keys(q, mask)
    if heads != kv_heads and not shared:
        k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    y = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared)
    return y.transpose(1, 2)


def _shares_keys(q: Tensor, mask: Tensor | None) -> bool:
    """Tells whether a memory-saving kernel of PyTorch lets several query heads share a key head.

    On GPUs only FlashAttention does: in 16 bits, without a mask, from FLASH_CAPABILITY on.
    """
    if q.device.type == "cpu":
        return True
    half = q.dtype in (torch.float16, torch.bfloat16)
    return half and mask is None and torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY


def _mask(
    time: int,
    keys: int,
    start: int,
    keys_start: int,
    window: int,
    bias: Tensor | None,
    documents: Tensor | None,
    q: Tensor,
) -> Tensor:
    """Makes the mask of visible keys, bool [time, keys], or with documents [batch, 1, time, keys].

    With a bias the mask is added to the scores, and is floating, [heads, time, keys] or [batch, heads, time, keys].
    """
    distance = distances(time, keys, start - keys_start, q.device)
    mask = visible(distance, start, window)
    if documents is not None:
        mask = mask & same_document(documents, time, start - keys_start)[:, None]
    if bias is None:
        return mask
    # MASKED is -inf in float16. That is safe, since a query always sees itself.
    return torch.where(mask, bias[:, distance.clamp(0, bias.shape[1] - 1)], MASKED).to(q.dtype)
