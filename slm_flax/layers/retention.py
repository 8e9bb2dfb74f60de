"""Retention, the mixer of RetNet."""

import jax.numpy as jnp
from jax import Array
from jax.nn import silu
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix
from slm_core.model.positions import log_retention, plain_rotation
from slm_flax.layers.cache import Cache
from slm_flax.layers.documents import Documents, at_positions
from slm_flax.layers.linear import Linear
from slm_flax.layers.recurrent import Recurrent
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.layers.rope import turned
from slm_flax.numerics import wide


class Retention(Recurrent):
    """A recurrence whose heads forget at fixed rates (RetNet; Sun et al. 2023, https://arxiv.org/abs/2307.08621).

        S_t = gamma_h S_{t-1} + k_t v_t^T,  gamma_h = 1 - 2^(-5-h) in head h = 0, 1, ...
        y = (norm(q_t^T S_t / sqrt(key_dim)) * silu(x Wg)) Wo

    Queries and keys turn with the position, as RoPE with theta 10,000 does. The norm is RMSNorm over each head.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        self.g_proj = Linear(layer.d_model, self.value_width, matrix(layer), bias=False)
        self.head_norm = RMSNorm(self.value_dim, layer.norm)
        self.cos, self.sin = plain_rotation(self.key_dim, context)
        self.log_decay = log_retention(self.heads)

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
        tables = (jnp.asarray(t, dtype) for t in (self.cos, self.sin))
        cos, sin = (at_positions(t, start, x.shape[1], documents)[..., None, :] for t in tables)
        q, k = jnp.concatenate(turned(q, cos, sin), -1), jnp.concatenate(turned(k, cos, sin), -1)
        log_decay = jnp.broadcast_to(jnp.asarray(self.log_decay, dtype)[:, None], (*x.shape[:2], self.heads, 1))
        y = self.recur(q * self.key_dim**-0.5, k, v, cache, documents, log_decay=log_decay)
        y = self.head_norm(y) * silu(self.by_head(self.g_proj(x)))
        return self.output(y)
