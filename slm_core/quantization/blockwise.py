"""Quantises arrays to 8 bits, block by block: the specification, in NumPy.

The data type is the dynamic one of Dettmers et al. 2021 (https://arxiv.org/abs/2110.02861, sections 1.3, 2.1 and 2.2).
On a CPU, `slm_torch.quantization.blockwise` and `slm_flax.quantization.blockwise` give bitwise the same codes and
scales.

A flat array is cut into blocks; the last block may be shorter. The scale of a block is its largest absolute value:

    scale = max |x|,  code = index of the table entry nearest to x (1 / scale),  x = table[code] scale

If two entries are equally near, the lower one is taken. The formula has the product with 1 / scale and not the
quotient, because XLA replaces the quotient by the product, which rounds differently.

The table covers seven decades below 1. Each decade has twice as many entries as the one below it, in the middles of
equal cells. So small values keep their order of magnitude, and large values keep nearly two digits.
"""

import numpy as np

DECADES = 7  # the eighth bit is the sign, or one more bit of fraction


def signed_code() -> np.ndarray:
    """Makes the table for signed values, float32 [256], ascending: 127 entries of each sign, 0 and 1."""
    positive = _middles(1)
    return np.sort(np.concatenate([-positive, [0.0], positive, [1.0]])).astype(np.float32)


def unsigned_code() -> np.ndarray:
    """Makes the table for values that are not negative, float32 [256], ascending: 254 entries, 0 and 1."""
    return np.concatenate([[0.0], _middles(2), [1.0]]).astype(np.float32)


def _middles(fewest: int) -> np.ndarray:
    """Makes the middles of each decade's cells, ascending; the lowest decade has `fewest` of them."""
    decades = []
    for decade in range(DECADES):
        edges = np.linspace(0.1, 1.0, fewest * 2**decade + 1)
        decades.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade + 1 - DECADES))
    return np.concatenate(decades)


def thresholds(code: np.ndarray) -> np.ndarray:
    """Finds the middles between neighbours of a table, float32 [255]. A code is the number of middles below a value."""
    wide = code.astype(np.float64)
    return ((wide[:-1] + wide[1:]) / 2).astype(np.float32)


def zero_of(code: np.ndarray) -> int:
    """Finds the code of the value 0."""
    return int(np.searchsorted(code, 0.0))


def scale_limits(dtype: np.dtype) -> tuple[float, float]:
    """Returns the smallest and the largest scale of a floating dtype.

    A block whose largest value is below the smallest scale counts as zeros. A block whose largest value is above the
    largest scale gets that scale. Beyond these limits the table times the scale, or 1 / scale, would be subnormal
    numbers, which some machines replace by 0.
    """
    tiny = float(np.finfo(dtype).tiny)
    return 2.0**24 * tiny, 1 / tiny


def n_blocks(size: int, block: int) -> int:
    """Counts the blocks of `size` values."""
    return -(-size // block)


def quantise(x: np.ndarray, block: int, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantises finite values: codes, uint8 of x's shape, and scales, [blocks] of x's dtype. Zeros have the scale 1."""
    blocks = np.zeros((n_blocks(x.size, block), block), x.dtype)
    blocks.reshape(-1)[: x.size] = x.reshape(-1)
    largest = np.abs(blocks).max(-1)
    low, high = scale_limits(x.dtype)
    scales = np.where(largest < low, 1, np.minimum(largest, high)).astype(x.dtype)
    codes = np.searchsorted(thresholds(code).astype(x.dtype), blocks * (1 / scales)[:, None], side="left")
    return codes.astype(np.uint8).reshape(-1)[: x.size].reshape(x.shape), scales


def dequantise(codes: np.ndarray, scales: np.ndarray, block: int, code: np.ndarray) -> np.ndarray:
    """Computes the values of codes, of the codes' shape and the scales' dtype."""
    values = code.astype(scales.dtype)[codes.reshape(-1)] * np.repeat(scales, block)[: codes.size]
    return values.reshape(codes.shape)
