"""Block-wise 8-bit quantisation; `slm_core.quantization.blockwise` has the specification, in NumPy."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from slm_core.quantization.blockwise import scale_limits, thresholds, zero_of


class Quantiser:
    """Quantises and dequantises flat tensors by one table.

    Args:
      code: the table, ascending, float32 [256].
      block: how many values share a scale.
      like: a tensor of the dtype and on the device of the values.
    """

    def __init__(self, code: np.ndarray, block: int, like: Tensor):
        self.block, self.zero = block, zero_of(code)
        self.table = torch.from_numpy(code).to(like)
        self.thresholds = torch.from_numpy(thresholds(code)).to(like)
        self.limits = scale_limits(np.dtype(str(like.dtype).removeprefix("torch.")))

    def quantise(self, x: Float[Tensor, " size"]) -> tuple[UInt8[Tensor, " size"], Float[Tensor, " blocks"]]:
        """Computes codes and scales from finite values."""
        blocks = F.pad(x, (0, -len(x) % self.block)).view(-1, self.block)
        largest = blocks.abs().amax(-1)
        low, high = self.limits
        scales = torch.where(largest < low, 1, largest.clamp(max=high))
        # A code is the number of thresholds below the value.
        codes = torch.bucketize(blocks * scales.reciprocal()[:, None], self.thresholds, out_int32=True)
        return codes.to(torch.uint8).view(-1)[: len(x)], scales

    def dequantise(self, codes: UInt8[Tensor, " size"], scales: Float[Tensor, " blocks"]) -> Float[Tensor, " size"]:
        """Computes values from codes and scales."""
        values = F.pad(self.table[codes.int()], (0, -len(codes) % self.block)).view(-1, self.block)
        return (values * scales[:, None]).view(-1)[: len(codes)]
