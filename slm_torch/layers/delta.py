"""DeltaNet."""

import torch
from jaxtyping import Float
from torch import Tensor

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix
from slm_torch.layers.cache import Cache
from slm_torch.layers.documents import Documents
from slm_torch.layers.linear import Linear
from slm_torch.layers.qk_norm import L2Norm
from slm_torch.layers.recurrent import Recurrent
from slm_torch.layers.rmsnorm import RMSNorm
from slm_torch.numerics import wide


class DeltaNet(Recurrent):
    """A recurrence that replaces the value of a key: it takes the old one out before it writes the new one.

    Paper: Yang et al. 2024, https://arxiv.org/abs/2406.06484.

        S_t = S_{t-1} - b_t k_t (k_t^T S_{t-1}) + b_t k_t v_t^T,  b_t = sigmoid(x Wb)
        y = norm(q_t^T S_t / sqrt(key_dim)) Wo

    Queries and keys have length 1. The norm is RMSNorm over each head.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        self.b_proj = Linear(layer.d_model, self.heads, matrix(layer), bias=False)
        self.q_norm, self.k_norm = L2Norm(self.key_dim, layer.norm), L2Norm(self.key_dim, layer.norm)
        self.head_norm = RMSNorm(self.value_dim, layer.norm)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        y = self.head_norm(self.replaced(x, cache, documents))
        return self.output(y)

    def replaced(
        self, x: Tensor, cache: Cache | None, documents: Documents | None, log_decay: Tensor | None = None
    ) -> Tensor:
        """Runs the delta rule: [batch, time, heads, value_dim]."""
        q, k, v = self.qkv(x, cache, documents)
        q, k, dtype = self.q_norm(q), self.k_norm(k), wide(x.dtype)
        rate = torch.sigmoid(self.b_proj(x).to(dtype))[..., None]
        write = k.to(dtype) * rate
        return self.recur(q * self.key_dim**-0.5, write, v, cache, documents, log_decay=log_decay, erase=k)
