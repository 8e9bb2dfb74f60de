"""A short causal convolution of each channel by itself."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slm_core.model.initialization import BIAS, Spec
from slm_torch.layers.cache import Cache
from slm_torch.layers.documents import Documents
from slm_torch.numerics import wide
from slm_torch.params import declare


def short_convolution(
    x: Float[Tensor, "batch time width"],
    weight: Float[Tensor, "taps width"],
    *,
    bias: Float[Tensor, "width"] | None = None,
    tail: Float[Tensor, "batch taps-1 width"] | None = None,
    documents: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch taps-1 width"]]:
    """Convolves each channel with its own taps. Returns the outputs and the tail that decoding continues.

    The last tap is that of the position itself, as in Mamba (Gu and Dao 2023, https://arxiv.org/abs/2312.00752).

        y_t = bias + sum_i weight_i x_{t - taps + 1 + i}

    The sum is float32 or wider; y and the tail have x's dtype.

    Args:
      x: inputs.
      weight: the taps of each channel, the oldest position first.
      bias: is added to each channel.
      tail: the inputs before the first position; none: zeros.
      documents: numbers that never fall. No tap reaches into another document; the first position continues `tail`.
    """
    (batch, time, width), before, dtype = x.shape, len(weight) - 1, wide(x.dtype)
    tail = x.new_zeros(batch, before, width, dtype=dtype) if tail is None else tail.to(dtype)
    inputs = torch.cat([tail, x.to(dtype)], 1)
    if documents is not None:
        documents = torch.cat([documents[:, :1].expand(batch, before), documents], 1)

    def seen(places: slice, by: slice) -> Tensor:
        """Returns the inputs at places, zeros for those of other documents than `by`."""
        if documents is None:
            return inputs[:, places]
        return torch.where((documents[:, places] == documents[:, by])[..., None], inputs[:, places], 0)

    y = x.new_zeros(width, dtype=dtype) if bias is None else bias.to(dtype)
    for i, tap in enumerate(weight.to(dtype)):
        y = y + tap * seen(slice(i, i + time), slice(before, before + time))
    return y.to(x.dtype), seen(slice(time, time + before), slice(-1, None)).to(x.dtype)


class ShortConvolution(nn.Module):
    """Convolves each channel with its own learned taps; see `short_convolution`.

    Args:
      width: number of channels.
      taps: positions that an output sees, its own included.
      bias: whether each channel has a bias.
    """

    def __init__(self, width: int, taps: int, bias: bool):
        super().__init__()
        self.shape = (taps, width)
        self.weight = declare(self.shape, Spec("scalar", std=taps**-0.5))
        self.bias = declare((width,), BIAS) if bias else None

    def forward(
        self, x: Float[Tensor, "batch time width"], cache: Cache | None, name: str, documents: Documents | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Convolves; the tail before the first position is the cache's entry `name`, which is replaced."""
        numbers = None if documents is None else documents.numbers
        before = None if cache is None else cache[name]
        y, tail = short_convolution(x, self.weight, bias=self.bias, tail=before, documents=numbers)
        if cache is not None:
            cache[name] = tail
        return y

    def empty_tail(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Makes the tail before the first position."""
        taps, width = self.shape
        return torch.zeros(batch, taps - 1, width, dtype=dtype, device=device)
