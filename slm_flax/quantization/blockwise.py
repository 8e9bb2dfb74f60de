"""Block-wise 8-bit quantisation; `slm_core.quantization.blockwise` has the specification, in NumPy."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from slm_core.quantization.blockwise import scale_limits, thresholds, zero_of


class Quantiser:
    """Quantises and dequantises flat arrays by one table.

    Args:
      code: the table, ascending, float32 [256].
      block: how many values share a scale.
    """

    def __init__(self, code: np.ndarray, block: int):
        self.block, self.zero = block, zero_of(code)
        self.table, self.thresholds = code, thresholds(code)

    def quantise(self, x: Float[Array, " size"]) -> tuple[UInt8[Array, " size"], Float[Array, " blocks"]]:
        """Computes codes and scales from finite values."""
        blocks = jnp.pad(x, (0, -len(x) % self.block)).reshape(-1, self.block)
        largest = jnp.abs(blocks).max(-1)
        low, high = scale_limits(x.dtype)
        scales = jnp.where(largest < low, 1, jnp.minimum(largest, high))
        codes = self._below(blocks * (1 / scales)[:, None])
        return codes.astype(jnp.uint8).reshape(-1)[: len(x)], scales

    def _below(self, y: Array) -> Array:
        """Counts the thresholds below each value, by bisection: XLA fuses this, but not `jnp.searchsorted`."""
        table = jnp.asarray(self.thresholds, y.dtype)
        below = jnp.where(y > table[127], 128, 0)
        for half in (64, 32, 16, 8, 4, 2, 1):
            below = below + half * (y > table[below + half - 1])
        return below

    def dequantise(self, codes: UInt8[Array, " size"], scales: Float[Array, " blocks"]) -> Float[Array, " size"]:
        """Computes values from codes and scales."""
        values = jnp.asarray(self.table, scales.dtype)[codes.astype(jnp.int32)]
        blocks = jnp.pad(values, (0, -len(codes) % self.block)).reshape(-1, self.block)
        return (blocks * scales[:, None]).reshape(-1)[: len(codes)]
