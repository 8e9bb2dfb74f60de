"""MLP with the Gaussian error linear unit (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415).

    y = down(gelu(up(x))),  gelu(x) = x Phi(x)

Phi by the error function ("erf"), or GPT-2's 0.5 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) ("tanh").
"""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Model
from slm_core.params import matrix, residual_matrix
from slm_flax.layers.linear import Linear

APPROXIMATE = {"erf": False, "tanh": True}


class GeluMLP(nnx.Module):
    def __init__(self, model: Model):
        mlp = model.mlp
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)
        self.approximate = APPROXIMATE[mlp.gelu]

    def __call__(self, x: Float[Array, "batch time d_model"]) -> Float[Array, "batch time d_model"]:
        return self.down_proj(jax.nn.gelu(self.up_proj(x), approximate=self.approximate))
