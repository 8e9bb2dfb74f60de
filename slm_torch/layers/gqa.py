"""Grouped-query attention, with multi-head and multi-query attention as its limits."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix, residual_matrix
from slm_torch.layers.attend import Attend
from slm_torch.layers.cache import Cache, empty_cache, extend
from slm_torch.layers.documents import Documents
from slm_torch.layers.linear import Linear
from slm_torch.layers.output_gate import output_gate
from slm_torch.layers.qk_norm import qk_norm
from slm_torch.layers.value_residual import value_residual


class GroupedQueryAttention(nn.Module):
    """Attention in which groups of query heads share keys and values.

    Paper: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245.

        q, k, v = position(norm(x Wq)), position(norm(x Wk)), x Wv
        y = gate(attention(q, k, v)) Wo

    n_kv_heads = n_heads is multi-head attention (Vaswani et al. 2017), n_kv_heads = 1 multi-query attention (Shazeer
    2019).

    Args:
      layer: the layer's spec.
      index: of the layer, counted from 0.
      kernel: computes softmax attention: a value of `KERNEL`.
      position: makes the component that acts on "heads" or on "scores", or None.
    """

    def __init__(self, layer: LayerSpec, index: int, kernel: Callable[..., Tensor], position: Callable):
        super().__init__()
        attention = layer.attention
        self.heads, self.kv_heads, self.head_dim = attention.n_heads, attention.n_kv_heads, attention.head_dim
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = Linear(layer.d_model, width, matrix(layer), attention.bias)
        self.k_proj = Linear(layer.d_model, kv_width, matrix(layer), attention.bias)
        self.v_proj = Linear(layer.d_model, kv_width, matrix(layer), attention.bias)
        self.o_proj = Linear(width, layer.d_model, residual_matrix(layer), attention.output_bias)
        self.q_norm = qk_norm(layer, self.heads, self.head_dim)
        self.k_norm = qk_norm(layer, self.kv_heads, self.head_dim)
        self.position = position("heads")
        self.value_residual = value_residual(layer, index)
        self.attend = Attend(layer, kernel, position("scores"))
        self.gate = output_gate(layer, self.heads, self.head_dim)
        self.window = attention.window

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        cache: Cache | None,
        first_values: Float[Tensor, "batch time kv_heads head_dim"] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, "batch time kv_heads head_dim"]]:
        """Attends from positions start, start + 1, ...

        Args:
          x: the input at each position.
          start: position of the first row of `x`.
          cache: if given, it gets the new positions, in place, and queries see all of it.
          first_values: the values of the first layer, for the value residual.
          documents: of packed sequences, which are kept apart; without a cache.

        Returns:
          The output, and the values of these positions before the value residual.
        """
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = values = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
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
        y = self.attend(q, k, v, start, keys_start, documents)
        if self.gate is not None:
            y = self.gate(y, x)
        return self.o_proj(y.flatten(-2)), values

    def empty_cache(self, batch: int, context: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """Makes a cache with room for `context` positions, or for the window."""
        shape = (self.kv_heads, self.head_dim)
        return empty_cache({"k": shape, "v": shape}, batch, context, self.window, dtype, device)
