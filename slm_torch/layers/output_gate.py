"""Sigmoid gate on the output of attention."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import matrix
from slm_torch.layers.linear import Linear


class OutputGate(nn.Module):
    """Multiplies the output of attention by a gate (Qiu et al. 2025, https://arxiv.org/abs/2505.06708).

        y' = y * sigmoid(x W)

    attention.gate picks one gate per "element" or one per "head".
    """

    def __init__(self, layer: LayerSpec, heads: int, head_dim: int):
        super().__init__()
        self.gates = (heads, head_dim if layer.attention.gate == "element" else 1)
        self.gate_proj = Linear(layer.d_model, self.gates[0] * self.gates[1], matrix(layer), layer.attention.bias)

    def forward(
        self, y: Float[Tensor, "batch time heads head_dim"], x: Float[Tensor, "batch time d_model"]
    ) -> Float[Tensor, "batch time heads head_dim"]:
        """Multiplies `y` by the gate, which is computed from the layer's input `x`."""
        return y * torch.sigmoid(self.gate_proj(x)).unflatten(-1, self.gates)


def output_gate(layer: LayerSpec, heads: int, head_dim: int) -> OutputGate | None:
    """Makes the gate, or None if attention.gate is "none"."""
    return None if layer.attention.gate == "none" else OutputGate(layer, heads, head_dim)
