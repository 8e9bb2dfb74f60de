"""Differential attention: the difference of two softmax maps."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import Spec, matrix, residual_matrix
from slm_flax.layers.attend import Attend
from slm_flax.layers.cache import Cache, empty_cache, extend
from slm_flax.layers.documents import Documents
from slm_flax.layers.linear import Linear
from slm_flax.layers.output_gate import output_gate
from slm_flax.layers.qk_norm import qk_norm
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.layers.value_residual import value_residual
from slm_flax.params import declare

LAMBDA = Spec("scalar", std=0.1)


class DifferentialAttention(nnx.Module):
    """Subtracts one softmax map from another (Ye et al. 2024, https://arxiv.org/abs/2410.05258).

        y[h] = (1 - init) norm((A1[h] - lambda A2[h]) v[h])
        lambda = exp(lq1 . lk1) - exp(lq2 . lk2) + init
        init = 0.8 - 0.6 exp(-0.3 l) in layer l = 0, 1, ...

    A1 and A2 are the softmax maps of two halves of the queries and keys. A value head is as wide as two query heads.
    The norm is RMSNorm over each head. The arguments are those of `GroupedQueryAttention`.
    """

    def __init__(self, layer: LayerSpec, index: int, kernel: Callable[..., Array], position: Callable):
        attention, spec, bias = layer.attention, matrix(layer), layer.attention.bias
        self.heads, self.kv_heads, self.head_dim = attention.n_heads, attention.n_kv_heads, attention.head_dim
        width, kv_width = 2 * self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        self.q_proj = Linear(layer.d_model, width, spec, bias)
        self.k_proj = Linear(layer.d_model, kv_width, spec, bias)
        self.v_proj = Linear(layer.d_model, kv_width, spec, bias)
        self.o_proj = Linear(width, layer.d_model, residual_matrix(layer), attention.output_bias)
        self.q_norm = qk_norm(layer, 2 * self.heads, self.head_dim)
        self.k_norm = qk_norm(layer, 2 * self.kv_heads, self.head_dim)
        self.position = position("heads")
        self.value_residual = value_residual(layer, index)
        self.attend_1 = Attend(layer, kernel, position("scores"))
        self.attend_2 = Attend(layer, kernel, position("scores"))
        self.lambda_q1, self.lambda_k1 = declare((self.head_dim,), LAMBDA), declare((self.head_dim,), LAMBDA)
        self.lambda_q2, self.lambda_k2 = declare((self.head_dim,), LAMBDA), declare((self.head_dim,), LAMBDA)
        self.lambda_init = np.array(0.8 - 0.6 * math.exp(-0.3 * index))  # data: layers may run in one loop
        self.head_norm = RMSNorm(2 * self.head_dim, layer.norm)
        self.gate = output_gate(layer, self.heads, 2 * self.head_dim)
        self.window = attention.window

    def __call__(
        self,
        x: Float[Array, "batch time d_model"],
        start: int | Array,
        cache: Cache | None,
        first_values: Float[Array, "batch time kv_heads v_dim"] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "batch time d_model"], Float[Array, "batch time kv_heads v_dim"]]:
        """Attends as `GroupedQueryAttention` does; v_dim is 2 head_dim."""
        q = self.q_proj(x).reshape(*x.shape[:-1], 2 * self.heads, self.head_dim)
        k = self.k_proj(x).reshape(*x.shape[:-1], 2 * self.kv_heads, self.head_dim)
        v = values = self.v_proj(x).reshape(*x.shape[:-1], self.kv_heads, 2 * self.head_dim)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.k_norm is not None:
            k = self.k_norm(k)
        if self.position is not None:
            q, k = self.position(q, start, documents), self.position(k, start, documents)
        if self.value_residual is not None:
            v = self.value_residual(v, first_values)
        keys_start = start
        if cache is not None:
            seen, keys_start = extend(cache, {"k": k, "v": v}, start, self.window)
            k, v = seen["k"], seen["v"]
        y_1 = self.attend_1(q[:, :, : self.heads], k[:, :, : self.kv_heads], v, start, keys_start, documents)
        y_2 = self.attend_2(q[:, :, self.heads :], k[:, :, self.kv_heads :], v, start, keys_start, documents)
        y = self.head_norm(y_1 - self._lambda().astype(x.dtype) * y_2) * (1 - self.lambda_init).astype(x.dtype)
        if self.gate is not None:
            y = self.gate(y, x)
        return self.o_proj(y.reshape(*x.shape[:-1], -1)), values

    def empty_cache(self, batch: int, context: int, dtype: np.dtype) -> Cache:
        """Makes a cache with room for `context` positions, or for the window."""
        entries = {"k": (2 * self.kv_heads, self.head_dim), "v": (self.kv_heads, 2 * self.head_dim)}
        return empty_cache(entries, batch, context, self.window, dtype)

    def _lambda(self) -> Float[Array, ""]:
        first = jnp.exp((self.lambda_q1[...] * self.lambda_k1[...]).sum())
        return first - jnp.exp((self.lambda_q2[...] * self.lambda_k2[...]).sum()) + self.lambda_init.astype(first.dtype)
