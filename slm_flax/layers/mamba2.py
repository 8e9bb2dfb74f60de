"""Mamba-2."""

import jax.numpy as jnp
from jax import Array
from jax.nn import silu, softplus
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import LOG_RATE, ONE, STEP_BIAS, matrix
from slm_flax.layers.cache import Cache
from slm_flax.layers.documents import Documents
from slm_flax.layers.linear import Linear
from slm_flax.layers.recurrent import Recurrent
from slm_flax.layers.rmsnorm import GroupedRMSNorm
from slm_flax.numerics import wide
from slm_flax.params import declare


class Mamba2(Recurrent):
    """A state space model whose heads forget at rates that the token decides.

    Paper: Dao and Gu 2024, https://arxiv.org/abs/2405.21060, whose C, B and X are q, k and v here.

        S_t = exp(-exp(A) s_t) S_{t-1} + k_t (s_t v_t)^T,  s_t = softplus(x Ws + c)
        y = norm((q_t^T S_t + D v_t) * silu(x Wz)) Wo

    The heads share mixer.key_heads groups of q and k, one by default, of width key_dim: the size of the state. A, c and
    D are one learned number per head. The norm is RMSNorm over the heads of a group together.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        self.s_proj = Linear(layer.d_model, self.heads, matrix(layer), bias=False)
        self.log_rate = declare((self.heads,), LOG_RATE)
        self.step_bias = declare((self.heads,), STEP_BIAS)
        self.skip = declare((self.heads,), ONE)
        self.z_proj = Linear(layer.d_model, self.value_width, matrix(layer), bias=False)
        self.output_norm = GroupedRMSNorm(self.value_width, layer.norm, layer.mixer.key_heads)

    def __call__(
        self,
        x: Float[Array, "batch time d_model"],
        start: int | Array,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Array, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        dtype, (q, k, v) = wide(x.dtype), self.qkv(x, cache, documents)
        step = softplus(self.s_proj(x).astype(dtype) + self.step_bias[...])[..., None]
        log_decay = -jnp.exp(self.log_rate.astype(dtype))[:, None] * step
        v = v.astype(dtype)
        y = self.recur(q, k, step * v, cache, documents, log_decay=log_decay) + self.skip[...][:, None] * v
        y = self.output_norm((y.reshape(*y.shape[:-2], -1) * silu(self.z_proj(x).astype(dtype))).astype(x.dtype))
        return self.o_proj(y)
