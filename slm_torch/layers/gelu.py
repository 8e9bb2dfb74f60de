"""MLP with the Gaussian error linear unit (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415).

    y = down(gelu(up(x))),  gelu(x) = x Phi(x)

Phi by the error function ("erf"), or GPT-2's 0.5 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) ("tanh").
"""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Model
from slm_core.params import matrix, residual_matrix
from slm_torch.layers.linear import Linear

APPROXIMATE = {"erf": "none", "tanh": "tanh"}


class GeluMLP(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        mlp = model.mlp
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)
        self.approximate = APPROXIMATE[mlp.gelu]

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        return self.down_proj(nn.functional.gelu(self.up_proj(x), approximate=self.approximate))
