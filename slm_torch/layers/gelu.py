"""GELU: an MLP with the Gaussian error linear unit."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from slm_core.config.layers import LayerSpec
from slm_torch.layers.dense import DenseMLP

APPROXIMATE = {"erf": "none", "tanh": "tanh"}


class GeluMLP(DenseMLP):
    """MLP with the Gaussian error linear unit (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415).

        y = down(gelu(up(x))),  gelu(x) = x Phi(x)

    mlp.gelu picks Phi: by the error function ("erf"), or GPT-2's approximation 0.5 (1 + tanh(sqrt(2 / pi) (x + 0.044715
    x^3))) ("tanh").
    """

    def __init__(self, layer: LayerSpec):
        super().__init__(layer)
        self.approximate = APPROXIMATE[layer.mlp.gelu]

    def activation(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Computes gelu(x)."""
        return gelu(x, approximate=self.approximate)
