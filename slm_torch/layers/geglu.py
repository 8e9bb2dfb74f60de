"""GEGLU: a gated MLP with GELU."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from slm_core.config.layers import LayerSpec
from slm_torch.layers.dense import GatedMLP
from slm_torch.layers.gelu import APPROXIMATE


class GegluMLP(GatedMLP):
    """Gated MLP with GELU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

        y = down(gelu(gate(x)) * up(x))

    `GeluMLP` says what gelu is.
    """

    def __init__(self, layer: LayerSpec):
        super().__init__(layer)
        self.approximate = APPROXIMATE[layer.mlp.gelu]

    def activation(
        self, gate: Float[Tensor, "*batch hidden"], up: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch hidden"]:
        """See `geglu`."""
        return geglu(gate, up, self.approximate)


def geglu(
    gate: Float[Tensor, "*batch hidden"], up: Float[Tensor, "*batch hidden"], approximate: str = APPROXIMATE["erf"]
) -> Float[Tensor, "*batch hidden"]:
    """Computes gelu(gate) * up."""
    return gelu(gate, approximate=approximate) * up
