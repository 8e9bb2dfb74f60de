"""Dropout with masks from a counter-based hash."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Bool, Float, UInt32

from slm_core.model.dropout import MULTIPLIERS, SHIFTS, threshold


@dataclass(frozen=True)
class DropoutKey:
    """The dropout keys of one update, and the place of its rows in the batch.

    Args:
      sites: one key per site, from `slm_core.model.dropout.site_keys`.
      first_row: index of the first row in the global batch.
    """

    sites: UInt32[Array, "sites"]
    first_row: UInt32[Array, ""]


class Dropout(nnx.Module):
    """Zeroes random elements of the input (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

        y = x * keep / (1 - rate),  keep[i] = hash(i, key) >= rate * 2^32

    `slm_core.model.dropout` specifies the hash. i is the element's flat index in the global batch, and the key comes
    from (seed, step, site). So masks are the same in both twins, in recomputation and for every split of the batch.

    Args:
      rate: probability that an element becomes 0.
      site: index of this module's key in `DropoutKey.sites`.
    """

    def __init__(self, rate: float, site: int):
        self.rate = rate
        self.site = site

    def __call__(self, x: Float[Array, "batch time width"], key: DropoutKey | None) -> Float[Array, "batch time width"]:
        """Drops elements of `x` and scales the others; without a key, returns `x` unchanged."""
        if key is None or self.rate == 0:
            return x
        keep = keep_mask(key.sites[self.site], x.shape, key.first_row, self.rate)
        return jnp.where(keep, x * (1 / (1 - self.rate)), 0)


def layer_key(key: DropoutKey | None, layer: int | Array) -> DropoutKey | None:
    """Selects the keys of the two sites of a layer; layers are counted from 0."""
    return key and DropoutKey(dynamic_slice_in_dim(key.sites, 2 * layer + 1, 2), key.first_row)


def keep_mask(
    key: UInt32[Array, ""], shape: tuple[int, ...], first_row: UInt32[Array, ""], rate: float
) -> Bool[Array, "batch time width"]:
    """Computes `slm_core.model.dropout.keep_mask` on the device."""
    rows, time, width = shape
    index = jnp.arange(rows * time * width, dtype=jnp.uint32) + first_row * jnp.uint32(time * width)
    hashed = _mix(_mix(index) ^ key)
    return (hashed >= jnp.uint32(threshold(rate))).reshape(shape)


def _mix(x: UInt32[Array, "n"]) -> UInt32[Array, "n"]:
    x = x ^ _shift(x, SHIFTS[0])
    x = x * jnp.uint32(MULTIPLIERS[0])
    x = x ^ _shift(x, SHIFTS[1])
    x = x * jnp.uint32(MULTIPLIERS[1])
    return x ^ _shift(x, SHIFTS[2])


def _shift(x: UInt32[Array, "n"], by: int) -> UInt32[Array, "n"]:
    """Shifts right without copying the sign."""
    return x >> jnp.uint32(by)
