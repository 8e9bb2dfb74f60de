"""Grouped-query attention (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).

    q, k, v = position(norm(x Wq)), position(norm(x Wk)), x Wv;  y = attention(q, k, v) Wo

n_kv_heads = n_heads is multi-head attention (Vaswani et al. 2017), n_kv_heads = 1 multi-query attention (Shazeer 2019).
QK-norm is RMSNorm over each head (Dehghani et al. 2023, https://arxiv.org/abs/2302.05442; Gemma 3 and Qwen3 use this
form).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Model
from slm_core.params import matrix, residual_matrix
from slm_torch.layers.linear import Linear
from slm_torch.layers.rmsnorm import RMSNorm

Cache = dict[str, Tensor]
"""Keys and values of the positions read so far: {"k", "v"}: [batch, context, kv_heads, head_dim]."""


class GroupedQueryAttention(nn.Module):
    def __init__(self, model: Model, kernel, position: nn.Module | None):
        """`kernel` computes softmax attention; `position` turns queries and keys, if positions act inside attention."""
        super().__init__()
        attention = model.attention
        self.heads, self.kv_heads, self.head_dim = attention.n_heads, attention.n_kv_heads, attention.head_dim
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = Linear(model.d_model, width, matrix(model), attention.bias)
        self.k_proj = Linear(model.d_model, kv_width, matrix(model), attention.bias)
        self.v_proj = Linear(model.d_model, kv_width, matrix(model), attention.bias)
        self.o_proj = Linear(width, model.d_model, residual_matrix(model), attention.bias)
        normed = attention.qk_norm == "rmsnorm"
        self.q_norm = RMSNorm(self.head_dim, model.norm) if normed else None
        self.k_norm = RMSNorm(self.head_dim, model.norm) if normed else None
        self.position = position
        self.kernel = kernel
        self.options = dict(scale=self.head_dim**-0.5, window=attention.window, softcap=attention.softcap)

    def forward(
        self, x: Float[Tensor, "batch time d_model"], start: int, cache: Cache | None
    ) -> Float[Tensor, "batch time d_model"]:
        """Attends from positions start, start + 1, ...; with a cache, adds `x` to it in place and sees all of it."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.position is not None:
            q, k = self.position(q, start), self.position(k, start)
        if cache is not None:
            k, v = self._extend(cache, k, v, start)
        y = self.kernel(q, k, v, start=start, **self.options)
        return self.o_proj(y.flatten(-2))

    def empty_cache(self, batch: int, context: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """Returns a cache with room for `context` positions."""
        shape = (batch, context, self.kv_heads, self.head_dim)
        return {name: torch.zeros(shape, dtype=dtype, device=device) for name in ("k", "v")}

    def _extend(self, cache: Cache, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        end = start + k.shape[1]
        cache["k"][:, start:end], cache["v"][:, start:end] = k, v
        return cache["k"][:, :end], cache["v"][:, :end]
