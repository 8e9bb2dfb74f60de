"""The two shapes of a dense MLP; a paper's file gives the activation.

DenseMLP: y = down(f(up(x)));  GatedMLP: y = down(f(gate(x), up(x)))
"""

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Model
from slm_core.model.initialization import matrix, residual_matrix
from slm_flax.layers.linear import Linear


class DenseMLP(nnx.Module):
    def __init__(self, model: Model):
        mlp = model.mlp
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)

    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*batch d_model"]) -> Float[Array, "*batch d_model"]:
        return self.down_proj(self.activation(self.up_proj(x)))


class GatedMLP(nnx.Module):
    def __init__(self, model: Model):
        mlp = model.mlp
        self.gate_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.up_proj = Linear(model.d_model, mlp.hidden, matrix(model), mlp.bias)
        self.down_proj = Linear(mlp.hidden, model.d_model, residual_matrix(model), mlp.bias)

    def activation(
        self, gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch hidden"]:
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*batch d_model"]) -> Float[Array, "*batch d_model"]:
        return self.down_proj(self.activation(self.gate_proj(x), self.up_proj(x)))
