"""Dropout with masks from a counter-based hash."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from slm_core.model.dropout import MULTIPLIERS, SHIFTS, threshold


@dataclass(frozen=True)
class DropoutKey:
    """The dropout keys of one update, and the place of its rows in the batch.

    Args:
      sites: one key per site, from `slm_core.model.dropout.site_keys`.
      first_row: index of the first row in the global batch.
    """

    sites: Int[Tensor, "sites"]  # int32 with the bits of uint32
    first_row: int


class Dropout(nn.Module):
    """Zeroes random elements of the input (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

        y = x * keep / (1 - rate),  keep[i] = hash(i, key) >= rate * 2^32

    `slm_core.model.dropout` specifies the hash. i is the element's flat index in the global batch, and the key comes
    from (seed, step, site). So masks are the same in both twins, in recomputation and for every split of the batch.

    Args:
      rate: probability that an element becomes 0.
      site: index of this module's key in `DropoutKey.sites`.
    """

    def __init__(self, rate: float, site: int):
        super().__init__()
        self.rate = rate
        self.site = site

    def forward(
        self, x: Float[Tensor, "batch time width"], key: DropoutKey | None
    ) -> Float[Tensor, "batch time width"]:
        """Drops elements of `x` and scales the others; without a key, returns `x` unchanged."""
        if key is None or self.rate == 0:
            return x
        keep = keep_mask(key.sites[self.site], x.shape, key.first_row, self.rate)
        return torch.where(keep, x * (1 / (1 - self.rate)), 0)


def layer_key(key: DropoutKey | None, layer: int) -> DropoutKey | None:
    """Selects the keys of the two sites of a layer; layers are counted from 0."""
    return key and DropoutKey(key.sites.narrow(0, 2 * layer + 1, 2), key.first_row)


def keep_mask(key: Int[Tensor, ""], shape: torch.Size, first_row: int, rate: float) -> Bool[Tensor, "batch time width"]:
    """Computes `slm_core.model.dropout.keep_mask` on the device."""
    rows, time, width = shape
    index = torch.arange(rows * time * width, dtype=torch.int64, device=key.device) + first_row * time * width
    hashed = _mix(_mix(index.to(torch.int32)) ^ key)
    # With the sign bit flipped, int32 sorts as the unsigned integer of the same bits.
    flip = -(2**31)
    return ((hashed ^ flip) >= _signed(threshold(rate) ^ 2**31)).view(rows, time, width)


def _mix(x: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    x = x ^ _shift(x, SHIFTS[0])
    x = x * _signed(MULTIPLIERS[0])
    x = x ^ _shift(x, SHIFTS[1])
    x = x * _signed(MULTIPLIERS[1])
    return x ^ _shift(x, SHIFTS[2])


def _shift(x: Int[Tensor, "n"], by: int) -> Int[Tensor, "n"]:
    """Shifts right without the sign: the arithmetic shift, with the copied sign bits masked off."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def _signed(value: int) -> int:
    """Returns the int32 with the bits of an unsigned 32-bit integer."""
    return value - 2**32 if value >= 2**31 else value
