"""Scaled dot-product attention, written out (Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762).

    y = softmax(mask(cap tanh(q k^T scale / cap))) v

Query t stands at position start + t and sees the keys at positions in (start + t - window, start + t]. Each group of
heads / kv_heads query heads shares one key and value head. Scores, mask and softmax are float32 or wider.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from slm_torch.numerics import wide

MASKED = -1e30
"""Score of a masked key: finite, so that a fully masked row never gives NaN; exp of it is 0."""


def dot_product(
    q: Float[Tensor, "batch time heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads head_dim"],
    *,
    start: int,
    scale: float,
    window: int,
    softcap: float,
) -> Float[Tensor, "batch time heads head_dim"]:
    q = rearrange(q, "b t (g r) d -> b g r t d", g=k.shape[2])
    k, v = rearrange(k, "b s g d -> b g 1 s d"), rearrange(v, "b s g d -> b g 1 s d")
    scores = (q @ k.mT).to(wide(q.dtype)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    mask = visible(q.shape[-2], k.shape[-2], start, window, q.device)
    scores = torch.where(mask, scores, MASKED)
    weights = torch.where(mask, torch.softmax(scores, dim=-1), 0)
    return rearrange(weights.to(v.dtype) @ v, "b g r t d -> b t (g r) d")


def visible(time: int, keys: int, start: int, window: int, device: torch.device) -> Bool[Tensor, "time keys"]:
    """Returns which keys each query sees: itself and those before it, at most `window` of them (0: all)."""
    query = start + torch.arange(time, device=device)[:, None]
    key = torch.arange(keys, device=device)[None, :]
    mask = key <= query
    return mask & (key > query - window) if window else mask
