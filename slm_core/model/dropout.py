"""Draws dropout masks from a counter-based hash: the specification, in NumPy.

An element is kept if hash(element, key) >= rate * 2^32. The element is its flat index in the global batch, and the key
is a hash of (seed, step, site). So the bits do not depend on the twin, on the order, on how the batch is split or on
recomputation. All arithmetic is unsigned and 32 bits wide. The twins implement `keep_mask` in tensors.
"""

import numpy as np

MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
SHIFTS = (16, 15, 16)
MASK = 0xFFFFFFFF


def mix(x: int) -> int:
    """Mixes 32 bits by xor-shifts and products: "lowbias32", a bijection (Wellons 2018, Prospecting for hashes).

    x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    """
    x ^= x >> SHIFTS[0]
    x = x * MULTIPLIERS[0] & MASK
    x ^= x >> SHIFTS[1]
    x = x * MULTIPLIERS[1] & MASK
    return x ^ x >> SHIFTS[2]


def fold(key: int, value: int) -> int:
    """Makes a new key from a key and an integer: mix(key ^ mix(value + 0x9e3779b9))."""
    return mix(key ^ mix(value + 0x9E3779B9 & MASK))


def site_keys(seed: int, step: int, n_layers: int) -> np.ndarray:
    """Makes the dropout keys of one update, uint32 [sites].

    Site 0 is the embedding; sites 2i + 1 and 2i + 2 are the attention and the MLP of layer i. `step` counts completed
    updates.
    """
    step_key = fold(mix(seed & MASK), step & MASK)
    return np.array([fold(step_key, site) for site in range(2 * n_layers + 1)], dtype=np.uint32)


def threshold(rate: float) -> int:
    """Computes the smallest hash that keeps an element: rate * 2^32, rounded."""
    return min(round(rate * 2**32), MASK)


def keep_mask(key: int, shape: tuple[int, int, int], first_row: int, rate: float) -> np.ndarray:
    """Draws which elements are kept: hash = mix(mix(index) ^ key) is at least `threshold(rate)`.

    Args:
      key: of the site, from `site_keys`.
      shape: [rows, time, features].
      first_row: index of the first row in the global batch.
      rate: probability that an element is dropped.

    Returns:
      bool of `shape`.
    """
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
