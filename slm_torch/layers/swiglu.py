"""SwiGLU: a gated MLP with SiLU."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from slm_torch.layers.dense import GatedMLP


class SwigluMLP(GatedMLP):
    """Gated MLP with SiLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    y = down(silu(gate(x)) * up(x)),  silu(x) = x sigmoid(x)
    """

    def activation(
        self, gate: Float[Tensor, "*batch hidden"], up: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch hidden"]:
        """See `swiglu`."""
        return swiglu(gate, up)


def swiglu(gate: Float[Tensor, "*batch hidden"], up: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
    """Computes silu(gate) * up."""
    return silu(gate) * up
