"""Gated MLP with SiLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

y = down(silu(gate(x)) * up(x)),  silu(x) = x sigmoid(x)
"""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Model
from slm_core.params import matrix, residual_matrix
from slm_flax.layers.linear import Linear


class SwigluMLP(nnx.Module):
    def __init__(self, model: Model):
        mlp = model.mlp
        self.gate_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)

    def __call__(self, x: Float[Array, "batch time d_model"]) -> Float[Array, "batch time d_model"]:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))
