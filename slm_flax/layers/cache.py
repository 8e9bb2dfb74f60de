"""The KV cache: the keys and values, or latents, that attention keeps of the positions that it has read."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import dynamic_slice_in_dim, dynamic_update_slice_in_dim

Cache = dict[str, Array]
"""{name: [batch, room, ...]}: keys and values, or the latents that give them."""

COUNT = "count"
"""The entry of a cache that says how many of the rows of a step are tokens. Padding follows them."""


def empty_cache(
    entries: Mapping[str, tuple[int, ...]], batch: int, context: int, window: int, dtype: np.dtype
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
    """
    room = min(context, window) if window else context
    return {name: jnp.zeros((batch, room, *shape), dtype) for name, shape in entries.items()}


def extend(cache: Cache, new: Cache, start: int | Array, window: int) -> tuple[Cache, int | Array]:
    """Adds the positions start, start + 1, ... to a cache, in place; `trim` must follow at the end of the step.

    Returns:
      All positions that the new ones may see, themselves included, and the position of the first. That position is
      negative as long as a rolling cache is not full. Without a window this is the whole cache, since shapes are static
      under jit: the kernel's mask hides what is not written yet.
    """
    if not window:
        for name, value in new.items():
            cache[name] = dynamic_update_slice_in_dim(cache[name], value, start, axis=1)
        return dict(cache), 0
    room = next(iter(cache.values())).shape[1]
    for name, value in new.items():
        cache[name] = jnp.concatenate([cache[name], value], axis=1)
    return dict(cache), start - room


def trim(cache: Cache, room: Cache, count: Array) -> Cache:
    """Cuts an extended cache back to the size of `room`, the cache before `extend`.

    The newest positions stay, up to the last of the `count` added ones. Padding after these is cut off.
    """
    return {
        name: cache[name]
        if cache[name].shape == old.shape
        else dynamic_slice_in_dim(cache[name], count, old.shape[1], axis=1)
        for name, old in room.items()
    }
