"""A short causal convolution of each channel by itself."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Float, Int

from slm_core.model.initialization import BIAS, Spec
from slm_flax.layers.cache import COUNT, Cache
from slm_flax.layers.documents import Documents
from slm_flax.numerics import wide
from slm_flax.params import declare


def short_convolution(
    x: Float[Array, "batch time width"],
    weight: Float[Array, "taps width"],
    *,
    bias: Float[Array, "width"] | None = None,
    tail: Float[Array, "batch taps-1 width"] | None = None,
    documents: Int[Array, "batch time"] | None = None,
) -> tuple[Float[Array, "batch time width"], Float[Array, "batch taps-1 width"]]:
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
    tail = jnp.zeros((batch, before, width), dtype) if tail is None else tail.astype(dtype)
    inputs = jnp.concatenate([tail, x.astype(dtype)], 1)
    if documents is not None:
        first = jnp.broadcast_to(documents[:, :1], (batch, before))
        documents = jnp.concatenate([first, documents], 1)

    def seen(places: slice, by: slice) -> Array:
        """Returns the inputs at places, zeros for those of other documents than `by`."""
        if documents is None:
            return inputs[:, places]
        return jnp.where((documents[:, places] == documents[:, by])[..., None], inputs[:, places], 0)

    y = jnp.zeros(width, dtype) if bias is None else bias.astype(dtype)
    for i, tap in enumerate(weight.astype(dtype)):
        y = y + tap * seen(slice(i, i + time), slice(before, before + time))
    return y.astype(x.dtype), seen(slice(time, time + before), slice(-1, None)).astype(x.dtype)


class ShortConvolution(nnx.Module):
    """Convolves each channel with its own learned taps; see `short_convolution`.

    Args:
      width: number of channels.
      taps: positions that an output sees, its own included.
      bias: whether each channel has a bias.
    """

    def __init__(self, width: int, taps: int, bias: bool):
        self.shape = (taps, width)
        self.weight = declare(self.shape, Spec("scalar", std=taps**-0.5))
        self.bias = declare((width,), BIAS) if bias else None

    def __call__(
        self, x: Float[Array, "batch time width"], cache: Cache | None, name: str, documents: Documents | None = None
    ) -> Float[Array, "batch time width"]:
        """Convolves; the tail before the first position is the cache's entry `name`, which is replaced."""
        bias = None if self.bias is None else self.bias[...]
        if cache is None:
            numbers = None if documents is None else documents.numbers
            return short_convolution(x, self.weight[...], bias=bias, documents=numbers)[0]
        inputs = jnp.concatenate([cache[name], x], 1)
        y, _ = short_convolution(x, self.weight[...], bias=bias, tail=cache[name])
        cache[name] = dynamic_slice_in_dim(inputs, cache[COUNT], self.shape[0] - 1, axis=1)  # padding is not seen
        return y

    def empty_tail(self, batch: int, dtype: np.dtype) -> Array:
        """Makes the tail before the first position."""
        taps, width = self.shape
        return jnp.zeros((batch, taps - 1, width), dtype)
