"""Gated MLP with SiLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

y = down(silu(gate(x)) * up(x)),  silu(x) = x sigmoid(x)
"""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Model
from slm_core.params import matrix, residual_matrix
from slm_torch.layers.linear import Linear


class SwigluMLP(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        mlp = model.mlp
        self.gate_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
