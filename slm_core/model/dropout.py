"""The counter-based hash behind dropout: the same bits in both twins, whatever the order, batch split or recomputation.

Everything is unsigned 32-bit arithmetic. An element is kept when hash(element, key) >= rate * 2^32, where the key
hashes (seed, step, site) and the element is its flat index in the global batch. The twins implement `keep_mask` in
tensors; this module is their specification and what tests compare them with.
"""

import numpy as np

MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
SHIFTS = (16, 15, 16)
MASK = 0xFFFFFFFF


def mix(x: int) -> int:
    """A bijective mixer of 32 bits: xor-shift and multiply, "lowbias32" (Wellons 2018, Prospecting for hashes)."""
    x ^= x >> SHIFTS[0]
    x = x * MULTIPLIERS[0] & MASK
    x ^= x >> SHIFTS[1]
    x = x * MULTIPLIERS[1] & MASK
    return x ^ x >> SHIFTS[2]


def fold(key: int, value: int) -> int:
    """Returns a new key from a key and an integer."""
    return mix(key ^ mix(value + 0x9E3779B9 & MASK))


def site_keys(seed: int, step: int, n_layers: int) -> np.ndarray:
    """Returns one update's dropout keys, uint32 [sites]: site 0 is the embedding, 2i + 1 and 2i + 2 are layer i's."""
    step_key = fold(mix(seed & MASK), step & MASK)
    return np.array([fold(step_key, site) for site in range(2 * n_layers + 1)], dtype=np.uint32)


def threshold(rate: float) -> int:
    """Returns the smallest hash that keeps an element."""
    return min(round(rate * 2**32), MASK)


def keep_mask(key: int, shape: tuple[int, int, int], first_row: int, rate: float) -> np.ndarray:
    """Returns which elements of [rows, time, features] are kept, bool; `first_row` is the first row's global index."""
    rows, time, features = shape
    index = (np.arange(rows * time * features, dtype=np.uint64) + first_row * time * features) & MASK
    hashed = _mix_array(_mix_array(index) ^ key)
    return (hashed >= threshold(rate)).reshape(shape)


def _mix_array(x: np.ndarray) -> np.ndarray:
    x = x ^ x >> np.uint64(SHIFTS[0])
    x = x * np.uint64(MULTIPLIERS[0]) & np.uint64(MASK)
    x = x ^ x >> np.uint64(SHIFTS[1])
    x = x * np.uint64(MULTIPLIERS[1]) & np.uint64(MASK)
    return x ^ x >> np.uint64(SHIFTS[2])
