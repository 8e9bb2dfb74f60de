"""Linear attention."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import elu, pad

from slm_torch.layers.cache import Cache
from slm_torch.layers.documents import Documents
from slm_torch.layers.recurrent import STATE, Recurrent
from slm_torch.numerics import wide

EPSILON = 1e-10
"""Keeps 0 / 0 away: in float32 a feature is 0 below -17."""


class LinearAttention(Recurrent):
    """Attention whose weights are products of positive features, so that a sum over the past is a state.

    Paper: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236.

        y_t = sum_s (f(q_t) . f(k_s)) v_s / (sum_s f(q_t) . f(k_s) + 1e-10),  s <= t,  f(x) = elu(x) + 1

    The sum below the line is one more column of values, of ones.
    """

    def empty_cache(self, batch: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """Makes a state of zeros, with the column of the sum."""
        cache = super().empty_cache(batch, dtype, device)
        return cache | {STATE: pad(cache[STATE], (0, 1))}

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        q, k, v = self.qkv(x, cache, documents)
        dtype = wide(x.dtype)
        q, k = elu(q.to(dtype)) + 1, elu(k.to(dtype)) + 1
        y = self.recur(q, k, pad(v.to(dtype), (0, 1), value=1.0), cache, documents)
        y = y[..., :-1] / (y[..., -1:] + EPSILON)
        return self.output(y.to(x.dtype))
