"""Value residual: later layers mix in the values of the first."""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import HALF
from slm_torch.params import declare


class ValueResidual(nn.Module):
    """Mixes the first layer's values into this layer's (Zhou et al. 2024, https://arxiv.org/abs/2410.17897).

        v' = a v + b v_1

    v_1 are the values of the first layer. a and b are learned, and start at 1/2.
    """

    def __init__(self):
        super().__init__()
        self.weight = declare((2,), HALF)

    def forward(
        self, v: Float[Tensor, "batch time heads head_dim"], first: Float[Tensor, "batch time heads head_dim"] | None
    ) -> Float[Tensor, "batch time heads head_dim"]:
        """Mixes this layer's values `v` with `first`, those of the first layer."""
        assert first is not None, "only the first layer has no first values, and it does not mix"
        a, b = self.weight.to(v.dtype).unbind()
        return a * v + b * first


def value_residual(layer: LayerSpec, index: int) -> ValueResidual | None:
    """Makes the mixing of layer `index`; None in the first layer, and if attention.value_residual is off."""
    return ValueResidual() if layer.attention.value_residual and index else None
