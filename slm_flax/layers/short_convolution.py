"""A short causal convolution of each channel by itself."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from slm_flax.numerics import wide


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
