"""Kimi Delta Attention."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import LOG_RATE, STEP_BIAS, matrix
from slm_torch.layers.cache import Cache
from slm_torch.layers.delta import DeltaNet
from slm_torch.layers.documents import Documents
from slm_torch.layers.linear import Linear
from slm_torch.numerics import wide
from slm_torch.params import declare


class KimiDeltaAttention(DeltaNet):
    """The delta rule with a state of which each channel forgets at a rate that the token decides.

    Paper: Kimi Team 2025, https://arxiv.org/abs/2510.26692.

        S' = diag(a_t) S_{t-1},  a_t = exp(-exp(A) softplus(x W1 W2 + c))
        S_t = S' - b_t k_t (k_t^T S') + b_t k_t v_t^T,  b_t = sigmoid(x Wb)
        y = (norm(q_t^T S_t / sqrt(key_dim)) * sigmoid(x W3 W4)) Wo

    A is one learned number per head, c one per channel. W1 and W3 are [d_model, decay_rank]. The rest is as in
    `DeltaNet`.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        rank, spec = layer.mixer.decay_rank, matrix(layer)
        self.decay_down_proj = Linear(layer.d_model, rank, spec, bias=False)
        self.decay_up_proj = Linear(rank, self.key_width, spec, bias=False)
        self.log_rate = declare((self.heads,), LOG_RATE)
        self.step_bias = declare((self.key_width,), STEP_BIAS)
        self.gate_down_proj = Linear(layer.d_model, rank, spec, bias=False)
        self.gate_up_proj = Linear(rank, self.value_width, spec, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        dtype = wide(x.dtype)
        steps = softplus(self.decay_up_proj(self.decay_down_proj(x)).to(dtype) + self.step_bias)
        log_decay = -self.log_rate.to(dtype).exp()[:, None] * self.by_head(steps)
        y = self.head_norm(self.replaced(x, cache, documents, log_decay))
        gate = torch.sigmoid(self.gate_up_proj(self.gate_down_proj(x)))
        return self.output(y * self.by_head(gate))
