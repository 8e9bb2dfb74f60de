"""Quantises arrays to 8 bits, block by block: the specification, in NumPy.

The data type is the dynamic one of Dettmers et al. 2021 (https://arxiv.org/abs/2110.02861, sections 1.3, 2.1 and 2.2).
On a CPU, `slm_torch.quantization.blockwise` and `slm_flax.quantization.blockwise` give bitwise the same codes and
scales.

A flat array is cut into blocks, the last of which may be shorter. A block's scale is its largest absolute value; a
value's code is the index of the table entry nearest to value * (1 / scale), the lower one where two are as near. (XLA
makes that product out of value / scale by itself, which rounds otherwise.)

The table spends its codes by decade: seven of them below 1, each with twice the entries of the one below it, in the
middles of equal cells. So small values keep their order of magnitude and large ones nearly two digits.
"""

import numpy as np
from numpy.typing import DTypeLike

DECADES = 7  # of 8 bits one is the sign, or one more bit of fraction


def signed_code() -> np.ndarray:
    """Returns the table for values of either sign, float32 [256], ascending: 127 entries of each sign, 0 and 1."""
    positive = _middles(1)
    return np.sort(np.concatenate([-positive, [0.0], positive, [1.0]])).astype(np.float32)


def unsigned_code() -> np.ndarray:
    """Returns the table for values from 0 up, float32 [256], ascending: 254 entries, 0 and 1."""
    return np.concatenate([[0.0], _middles(2), [1.0]]).astype(np.float32)


def _middles(fewest: int) -> np.ndarray:
    """Returns the middles of each decade's cells, ascending: `fewest` in the lowest decade."""
    decades = []
    for decade in range(DECADES):
        edges = np.linspace(0.1, 1.0, fewest * 2**decade + 1)
        decades.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade + 1 - DECADES))
    return np.concatenate(decades)


def thresholds(code: np.ndarray) -> np.ndarray:
    """Returns the middles between neighbours of a table, float32 [255]: a value's code is how many are below it."""
    wide = code.astype(np.float64)
    return ((wide[:-1] + wide[1:]) / 2).astype(np.float32)


def zero_of(code: np.ndarray) -> int:
    """Returns the code of 0."""
    return int(np.searchsorted(code, 0.0))


def scale_limits(dtype: DTypeLike) -> tuple[float, float]:
    """Returns the smallest and the largest scale. A block whose largest value is below the first counts as zeros, and
    values above the second as that: the table times a smaller scale, and 1 over a larger one, would be subnormal
    numbers, which some machines keep and some take for 0.
    """
    tiny = float(np.finfo(dtype).tiny)
    return 2.0**24 * tiny, 1 / tiny


def n_blocks(size: int, block: int) -> int:
    """Returns how many blocks hold `size` values."""
    return -(-size // block)


def quantise(x: np.ndarray, block: int, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes, uint8 of x's shape, and the scales, [blocks] of x's dtype, of finite values. A block of zeros
    has scale 1.
    """
    blocks = np.zeros((n_blocks(x.size, block), block), x.dtype)
    blocks.reshape(-1)[: x.size] = x.reshape(-1)
    largest = np.abs(blocks).max(-1)
    low, high = scale_limits(x.dtype)
    scales = np.where(largest < low, 1, np.minimum(largest, high)).astype(x.dtype)
    codes = np.searchsorted(thresholds(code).astype(x.dtype), blocks * (1 / scales)[:, None], side="left")
    return codes.astype(np.uint8).reshape(-1)[: x.size].reshape(x.shape), scales


def dequantise(codes: np.ndarray, scales: np.ndarray, block: int, code: np.ndarray) -> np.ndarray:
    """Returns the values of codes, of their shape and the scales' dtype."""
    values = code.astype(scales.dtype)[codes.reshape(-1)] * np.repeat(scales, block)[: codes.size]
    return values.reshape(codes.shape)
