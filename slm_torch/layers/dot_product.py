"""Scaled dot-product attention, written out: the reference for the other kernels."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slm_torch.numerics import wide_product

MASKED = -1e30
"""Score of a masked key: finite, so that a fully masked row never gives NaN; exp of it is 0."""


def dot_product(
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
    """Computes softmax attention with all scores in memory.

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1.

        y = softmax(mask(cap tanh(q k^T scale / cap) + bias)) v

    Query t stands at position start + t, and key j at keys_start + j. A query at position p sees the keys at positions
    in (p - window, p]. Keys at negative positions do not exist, so they are hidden. Each group of heads / kv_heads
    query heads shares one key and value head. Scores, mask and softmax are float32 or wider.

    Args:
      q: queries.
      k: keys.
      v: values.
      start: position of the first query.
      keys_start: position of the first key.
      scale: multiplies q k^T.
      window: how many positions a query sees, itself included; 0: all.
      softcap: the cap; 0: none.
      bias: is added to the scores of each head, by the distance of the query from the key.
      sinks: one score per head that takes part in the softmax but has no value (gpt-oss,
        https://arxiv.org/abs/2508.10925; Xiao et al. 2023, https://arxiv.org/abs/2309.17453).
      documents: the number of the document of each key, and of the query at its position. A query sees the keys of its
        own document.
    """
    q = rearrange(q, "b t (g r) d -> b g r t d", g=k.shape[2])
    k, v = rearrange(k, "b s g d -> b g 1 s d"), rearrange(v, "b s g d -> b g 1 s d")
    scores = wide_product(q, k.mT) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = distances(q.shape[-2], k.shape[-2], start - keys_start, q.device)
    if bias is not None:
        by_distance = bias[:, distance.clamp(0, bias.shape[1] - 1)]
        scores = scores + rearrange(by_distance, "(g r) t s -> g r t s", r=scores.shape[2])
    mask = visible(distance, start, window)
    if documents is not None:
        mask = mask & same_document(documents, q.shape[-2], start - keys_start)[:, None, None]
    scores = torch.where(mask, scores, MASKED)
    if sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        sink = rearrange(sinks, "(g r) -> g r 1 1", r=scores.shape[2]).expand(*scores.shape[:-1], 1)
        weights = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]
    weights = torch.where(mask, weights, 0)
    return rearrange(weights.to(v.dtype) @ v, "b g r t d -> b t (g r) d")


def distances(time: int, keys: int, offset: int, device: torch.device) -> Int[Tensor, "time keys"]:
    """Counts how many positions each key lies before each query; the first query is `offset` after the first key."""
    return offset + torch.arange(time, device=device)[:, None] - torch.arange(keys, device=device)[None, :]


def visible(distance: Int[Tensor, "time keys"], start: int, window: int) -> Bool[Tensor, "time keys"]:
    """Tells which keys each query sees: itself and those before it, at most `window` of them (0: all)."""
    position = start + torch.arange(distance.shape[0], device=distance.device)[:, None]
    oldest = position.clamp(max=window - 1) if window else position
    return (distance >= 0) & (distance <= oldest)


def same_document(documents: Int[Tensor, "batch keys"], time: int, offset: int) -> Bool[Tensor, "batch time keys"]:
    """Tells which keys are in the document of each query; the first query stands `offset` after the first key."""
    return documents[:, offset : offset + time, None] == documents[:, None, :]
