"""The KV cache: the keys and values, or latents, that attention keeps of the positions that it has read."""

from collections.abc import Mapping

import torch
from torch import Tensor

Cache = dict[str, Tensor]
"""{name: [batch, room, ...]}: keys and values, or the latents that give them."""


def empty_cache(
    entries: Mapping[str, tuple[int, ...]],
    batch: int,
    context: int,
    window: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Cache:
    """Makes a cache of zeros with room for `context` positions.

    With a window it has room for the newest `window` positions, the oldest first (a rolling cache; Jiang et al. 2023,
    https://arxiv.org/abs/2310.06825).

    Args:
      entries: {name: shape of one position}.
      batch: number of sequences.
      context: the largest number of positions.
      window: how many positions a query sees; 0: all.
      dtype: of the entries.
      device: of the entries.
    """
    room = min(context, window) if window else context
    return {name: torch.zeros(batch, room, *shape, dtype=dtype, device=device) for name, shape in entries.items()}


def extend(cache: Cache, new: Cache, start: int, window: int) -> tuple[Cache, int]:
    """Adds the positions start, start + 1, ... to a cache, in place.

    Returns:
      All positions that the new ones may see, themselves included, and the position of the first. That position is
      negative as long as a rolling cache is not full.
    """
    time = next(iter(new.values())).shape[1]
    if not window:
        for name, value in new.items():
            cache[name][:, start : start + time] = value
        return {name: value[:, : start + time] for name, value in cache.items()}, 0
    room = next(iter(cache.values())).shape[1]
    seen = {name: torch.cat([cache[name], value], dim=1) for name, value in new.items()}
    for name, value in seen.items():
        cache[name].copy_(value[:, time:])
    return seen, start - room
