"""Multi-head latent attention."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix, residual_matrix
from slm_flax.layers.attend import Attend
from slm_flax.layers.cache import Cache, empty_cache, extend
from slm_flax.layers.documents import Documents
from slm_flax.layers.linear import Linear
from slm_flax.layers.output_gate import output_gate
from slm_flax.layers.qk_norm import qk_norm
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.layers.value_residual import value_residual


class LatentAttention(nnx.Module):
    """Attention whose keys and values come from a small latent.

    Paper: DeepSeek-V2 2024, https://arxiv.org/abs/2405.04434, section 2.1.

        c = norm(x Wdkv),  k[h] = [c Wuk[h]; position(x Wkr)],  v[h] = c Wuv[h]
        q[h] = [c' Wuq[h]; position(c' Wqr[h])],  c' = norm(x Wdq), or x without q_rank
        y = gate(attention(q, k, v)) Wo

    All heads share the rotary part of a key (decoupled RoPE). So the KV cache needs only c and that part. QK-norm acts
    on the parts without position. The norms of the latents are RMSNorm. The arguments are those of
    `GroupedQueryAttention`.
    """

    def __init__(self, layer: LayerSpec, index: int, kernel: Callable[..., Array], position: Callable):
        attention, spec, bias = layer.attention, matrix(layer), layer.attention.bias
        self.heads, self.head_dim = attention.n_heads, attention.head_dim
        self.rope_dim, self.v_dim, self.kv_rank = attention.rope_dim, attention.v_dim, attention.kv_rank
        q_rank, q_width = attention.q_rank, self.heads * (self.head_dim + self.rope_dim)
        self.q_down_proj = Linear(layer.d_model, q_rank, spec, bias) if q_rank else None
        self.q_latent_norm = RMSNorm(q_rank, layer.norm) if q_rank else None
        self.q_up_proj = Linear(q_rank or layer.d_model, q_width, spec, bias)
        self.kv_down_proj = Linear(layer.d_model, self.kv_rank, spec, bias)
        self.kv_latent_norm = RMSNorm(self.kv_rank, layer.norm)
        self.k_rope_proj = Linear(layer.d_model, self.rope_dim, spec, bias)
        self.k_up_proj = Linear(self.kv_rank, self.heads * self.head_dim, spec, bias)
        self.v_up_proj = Linear(self.kv_rank, self.heads * self.v_dim, spec, bias)
        self.o_proj = Linear(self.heads * self.v_dim, layer.d_model, residual_matrix(layer), attention.output_bias)
        self.q_norm = qk_norm(layer, self.heads, self.head_dim)
        self.k_norm = qk_norm(layer, self.heads, self.head_dim)
        self.position = position("heads")
        self.value_residual = value_residual(layer, index)
        self.attend = Attend(layer, kernel, position("scores"))
        self.gate = output_gate(layer, self.heads, self.v_dim)
        self.window = attention.window

    def __call__(
        self,
        x: Float[Array, "batch time d_model"],
        start: int | Array,
        cache: Cache | None,
        first_values: Float[Array, "batch time heads v_dim"] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "batch time d_model"], Float[Array, "batch time heads v_dim"]]:
        """Attends as `GroupedQueryAttention` does; kv_heads is heads, and head_dim of the values is v_dim."""
        q, q_rope = self._queries(x)
        latent = self.kv_latent_norm(self.kv_down_proj(x))
        k_rope = self.k_rope_proj(x).reshape(*x.shape[:-1], 1, self.rope_dim)
        v = values = self._values(latent)
        if self.position is not None:
            q_rope, k_rope = self.position(q_rope, start, documents), self.position(k_rope, start, documents)
        if self.value_residual is not None:
            v = self.value_residual(v, first_values)
        keys_start = start
        if cache is not None:
            entries = {"latent": latent, "k_rope": k_rope} | ({"v": v} if "v" in cache else {})
            seen, keys_start = extend(cache, entries, start, self.window)
            latent, k_rope = seen["latent"], seen["k_rope"]
            v = seen["v"] if "v" in seen else self._values(latent)
        k = self.k_up_proj(latent).reshape(*latent.shape[:-1], self.heads, self.head_dim)
        if self.k_norm is not None:
            k = self.k_norm(k)
        k = jnp.concatenate([k, jnp.broadcast_to(k_rope, (*k.shape[:-1], self.rope_dim))], axis=-1)
        y = self.attend(jnp.concatenate([q, q_rope], axis=-1), k, v, start, keys_start, documents)
        if self.gate is not None:
            y = self.gate(y, x)
        return self.o_proj(y.reshape(*x.shape[:-1], -1)), values

    def empty_cache(self, batch: int, context: int, dtype: np.dtype) -> Cache:
        """Makes a cache with room for `context` positions, or for the window."""
        entries = {"latent": (self.kv_rank,), "k_rope": (1, self.rope_dim)}
        if self.value_residual is not None:
            entries["v"] = (self.heads, self.v_dim)  # mixed with another layer's: the latent alone lacks them
        return empty_cache(entries, batch, context, self.window, dtype)

    def _queries(self, x: Array) -> tuple[Array, Array]:
        if self.q_down_proj is not None:
            x = self.q_down_proj(x)
        if self.q_latent_norm is not None:
            x = self.q_latent_norm(x)
        q = self.q_up_proj(x).reshape(*x.shape[:-1], self.heads, self.head_dim + self.rope_dim)
        q, q_rope = q[..., : self.head_dim], q[..., self.head_dim :]
        return (q if self.q_norm is None else self.q_norm(q)), q_rope

    def _values(self, latent: Array) -> Array:
        return self.v_up_proj(latent).reshape(*latent.shape[:-1], self.heads, self.v_dim)
