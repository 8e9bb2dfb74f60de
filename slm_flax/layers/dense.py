"""The two forms of a dense MLP, with and without a gate."""

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix, residual_matrix
from slm_flax.layers.linear import Linear


class DenseMLP(nnx.Module):
    """Two matrices with an activation between them; a subclass defines the activation f.

        y = down(f(up(x)))

    Args:
      layer: gives d_model, mlp.hidden and mlp.bias.
    """

    def __init__(self, layer: LayerSpec):
        mlp = layer.mlp
        self.up_proj = Linear(layer.d_model, mlp.hidden, matrix(layer), mlp.bias)
        self.down_proj = Linear(mlp.hidden, layer.d_model, residual_matrix(layer), mlp.bias)

    def activation(self, x: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        """Computes f, the input of the down projection."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*batch d_model"]) -> tuple[Float[Array, "*batch d_model"], float]:
        """Computes the output, and the auxiliary loss per token, which is 0 for a dense MLP."""
        return self.down_proj(self.activation(self.up_proj(x))), 0.0


class GatedMLP(nnx.Module):
    """Three matrices, with an activation of the gate and the up projection; a subclass defines the activation f.

        y = down(f(gate(x), up(x)))

    Args:
      layer: gives d_model, mlp.hidden and mlp.bias.
    """

    def __init__(self, layer: LayerSpec):
        mlp = layer.mlp
        self.gate_proj = Linear(layer.d_model, mlp.hidden, matrix(layer), mlp.bias)
        self.up_proj = Linear(layer.d_model, mlp.hidden, matrix(layer), mlp.bias)
        self.down_proj = Linear(mlp.hidden, layer.d_model, residual_matrix(layer), mlp.bias)

    def activation(
        self, gate: Float[Array, "*batch hidden"], up: Float[Array, "*batch hidden"]
    ) -> Float[Array, "*batch hidden"]:
        """Computes f, the input of the down projection."""
        raise NotImplementedError

    def __call__(self, x: Float[Array, "*batch d_model"]) -> tuple[Float[Array, "*batch d_model"], float]:
        """Computes the output, and the auxiliary loss per token, which is 0 for a dense MLP."""
        return self.down_proj(self.activation(self.gate_proj(x), self.up_proj(x))), 0.0
