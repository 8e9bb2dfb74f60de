"""Linear attention."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import elu
from jaxtyping import Float

from slm_flax.layers.cache import Cache
from slm_flax.layers.documents import Documents
from slm_flax.layers.recurrent import STATE, Recurrent
from slm_flax.numerics import wide

_ONE_COLUMN = ((0, 0), (0, 0), (0, 0), (0, 1))
EPSILON = 1e-10
"""Keeps 0 / 0 away: in float32 a feature is 0 below -17."""


class LinearAttention(Recurrent):
    """Attention whose weights are products of positive features, so that a sum over the past is a state.

    Paper: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236.

        y_t = sum_s (f(q_t) . f(k_s)) v_s / (sum_s f(q_t) . f(k_s) + 1e-10),  s <= t,  f(x) = elu(x) + 1

    The sum below the line is one more column of values, of ones.
    """

    def empty_cache(self, batch: int, dtype: np.dtype) -> Cache:
        """Makes a state of zeros, with the column of the sum."""
        cache = super().empty_cache(batch, dtype)
        return cache | {STATE: jnp.pad(cache[STATE], _ONE_COLUMN)}

    def __call__(
        self,
        x: Float[Array, "batch time d_model"],
        start: int | Array,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Array, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        q, k, v = self.qkv(x, cache, documents)
        dtype = wide(x.dtype)
        q, k = elu(q.astype(dtype)) + 1, elu(k.astype(dtype)) + 1
        y = self.recur(q, k, jnp.pad(v.astype(dtype), _ONE_COLUMN, constant_values=1.0), cache, documents)
        y = y[..., :-1] / (y[..., -1:] + EPSILON)
        return self.output(y.astype(x.dtype))
