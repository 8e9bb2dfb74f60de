"""Sigmoid gate on the output of attention."""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix
from slm_flax.layers.linear import Linear


class OutputGate(nnx.Module):
    """Multiplies the output of attention by a gate (Qiu et al. 2025, https://arxiv.org/abs/2505.06708).

        y' = y * sigmoid(x W)

    attention.gate picks one gate per "element" or one per "head".
    """

    def __init__(self, layer: LayerSpec, heads: int, head_dim: int):
        self.gates = (heads, head_dim if layer.attention.gate == "element" else 1)
        self.gate_proj = Linear(layer.d_model, self.gates[0] * self.gates[1], matrix(layer), layer.attention.bias)

    def __call__(
        self, y: Float[Array, "batch time heads head_dim"], x: Float[Array, "batch time d_model"]
    ) -> Float[Array, "batch time heads head_dim"]:
        """Multiplies `y` by the gate, which is computed from the layer's input `x`."""
        return y * jax.nn.sigmoid(self.gate_proj(x)).reshape(*x.shape[:-1], *self.gates)


def output_gate(layer: LayerSpec, heads: int, head_dim: int) -> OutputGate | None:
    """Makes the gate, or None if attention.gate is "none"."""
    return None if layer.attention.gate == "none" else OutputGate(layer, heads, head_dim)
