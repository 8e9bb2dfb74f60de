"""Gated DeltaNet."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu, softplus

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import LOG_RATE, STEP_BIAS, matrix
from slm_torch.layers.cache import Cache
from slm_torch.layers.delta import DeltaNet
from slm_torch.layers.documents import Documents
from slm_torch.layers.linear import Linear
from slm_torch.numerics import wide
from slm_torch.params import declare


class GatedDeltaNet(DeltaNet):
    """The delta rule with a state that forgets: each head at a rate that the token decides.

    Paper: Yang et al. 2024, https://arxiv.org/abs/2412.06464.

        S' = a_t S_{t-1},  a_t = exp(-exp(A) softplus(x Wa + c))
        S_t = S' - b_t k_t (k_t^T S') + b_t k_t v_t^T,  b_t = sigmoid(x Wb)
        y = (norm(q_t^T S_t / sqrt(key_dim)) * silu(x Wg)) Wo

    A and c are learned, one number per head. The rest is as in `DeltaNet`.
    """

    def __init__(self, layer: LayerSpec, context: int):
        super().__init__(layer, context)
        self.a_proj = Linear(layer.d_model, self.heads, matrix(layer), bias=False)
        self.log_rate = declare((self.heads,), LOG_RATE)
        self.step_bias = declare((self.heads,), STEP_BIAS)
        self.g_proj = Linear(layer.d_model, self.value_width, matrix(layer), bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Mixes positions start, start + 1, ... with all before them in their documents."""
        dtype = wide(x.dtype)
        log_decay = -self.log_rate.to(dtype).exp() * softplus(self.a_proj(x).to(dtype) + self.step_bias)
        y = self.head_norm(self.replaced(x, cache, documents, log_decay[..., None]))
        y = y * silu(self.by_head(self.g_proj(x)))
        return self.output(y)
