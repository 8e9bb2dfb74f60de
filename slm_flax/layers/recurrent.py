"""What all recurrent mixers share: projections, short convolutions and the state."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn import silu
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix, residual_matrix
from slm_flax.layers.cache import COUNT, Cache
from slm_flax.layers.documents import Documents
from slm_flax.layers.linear import Linear
from slm_flax.layers.recurrence import recurrence
from slm_flax.layers.short_convolution import ShortConvolution
from slm_flax.numerics import wide

STATE = "state"


class Recurrent(nnx.Module):
    """Makes queries, keys and values of each head, runs the recurrence, and projects its output.

        q, k, v = conv(x Wq), conv(x Wk), conv(x Wv)
        y = recurrence(q, k, v, ...) Wo

    conv is a short causal convolution and SiLU, or nothing if mixer.convolution is 0. q and k have mixer.key_heads
    heads; n_heads / key_heads heads of v in a row share each of them. Each kind of mixer extends this class: it says
    what becomes of q, k and v, what decays, and what follows the recurrence.

    Args:
      layer: the layer's spec.
      context: the largest number of positions.
    """

    def __init__(self, layer: LayerSpec, context: int):
        mixer = layer.mixer
        self.heads, self.key_dim, self.value_dim = mixer.n_heads, mixer.key_dim, mixer.value_dim
        self.chunk = mixer.chunk
        self.key_width, self.value_width = self.heads * self.key_dim, self.heads * self.value_dim
        self.sharing, projected = self.heads // mixer.key_heads, mixer.key_heads * self.key_dim
        self.q_proj = Linear(layer.d_model, projected, matrix(layer), bias=False)
        self.k_proj = Linear(layer.d_model, projected, matrix(layer), bias=False)
        self.v_proj = Linear(layer.d_model, self.value_width, matrix(layer), bias=False)
        self.o_proj = Linear(self.value_width, layer.d_model, residual_matrix(layer), bias=False)
        self.q_conv, self.k_conv, self.v_conv = (
            ShortConvolution(width, mixer.convolution, mixer.convolution_bias) if mixer.convolution else None
            for width in (projected, projected, self.value_width)
        )

    def empty_cache(self, batch: int, dtype: np.dtype) -> Cache:
        """Makes the state before the first position: zeros, and the convolutions' tails."""
        state = jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), wide(dtype))
        tails = {name: conv.empty_tail(batch, dtype) for name, conv in self._convolutions().items()}
        return {STATE: state} | tails

    def qkv(
        self, x: Float[Array, "batch time d_model"], cache: Cache | None, documents: Documents | None
    ) -> tuple[Array, Array, Array]:
        """Makes queries, keys and values, [batch, time, heads, width]; extends the convolutions' tails in place."""
        made = {"q": self.q_proj(x), "k": self.k_proj(x), "v": self.v_proj(x)}
        for name, conv in self._convolutions().items():
            made[name] = silu(conv(made[name], cache, name, documents))
        widths = (self.key_dim, self.key_dim, self.value_dim)
        q, k, v = (y.reshape(*x.shape[:-1], -1, width) for y, width in zip(made.values(), widths, strict=True))
        return self._shared(q), self._shared(k), v

    def recur(
        self,
        q: Array,
        k: Array,
        v: Array,
        cache: Cache | None,
        documents: Documents | None,
        log_decay: Array | None = None,
        **options: Any,
    ) -> Array:
        """Runs `recurrence` from the cache's state, which it replaces, or from zeros, anew in each document."""
        state, numbers = None, None if documents is None else documents.numbers
        if cache is not None:  # padding writes nothing into the state, and does not let it decay
            state, is_token = cache[STATE], (jnp.arange(q.shape[1]) < cache[COUNT])[:, None, None]
            k, log_decay = k * is_token, None if log_decay is None else log_decay * is_token
        options |= dict(state=state, documents=numbers, chunk=self.chunk, log_decay=log_decay)
        y, last = recurrence(q, k, v, **options)
        if cache is not None:
            cache[STATE] = last
        return y

    def by_head(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time heads head_width"]:
        """Splits the last axis into heads."""
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def output(self, y: Float[Array, "batch time heads value_dim"]) -> Float[Array, "batch time d_model"]:
        """Projects the heads into the stream."""
        return self.o_proj(y.reshape(*y.shape[:-2], -1))

    def _shared(self, x: Float[Array, "batch time key_heads key_dim"]) -> Float[Array, "batch time heads key_dim"]:
        """Repeats queries or keys for the heads of values that share them."""
        return jnp.repeat(x, self.sharing, -2) if self.sharing > 1 else x

    def _convolutions(self) -> dict[str, ShortConvolution]:
        all_three = {"q": self.q_conv, "k": self.k_conv, "v": self.v_conv}
        return {name: conv for name, conv in all_three.items() if conv is not None}
