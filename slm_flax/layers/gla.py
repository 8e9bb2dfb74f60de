"""Gated linear attention."""

from jax import Array
from jax.nn import log_sigmoid, silu
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix
from slm_flax.layers.cache import Cache
from slm_flax.layers.documents import Documents
from slm_flax.layers.linear import Linear
from slm_flax.layers.recurrent import Recurrent
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.numerics import wide

TEMPERATURE = 16
"""Divides the log decay, so that the state forgets slowly at first."""


class GatedLinearAttention(Recurrent):
    """A recurrence in which each channel of the keys forgets at a learned rate.

    Paper: Yang et al. 2023, https://arxiv.org/abs/2312.06635.

        S_t = diag(a_t) S_{t-1} + k_t v_t^T,  a_t = sigmoid(x W1 W2 + b)^(1/16)
        y = (norm(q_t^T S_t / sqrt(key_dim)) * silu(x Wg)) Wo

    W1 is [d_model, decay_rank]. The norm is RMSNorm over each head.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        self.decay_down_proj = Linear(layer.d_model, layer.mixer.decay_rank, matrix(layer), bias=False)
        self.decay_up_proj = Linear(layer.mixer.decay_rank, self.key_width, matrix(layer), bias=True)
        self.g_proj = Linear(layer.d_model, self.value_width, matrix(layer), bias=False)
        self.head_norm = RMSNorm(self.value_dim, layer.norm)

    def __call__(
        self,
        x: Float[Array, "batch time d_model"],
        start: int | Array,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Array, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        q, k, v = self.qkv(x, cache, documents)
        logits = self.by_head(self.decay_up_proj(self.decay_down_proj(x)))
        log_decay = log_sigmoid(logits.astype(wide(x.dtype))) / TEMPERATURE
        y = self.recur(q * self.key_dim**-0.5, k, v, cache, documents, log_decay=log_decay)
        y = self.head_norm(y) * silu(self.by_head(self.g_proj(x)))
        return self.output(y)
